"""Arrays: which of an `.npz` count, shapes and types, and the range of values that becomes 0 to 255."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from app.errors import BadUpload
from models import pixels
from models.pixels import PixelRange
from tests.app.intake.makers import encoded, ingested, photo
from tests.factories import idx, npy, npz, zipped

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 9, 9), dtype=np.uint8)
Y = np.arange(20) % 4


def stored(found) -> np.ndarray:
    """Images as a dataset keeps them."""
    return np.stack([np.array(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in found.rows])


def tiffs(images, **how) -> bytes:
    """A zip of one TIFF for each array."""
    return zipped({f"{n}.tif": encoded(Image.fromarray(one), "TIFF", **how) for n, one in enumerate(images)})


def seen(found) -> np.ndarray:
    """Images as a model sees them."""
    chosen = PixelRange(**found.result.facts["range"])
    files = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in found.rows]
    return np.stack([np.array(pixels.load(image, chosen)) for image in files])


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X, "y": Y},
        {"X": X, "Y": Y},
        {"images": X, "labels": Y},
        {"data": X, "target": Y},
        {"arr_0": X, "arr_1": Y},
        {"x": X, "y": Y[:, None]},
        {"x": X, "y": Y.astype(float)},
        {"x": X, "y": Y.astype(">i4")},
        {"x": X, "y": Y, "meta": np.zeros(3)},
    ],
    ids=lambda arrays: ",".join(arrays),
)
def test_inputs_and_targets_under_their_usual_names(tmp_path, arrays):
    found = ingested(tmp_path, npz(**arrays))

    assert np.array_equal(stored(found), X)
    assert found.targets == Y.tolist()
    assert ("arrays_left_out" in found.codes) == ("meta" in arrays)


@pytest.mark.parametrize(("x", "y"), [("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y")])
def test_train_and_test_arrays_are_one_dataset_with_splits(tmp_path, x, y):
    arrays = {x.format("train"): X[:15], y.format("train"): Y[:15], x.format("test"): X[15:], y.format("test"): Y[15:]}

    found = ingested(tmp_path, npz(**arrays))

    assert np.array_equal(stored(found), X)
    assert found.targets == Y.tolist()
    assert [row["split"] for row in found.rows] == ["train"] * 15 + ["test"] * 5
    assert found.result.facts["splits"] == {"train": 15, "test": 5}
    assert "became one dataset" in found.message("parts_joined")


def test_vectors_of_train_and_test_have_splits_too(tmp_path):
    v = RNG.normal(size=(12, 3)).astype(np.float32)

    found = ingested(tmp_path, npz(x_train=v[:8], x_test=v[8:]))

    assert [row["vector"] for row in found.rows] == v.tolist()
    assert [row["split"] for row in found.rows] == ["train"] * 8 + ["test"] * 4


def test_mnists_four_files_are_one_dataset(tmp_path):
    files = {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(X[:15])),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(Y[:15])),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(X[15:])),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(Y[15:])),
    }
    for names in (list(files), sorted(files)):
        found = ingested(tmp_path, zipped({name: files[name] for name in names}))

        assert np.array_equal(stored(found), X)
        assert found.targets == Y.tolist()
        assert found.result.facts["splits"] == {"train": 15, "test": 5}


@pytest.mark.parametrize(
    ("array", "images"),
    [
        (X, X),
        (X[..., None], X),
        (X[:, None], X),
        (np.stack([X, X, X], axis=1), np.stack([X, X, X], axis=3)),
        (np.asfortranarray(X), X),
        (X.astype(">u2"), X),
        (X.astype(np.int64), X),
        (X.astype(np.float64), X),
        (X.astype(np.float32) / 255, X),
        (X.astype(np.float32) / 127.5 - 1, X),
        (X.astype(np.uint16) * 257, X),
        (X > 127, (X > 127) * np.uint8(255)),
        ((X > 127).astype(np.uint8), (X > 127) * np.uint8(255)),
    ],
    ids=[
        "plain",
        "NHWC",
        "NCHW",
        "NCHW of three",
        "Fortran",
        ">u2",
        "int64",
        "float 255",
        "float 1",
        "-1...1",
        "u2",
        "bool",
        "0/1",
    ],
)
@pytest.mark.parametrize("pack", [npy, lambda array: npz(x=array)], ids=["npy", "npz"])
def test_a_stack_of_images_of_any_layout_and_type(tmp_path, pack, array, images):
    found = ingested(tmp_path, pack(array))

    assert np.abs(seen(found).astype(int) - images).max() <= 1
    assert ("channels_first" in found.codes) == (array.ndim == 4 and array.shape[3] not in (1, 3))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((480, 640, 3), "looks like one image"),
        ((5, 3, 8, 3), "channels first or last"),
        ((5, 8, 8, 2), "images are"),
        ((5,), "images are"),
        ((2, 2, 2, 2, 2), "images are"),
    ],
)
def test_shapes_that_are_no_stack_of_images_are_refused(tmp_path, shape, words):
    with pytest.raises(BadUpload, match=words) as error:
        ingested(tmp_path, npy(np.zeros(shape, np.uint8)))
    assert error.value.code == "wrong_shape"


def test_arrays_of_unknown_names_are_named(tmp_path):
    with pytest.raises(BadUpload, match="holds the arrays `before` and `after`; name the inputs `x`") as error:
        ingested(tmp_path, npz(before=X, after=X))
    assert error.value.code == "unknown_arrays"
    found = ingested(tmp_path, npz(before=X, after=X, kind=Y), columns=["after"], target="kind")
    assert found.targets == Y.tolist()
    assert np.array_equal(stored(ingested(tmp_path, npz(whatever=X))), X)


def test_text_targets_of_arrays_are_named(tmp_path):
    found = ingested(tmp_path, npz(x=X, y=np.array(["cat", "dog", "fox", "owl"])[Y]))

    assert found.named_targets == [["cat", "dog", "fox", "owl"][y] for y in Y]


@pytest.mark.parametrize(
    ("depth", "low", "high", "expected"),
    [
        (8, 0, 255, (0, 255)),
        (8, 10, 100, (0, 255)),
        (8, 0, 1, (0, 1)),
        (8, 0, 16, (0, 16)),
        (16, 0, 255, (0, 255)),
        (16, 0, 1000, (0, 1023)),
        (16, 100, 4000, (0, 4095)),
        (16, 0, 65_535, (0, 65_535)),
        (16, 32_768 - 500, 32_768 + 500, (32_268, 33_268)),
        (32, -1000, 3000, (-1000, 3000)),
        (32, 0, 300, (0, 511)),
        (0, 0.0, 1.0, (0, 1)),
        (0, -0.9, 0.8, (-1, 1)),
        (0, 0.0, 250.0, (0, 255)),
        (0, 0.0, 16.0, (0, 16)),
        (0, 0.0, 0.01, (0, 0.01)),
        (0, -5.0, 900.0, (-5, 900)),
    ],
)
def test_the_range_follows_from_depth_and_values(depth, low, high, expected):
    chosen = pixels.choose_range(depth, low, high)

    assert (chosen.low, chosen.high) == expected
    ends = pixels.scaled(
        np.array(expected, np.float64 if depth == 0 else np.int64), PixelRange(32 if depth else 0, *expected)
    )
    assert ends.tolist() == [0, 255]


@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_low_counts_in_16_bits_are_not_black(tmp_path, form):
    counts = RNG.integers(0, 256, (6, 16, 16)).astype(np.uint16)

    found = ingested(tmp_path, zipped({f"{n}.x": encoded(Image.fromarray(one), form) for n, one in enumerate(counts)}))

    assert np.array_equal(seen(found), counts)
    assert found.result.facts["range"] == {"depth": 16, "low": 0.0, "high": 255.0}
    assert (found.result.facts["lowest"], found.result.facts["highest"]) == (counts.min(), counts.max())
    assert found.message("pixel_range") == (
        "Pixel values of 16 bits from 0 to 255 became 0 to 255. New images are read alike."
    )


def test_a_twelve_bit_camera_has_twelve_bits(tmp_path):
    counts = RNG.integers(0, 4000, (6, 16, 16)).astype(np.uint16)

    found = ingested(tmp_path, tiffs(counts))

    assert found.result.facts["range"]["high"] == 4095
    assert np.abs(seen(found) - counts.astype(int) * 255 / 4095).max() <= 0.51
    assert np.array_equal(stored(found), counts)  # the file keeps what it had


@pytest.mark.parametrize("values", [np.float32, np.int32])
def test_tiffs_of_32_bits_keep_their_values(tmp_path, values):
    images = (RNG.normal(size=(4, 12, 12)) * 1000).astype(values)

    found = ingested(tmp_path, tiffs(images))

    assert np.array_equal(stored(found), images)
    expected = (images - images.min()) / (float(images.max()) - float(images.min())) * 255
    assert np.abs(seen(found) - expected).max() <= 0.51


def test_white_is_zero_in_16_bits_is_turned(tmp_path):
    counts = RNG.integers(0, 4096, (3, 8, 8)).astype(np.uint16)
    counts[:, 0, 0], counts[:, 0, 1] = 0, 4095

    found = ingested(tmp_path, tiffs(counts, tiffinfo={262: 0}))

    assert np.abs(seen(found) - (4095 - counts.astype(int)) * 255 / 4095).max() <= 0.51


def test_digits_of_0_to_16_use_the_whole_range(tmp_path):
    digits = load_digits().images[:50]

    for array in (digits, digits.astype(np.uint8)):
        found = ingested(tmp_path, npz(x=array))

        assert found.result.facts["range"]["high"] == 16
        assert np.abs(seen(found) - digits * 255 / 16).max() <= 0.51
        assert "pixel_range" in found.codes


def test_images_of_several_depths_keep_their_own_ranges(tmp_path):
    deep = RNG.integers(0, 4096, (8, 8)).astype(np.uint16)
    deep[0, 0] = 4095
    plain = X[0, :8, :8]

    found = ingested(
        tmp_path, zipped({"a.tif": encoded(Image.fromarray(deep), "TIFF"), "b.png": encoded(Image.fromarray(plain))})
    )

    both = seen(found)
    assert np.abs(both[0] - deep.astype(int) * 255 / 4095).max() <= 0.51
    assert np.array_equal(both[1], plain)
    assert found.message("depths_differ").startswith("1 images have fewer bits")


def test_vectors_of_unlike_scale_and_copies_are_told(tmp_path):
    v = RNG.normal(size=(50, 4)).astype(np.float32)
    v[:, 2] *= 100
    v[10:20] = v[:10]

    found = ingested(tmp_path, npy(v))

    assert "Column 2 spreads" in found.message("columns_unlike")
    assert found.message("duplicates") == "10 of 50 vectors are exact copies of others: 40 differ."
    assert found.result.facts["widest_column"] == 2
    assert not {"columns_unlike", "duplicates"} & ingested(tmp_path, npy(v[20:, :2])).codes


def test_distinct_rows_are_numpys(tmp_path):
    v = RNG.integers(0, 3, (500, 6)).astype(np.float32)
    v[0] = -0.0
    v[1] = 0.0

    assert ingested(tmp_path, npy(v)).result.facts["n_distinct"] == len(np.unique(v, axis=0))


def test_a_photo_in_four_colours_has_a_thumbnail():
    cmyk = encoded(Image.open(io.BytesIO(photo())).convert("CMYK"), "JPEG")

    small = Image.open(io.BytesIO(pixels.thumbnail(cmyk, 8)))

    assert (small.format, small.mode, small.size) == ("PNG", "RGB", (8, 8))


def test_arrays_that_are_not_needed_refuse_nothing(tmp_path):
    meta = np.array([{"a": 1}], dtype=object)
    out = io.BytesIO()
    np.savez(out, x=X, y=Y, meta=meta, none=np.zeros((0, 3)), day=np.array(["2020-01-01"], "M8[D]"))

    found = ingested(tmp_path, out.getvalue())

    assert found.targets == Y.tolist()
    assert found.result.facts["arrays_left_out"] == ["meta", "none", "day"]


def test_targets_of_bytes_and_of_mixed_kinds_are_read(tmp_path):
    latin = np.array(["caf\xe9".encode("latin-1"), b"tea"] * 10)
    assert len(ingested(tmp_path, npz(x=X, y=latin)).result.target_names) == 2
    mixed = npz(x_train=X[:10], y_train=np.array(["a", "b"] * 5), x_test=X[10:], y_test=np.arange(10) % 2)
    assert ingested(tmp_path, mixed).result.target_names == ["0", "1", "a", "b"]


def test_gray_arrays_keep_their_values_so_that_another_model_reads_them_by_its_range(tmp_path):
    counts = RNG.integers(0, 900, (6, 12, 12)).astype(np.uint16)

    found = ingested(tmp_path, npz(x=counts))

    assert np.array_equal(stored(found), counts)
    spec = pixels.InputSpec("images", side=12, channels=1, depth=16, low=0, high=4095)
    as_a_model = np.stack([pixels.decode(row["image"]["bytes"], spec)[0] for row in found.rows])
    assert np.abs(as_a_model - counts.astype(int) * 255 / 4095).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.uint16, ">i4"])
def test_a_model_of_eight_bits_reads_arrays_of_any_type_alike(dtype):
    images = X[:3]
    spec = pixels.InputSpec("images", side=9, channels=1)

    assert np.array_equal(pixels.from_arrays(images.astype(dtype), spec)[:, 0], images)


def test_large_whole_numbers_keep_their_differences(tmp_path):
    images = 1_000_000_000 + RNG.integers(0, 100, (5, 10, 10))

    found = ingested(tmp_path, npy(images.astype(np.int32)))

    assert len(np.unique(seen(found))) > 90


def test_color_of_16_bits_is_said_to_be_reduced(tmp_path):
    chunks = b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"".join(b"\0" + RNG.bytes(48) for _ in range(8)))),
            (b"IEND", b""),
        )
    )
    deep = b"\x89PNG\r\n\x1a\n" + chunks

    found = ingested(tmp_path, zipped({"1.png": deep, "2.png": photo(1, 8)}))

    assert (
        found.message("depth_reduced") == "1 color images have 16 bits a channel, of which the upper eight were read."
    )
