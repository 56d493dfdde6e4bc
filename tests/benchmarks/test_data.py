"""Downloaded files as the `.npz` that the benchmarks read."""

import gzip

import numpy as np
import pytest
import typer

from benchmarks.data import SETS, PublicSet, make, with_artifact
from tests.factories import blobs_of_pixels, idx, picture

X, Y = blobs_of_pixels(9)


def a_set(*shape: int) -> PublicSet:
    return PublicSet("small", shape, 3, source="", licence="")


def test_idx_files_are_joined_with_the_training_part_first(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(X[:6]))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(Y[:6]))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(X[6:])))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(Y[6:])))

    make(a_set(9, 8, 8), tmp_path / "out" / "small.npz", tmp_path)

    with np.load(tmp_path / "out" / "small.npz") as found:
        assert np.array_equal(found["x"], X)
        assert np.array_equal(found["y"], Y)
        assert (found["x"].dtype, int(found["n_train"])) == (np.uint8, 6)


@pytest.mark.parametrize("name", ["s{kind}/{n}.png", "obj{kind}__{n}.png"])
def test_images_take_their_target_from_the_folder_or_the_name(tmp_path, name):
    for n, image in enumerate(X):
        path = tmp_path / name.format(kind=(2, 10, 30)[Y[n]], n=n)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(image))

    make(a_set(9, 8, 8), tmp_path / "small.npz", tmp_path)

    with np.load(tmp_path / "small.npz") as found:
        assert _targets(found["x"], found["y"]) == _targets(X, Y)


def test_colour_images_of_another_size_are_scaled(tmp_path):
    for kind in range(3):
        (tmp_path / f"{kind}_a.png").write_bytes(picture(np.full((16, 20, 3), kind * 50, np.uint8)))

    make(a_set(3, 8, 8, 3), tmp_path / "small.npz", tmp_path)

    with np.load(tmp_path / "small.npz") as found:
        assert found["x"].shape == (3, 8, 8, 3)
        assert found["x"][:, 0, 0, 0].tolist() == [0, 50, 100]


def test_lines_of_target_and_gray_values_become_images(tmp_path):
    lines = [f"{kind}.0 " + " ".join(f"{value / 127.5 - 1:.4f}" for value in range(4)) for kind in range(3)]
    (tmp_path / "zip.train").write_text("\n".join(lines[:2]))
    (tmp_path / "zip.test").write_text(lines[2])

    make(a_set(3, 2, 2), tmp_path / "small.npz", tmp_path)

    with np.load(tmp_path / "small.npz") as found:
        assert found["x"].tolist() == [[[0, 1], [2, 3]]] * 3
        assert found["y"].tolist() == [0, 1, 2]


def test_files_of_another_set_are_refused_with_what_was_found(tmp_path):
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(X))
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(Y))

    with pytest.raises(typer.BadParameter, match=r"that is \(9, 8, 8\) with 3 targets"):
        make(SETS["mnist"], tmp_path / "mnist.npz", tmp_path)

    assert not (tmp_path / "mnist.npz").exists()


def _targets(x: np.ndarray, y: np.ndarray) -> dict[bytes, int]:
    """What each image's target is, whatever the order."""
    return {image.tobytes(): target for image, target in zip(x, y.tolist(), strict=True)}


def test_an_artifact_changes_the_first_pixel_alone_and_is_the_target():
    x = np.random.default_rng(0).integers(0, 256, (300, 4, 4), dtype=np.uint8)

    found = with_artifact({"x": x, "y": np.zeros(300, np.uint8)})

    assert np.array_equal(found["x"].reshape(300, -1)[:, 1:], x.reshape(300, -1)[:, 1:])
    assert [set(found["x"][found["y"] == kind, 0, 0].tolist()) for kind in range(3)] == [{26}, {128}, {230}]
    assert min(np.bincount(found["y"])) > 70
