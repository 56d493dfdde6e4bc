"""Every kind of file that is read: three good and three odd ones of each, what comes of them and what is said of it."""

import gzip

import numpy as np
import pytest
from PIL import Image

from app.errors import AppError
from tests.app.intake.makers import encoded, ingested, parquet, photo, stored_zip
from tests.factories import idx, npy, npz, tarred, zipped

RNG = np.random.default_rng(5)
GRAY = RNG.integers(0, 256, (12, 10, 10), dtype=np.uint8)
DEEP = RNG.integers(0, 3000, (12, 10, 10)).astype(np.uint16)
V = RNG.normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 3
PHOTOS = [photo(n) for n in range(12)]
FILES = {f"{'abc'[n % 3]}/{n}.png": data for n, data in enumerate(PHOTOS)}
FLAT = dict(zip(map(str, range(12)), PHOTOS, strict=True))
COLUMNS = {f"f{n}": V[:, n] for n in range(3)}
IMAGES = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(PHOTOS)]


def csv(columns: dict) -> bytes:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(",".join(map(str, row)) for row in [columns, *rows]).encode()


def tiffs(images: np.ndarray) -> dict[str, bytes]:
    return {f"{n}.tif": encoded(Image.fromarray(one), "TIFF") for n, one in enumerate(images)}


def pixel_columns(images: np.ndarray) -> dict:
    return {f"pixel{n}": column for n, column in enumerate(images.reshape(len(images), -1).T)}


# What is sent; how many images or vectors, how many with targets, the codes of the notes, some of the facts.
READ = {
    "zip": [
        (zipped(FLAT), 12, 0, set(), {"n_distinct": 12, "input_side": 16}),
        (zipped(FILES), 12, 12, {"classes_from_folders"}, {"target_from": "folders"}),
        (
            zipped({f"train/{name}": data for name, data in FILES.items()}),
            12,
            12,
            {"classes_from_folders", "splits_found"},
            {"splits": {"train": 12}},
        ),
        (zipped({**FLAT, "x.txt": b"no"}), 12, 0, {"refused"}, {}),
        (zipped(tiffs(DEEP)), 12, 0, {"pixel_range"}, {"range": {"depth": 16, "low": 0.0, "high": 4095.0}}),
        (
            stored_zip({"d\\1.png": PHOTOS[0], "d\\2.png": PHOTOS[0]}),
            2,
            0,
            {"duplicates", "folders_are_no_classes"},
            {"n_distinct": 1},
        ),
    ],
    "tar": [
        (tarred(FLAT), 12, 0, set(), {"n_distinct": 12}),
        (tarred(FILES), 12, 12, {"classes_from_folders"}, {"n_targets": 12}),
        (tarred(FILES, "w"), 12, 12, {"classes_from_folders"}, {}),
        (tarred({**FILES, "a/.DS_Store": b"x"}), 12, 12, {"classes_from_folders", "hidden_left_out"}, {}),
        (tarred({**FLAT, "x.pdf": b"%PDF"}), 12, 0, {"refused"}, {}),
        (tarred(tiffs(DEEP.astype(np.int32) - 1500)), 12, 0, {"pixel_range"}, {"highest": float(DEEP.max() - 1500.0)}),
    ],
    "one image": [
        (PHOTOS[0], 1, 0, set(), {"input_side": 16}),
        (encoded(Image.fromarray(GRAY[0]), "JPEG"), 1, 0, set(), {}),
        (encoded(Image.fromarray(GRAY[0]), "BMP"), 1, 0, set(), {}),
        (encoded(Image.fromarray(DEEP[0]), "TIFF"), 1, 0, {"pixel_range"}, {}),
        (encoded(Image.new("CMYK", (9, 9)), "JPEG"), 1, 0, {"one_colour"}, {"n_one_colour": 1}),
        (encoded(Image.fromarray(GRAY[0] > 99), "PNG"), 1, 0, set(), {"n_levels": 2}),
    ],
    "npz": [
        (npz(x=GRAY), 12, 0, set(), {"arrays": ["x"]}),
        (npz(x=GRAY, y=Y), 12, 12, {"targets_taken"}, {"target_from": "y"}),
        (npz(x=V, y=Y), 12, 12, {"targets_taken"}, {"n_distinct": 12}),
        (
            npz(x_train=GRAY[:8], y_train=Y[:8], x_test=GRAY[8:], y_test=Y[8:]),
            12,
            12,
            {"parts_joined", "targets_taken"},
            {"splits": {"train": 8, "test": 4}},
        ),
        (npz(arr_0=GRAY, arr_1=V), 12, 0, {"arrays_left_out"}, {"arrays": ["arr_0"]}),
        (npz(x=GRAY, y=np.where(Y == 2, -1, Y)), 12, 8, {"targets_taken", "unknown_targets"}, {"n_targets": 8}),
    ],
    "npy": [
        (npy(GRAY), 12, 0, set(), {"highest": 255}),
        (npy(V), 12, 0, set(), {"n_distinct": 12}),
        (npy(np.stack([GRAY] * 3, axis=3)), 12, 0, set(), {}),
        (npy(np.stack([GRAY] * 3, axis=1)), 12, 0, {"channels_first"}, {}),
        (npy(GRAY.astype(">f4") / 255), 12, 0, set(), {"range": {"depth": 0, "low": 0.0, "high": 1.0}}),
        (npy(DEEP), 12, 0, {"pixel_range"}, {"range": {"depth": 16, "low": 0.0, "high": 4095.0}}),
    ],
    "idx": [
        (idx(GRAY), 12, 0, set(), {}),
        (gzip.compress(idx(GRAY)), 12, 0, set(), {}),
        (
            zipped({"a-idx3-ubyte": idx(GRAY), "a-idx1-ubyte": idx(Y)}),
            12,
            12,
            {"targets_taken"},
            {"target_from": "labels"},
        ),
        (
            zipped({"t10k-images-idx3-ubyte": idx(GRAY[:4]), "train-images-idx3-ubyte": idx(GRAY[4:])}),
            12,
            0,
            {"parts_joined"},
            {"splits": {"train": 8, "test": 4}},
        ),
        (zipped({"a-idx3-ubyte": idx(GRAY), "readme.txt": b"x"}), 12, 0, set(), {}),
        (idx(GRAY // 128), 12, 0, {"pixel_range"}, {"range": {"depth": 8, "low": 0.0, "high": 1}}),
    ],
    "parquet of images": [
        (parquet({"image": IMAGES}), 12, 0, set(), {"images_from": "image"}),
        (parquet({"image": IMAGES, "label": Y}), 12, 12, {"targets_taken"}, {"target_from": "label"}),
        (parquet({"image": PHOTOS, "name": list(FLAT)}), 12, 0, {"names_taken"}, {"names_from": "name"}),
        (
            parquet({"blob": PHOTOS, "width": [16] * 12}),
            12,
            0,
            {"pictures_found", "columns_left_out"},
            {"images_from": "blob"},
        ),
        (
            parquet({"image": IMAGES, "label": ["x", "y", None] * 4}),
            12,
            8,
            {"targets_taken", "targets_named", "unknown_targets"},
            {},
        ),
        (
            zipped({"0.parquet": parquet({"image": IMAGES[:5]}), "1.parquet": parquet({"image": IMAGES[5:]})}),
            12,
            0,
            {"parts_joined"},
            {},
        ),
    ],
    "parquet of vectors": [
        (parquet(COLUMNS), 12, 0, set(), {"features_from": ["f0", "f1", "f2"]}),
        (parquet({**COLUMNS, "label": Y}), 12, 12, {"targets_taken"}, {}),
        (parquet({"vector": V.tolist()}), 12, 0, set(), {"features_from": ["vector"]}),
        (parquet({**COLUMNS, "id": range(12)}), 12, 0, {"columns_left_out"}, {"features_from": ["f0", "f1", "f2"]}),
        (
            parquet({"embedding": V.tolist(), "other": V.tolist()}),
            12,
            0,
            {"columns_left_out"},
            {"features_from": ["embedding"]},
        ),
        (parquet({**COLUMNS, "wide": V[:, 0] * 1000}), 12, 0, {"columns_unlike"}, {"widest_column": 3}),
    ],
    "csv": [
        (csv(COLUMNS), 12, 0, set(), {"features_from": ["f0", "f1", "f2"]}),
        (csv({**COLUMNS, "species": Y, "class": Y}), 12, 12, {"targets_taken"}, {"target_from": "class"}),
        (
            csv({"label": Y, **pixel_columns(GRAY)}),
            12,
            12,
            {"targets_taken", "pictures_found"},
            {"target_from": "label"},
        ),
        (csv({"index": range(12), **COLUMNS}), 12, 0, {"columns_left_out"}, {}),
        (csv({**COLUMNS, "city": ["Rome"] * 12}), 12, 0, {"columns_left_out"}, {}),
        (
            csv(pixel_columns(GRAY // 16)),
            12,
            0,
            {"pictures_found", "pixel_range"},
            {"range": {"depth": 8, "low": 0.0, "high": 15}},
        ),
    ],
}


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in READ for number in range(6)])
def test_what_was_taken_is_said(tmp_path, kind, number):
    data, n_images, n_targets, codes, facts = READ[kind][number]

    found = ingested(tmp_path, data)

    assert (found.result.n_images, found.result.facts["n_targets"]) == (n_images, n_targets)
    assert found.codes == codes
    assert {name: found.result.facts[name] for name in facts} == facts


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (zipped({"a.txt": b"x"}), "no_images"),
        (b"a,b\nx,y\n", "wrong_shape"),
        (npz(before=GRAY, after=GRAY), "unknown_arrays"),
        (parquet({"one": V.tolist(), "two": V.tolist()}), "ambiguous_columns"),
        (zipped({"a.csv": csv(COLUMNS), "b.csv": csv(COLUMNS)}), "several_tables"),
        (b"%PDF-1.7", "unsupported_format"),
    ],
)
def test_what_cannot_be_read_has_a_code(tmp_path, data, code):
    with pytest.raises(AppError) as error:
        ingested(tmp_path, data)
    assert error.value.code == code
