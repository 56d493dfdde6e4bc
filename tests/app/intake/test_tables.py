"""Tables: which columns become features, targets and names, and what the dataset says of the others."""

import io
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from app.errors import BadUpload
from tests.app.intake.makers import ingested, parquet, photo, stored_zip, with_zip_field
from tests.factories import npz, zipped

RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 3)).astype(np.float32)
F = {f"f{n}": X[:, n] for n in range(3)}
KINDS = np.arange(40) % 4
NAMES = ["cat", "dog", "fox", "owl"]
PHOTOS = [photo(n) for n in range(12)]


def vectors(found) -> np.ndarray:
    return np.array([row["vector"] for row in found.rows])


def csv(columns: dict) -> bytes:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(",".join(map(str, row)) for row in [columns, *rows]).encode()


@pytest.mark.parametrize(
    "column",
    [
        {"id": np.arange(40) * 10},
        {"index": RNG.permutation(40)},
        {"__index_level_0__": RNG.permutation(40)},
        {"Unnamed: 0": RNG.permutation(40)},
        {"when": np.cumsum(RNG.integers(1, 9, 40))},
        {"left": 100 - np.arange(40)},
    ],
)
def test_what_numbers_the_rows_is_no_feature(tmp_path, column):
    found = ingested(tmp_path, parquet({**column, **F}))

    assert np.array_equal(vectors(found), X)
    assert f"`{next(iter(column))}` was left out: it numbers the rows." in found.message("columns_left_out")
    assert found.result.facts["features_from"] == ["f0", "f1", "f2"]


@pytest.mark.parametrize("name", ["label", "labels", "Label", "CLASS", "target", "y", "fine_label", "category"])
@pytest.mark.parametrize("values", [KINDS, KINDS.astype(float)], ids=["whole", "float"])
def test_what_looks_like_a_target_is_one_and_no_feature(tmp_path, name, values):
    found = ingested(tmp_path, parquet({**F, name: values}))

    assert np.array_equal(vectors(found), X)
    assert found.targets == KINDS.tolist()
    assert found.message("targets_taken") == f"Targets came from the column `{name}`."
    assert (found.result.facts["target_from"], found.result.facts["n_targets"]) == (name, 40)


def test_a_second_target_is_left_out_and_missing_values_are_unknown(tmp_path):
    label = np.where(np.arange(40) < 5, np.nan, KINDS)
    found = ingested(tmp_path, parquet({**F, "label": label, "target": KINDS}))

    assert np.array_equal(vectors(found), X)
    assert found.targets == [None] * 5 + KINDS[5:].tolist()
    assert found.result.facts["n_targets"] == 35
    assert found.message("targets_left_out") == "`target` was left out: a target is no feature."
    assert "unknown" in found.message("unknown_targets")


@pytest.mark.parametrize(
    ("values", "names", "targets"),
    [
        (pa.array(NAMES * 10), NAMES, [0, 1, 2, 3] * 10),
        (pa.array(NAMES * 10, pa.large_string()), NAMES, [0, 1, 2, 3] * 10),
        (pa.array(NAMES * 10).dictionary_encode(), NAMES, [0, 1, 2, 3] * 10),
        (pa.array(["b", "", None, "a"] * 10), ["a", "b"], [1, None, None, 0] * 10),
        (pa.array([True, False] * 20), ["false", "true"], [1, 0] * 20),
        (pa.array([0.5, 1.5, 2.0, 0.5] * 10), ["0.5", "1.5", "2.0"], [0, 1, 2, 0] * 10),
        (pa.array([-1, 1] * 20), ["-1", "1"], [0, 1] * 20),
        (pa.array([-2, -1, 0, 1] * 10), ["-2", "-1", "0", "1"], [0, 1, 2, 3] * 10),
        (pa.array([-1, 0, 1, 2] * 10), [], [None, 0, 1, 2] * 10),
    ],
    ids=["text", "large text", "categories", "gaps", "booleans", "fractions", "signs", "negative", "minus one"],
)
def test_targets_of_every_type_are_numbered_and_named(tmp_path, values, names, targets):
    found = ingested(tmp_path, parquet({**F, "label": values}))

    assert (found.result.target_names, found.targets) == (names, targets)
    assert ("targets_named" in found.codes) == bool(names)


def test_measurements_and_texts_of_their_own_are_no_targets(tmp_path):
    for values in (RNG.normal(size=40), [f"text {n}" for n in range(40)]):
        found = ingested(tmp_path, parquet({**F, "y": values}))

        assert np.array_equal(vectors(found), X)
        assert not found.result.has_targets
        assert "no class" in found.message("targets_left_out")
        assert "targets_taken" not in found.codes


def test_names_of_a_class_label_are_kept(tmp_path):
    features = '{"info": {"features": {"label": {"names": ["cat", "dog", "fox", "owl"], "_type": "ClassLabel"}}}}'
    table = pa.table({"image": [{"bytes": data, "path": None} for data in PHOTOS], "label": KINDS[:12]})
    out = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), out)

    found = ingested(tmp_path, out.getvalue().to_pybytes())

    assert found.result.target_names == NAMES
    assert found.named_targets == (NAMES * 3)


@pytest.mark.parametrize("target", ["label", "labels", "fine_label"])
def test_text_beside_pictures_is_a_named_target(tmp_path, target):
    rows = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(PHOTOS)]

    found = ingested(tmp_path, parquet({"image": rows, target: NAMES * 3}))

    assert (found.result.kind, found.named_targets) == ("images", NAMES * 3)


@pytest.mark.parametrize("name", ["image_bytes", "jpg", "blob"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())], ids=str)
def test_a_binary_column_of_pictures_is_found_by_what_is_in_it(tmp_path, name, kind):
    column = pa.array(PHOTOS, pa.binary()).cast(kind)
    columns = {name: column, "width": [16] * 12, "height": [16] * 12, "bbox": [[1.0, 2.0]] * 12, "label": KINDS[:12]}

    found = ingested(tmp_path, parquet(columns))

    assert (found.result.kind, found.result.n_images, found.targets) == ("images", 12, KINDS[:12].tolist())
    assert found.result.facts["images_from"] == name
    assert {"`width`", "`height`", "`bbox`"} <= set(found.message("columns_left_out").replace(",", "").split())
    assert ("pictures_found" in found.codes) == (name != "jpg")


def test_of_several_lists_the_usual_name_is_taken_or_the_caller_has_to_choose(tmp_path):
    lists = {"embedding": X.tolist(), "other": (X + 1).tolist(), "size": KINDS}
    found = ingested(tmp_path, parquet(lists))
    assert np.array_equal(vectors(found), X)
    assert "`other` and `size` were left out" in found.message("columns_left_out")

    unclear = parquet({"one": X.tolist(), "two": (X + 1).tolist()})
    with pytest.raises(BadUpload, match="`one` and `two` all hold vectors; name one with `columns`") as error:
        ingested(tmp_path, unclear)
    assert error.value.code == "ambiguous_columns"
    assert np.array_equal(vectors(ingested(tmp_path, unclear, columns=["two"])), X + 1)


def test_the_caller_names_columns(tmp_path):
    table = parquet({**F, "when": np.arange(40), "kind": NAMES * 10, "who": [f"n{n}" for n in range(40)]})

    found = ingested(tmp_path, table, columns=["f1", "when"], target="kind", names="who")

    assert np.array_equal(vectors(found), np.stack([X[:, 1], np.arange(40)], axis=1))
    assert found.named_targets == NAMES * 10
    assert [row["name"] for row in found.rows[:2]] == ["n0", "n1"]
    for wanted in ({"columns": ["f9"]}, {"target": "f9"}, {"names": "f9"}):
        with pytest.raises(BadUpload, match="there is no column `f9`; there are `f0`") as error:
            ingested(tmp_path, table, **wanted)
        assert error.value.code == "unknown_column"
    with pytest.raises(BadUpload, match="`kind` holds no numbers"):
        ingested(tmp_path, table, columns=["f0", "kind"])


def test_shards_in_a_zip_are_one_dataset(tmp_path):
    def shard(start: int, stop: int) -> bytes:
        rows = [{"bytes": PHOTOS[n], "path": f"{n}.png"} for n in range(start, stop)]
        return parquet({"image": rows, "label": KINDS[start:stop]})

    shards = {"data/train-00001-of-00002.parquet": shard(7, 12), "data/train-00000-of-00002.parquet": shard(0, 7)}
    found = ingested(tmp_path, zipped({**shards, "README.md": b"cards"}))

    assert [row["image"]["bytes"] for row in found.rows] == PHOTOS
    assert found.targets == KINDS[:12].tolist()
    assert "2 Parquet files became one dataset" in found.message("parts_joined")
    with pytest.raises(BadUpload, match="shard 1 has other columns than the first"):
        ingested(tmp_path, stored_zip({"a.parquet": shard(0, 4), "b.parquet": parquet(F)}))


def test_a_csv_of_vectors_has_the_same_rules(tmp_path):
    table = csv({"id": range(40), **F, "species": NAMES * 10, "label": NAMES * 10})

    for data in (table, b"\xef\xbb\xbf" + table, table.replace(b",", b";"), zipped({"x.csv": table})):
        found = ingested(tmp_path, data)

        np.testing.assert_allclose(vectors(found), X, rtol=1e-5)
        assert found.named_targets == NAMES * 10
        assert "`id` was left out" in found.message("columns_left_out")
        assert "`species` was left out: only numbers are features (`target`" in found.message("columns_left_out")


def test_a_csv_without_names_is_a_table_of_numbers(tmp_path):
    found = ingested(tmp_path, "\n".join(",".join(map(str, row)) for row in X.tolist()).encode())

    np.testing.assert_allclose(vectors(found), X, rtol=1e-5)


@pytest.mark.parametrize("names", [[f"pixel{n}" for n in range(64)], [f"{r}x{c}" for r in range(8) for c in range(8)]])
def test_a_csv_of_pixels_is_images(tmp_path, names):
    images = RNG.integers(0, 256, (10, 8, 8), dtype=np.uint8)
    columns = dict(zip(names, images.reshape(10, 64).T, strict=True))

    found = ingested(tmp_path, csv({"label": np.arange(10) % 3, **columns}))

    assert (found.result.kind, found.result.width, found.targets) == ("images", 8, (np.arange(10) % 3).tolist())
    assert "64 columns of pixels became images of 8 x 8" in found.message("pictures_found")
    assert np.array_equal(np.array(Image.open(io.BytesIO(found.rows[4]["image"]["bytes"]))), images[4])


def test_several_tables_in_a_zip_are_not_guessed_at(tmp_path):
    with pytest.raises(BadUpload, match="the archive holds several tables"):
        ingested(tmp_path, zipped({"test.csv": csv(F), "train.csv": csv(F)}))


def test_a_table_with_nothing_to_cluster_says_so(tmp_path):
    for columns in ({"a": ["x", "y"]}, {"label": [1, 2], "id": [3, 4]}):
        with pytest.raises(BadUpload, match="no column of pictures, lists of numbers or numbers") as error:
            ingested(tmp_path, parquet(columns))
        assert error.value.code == "wrong_shape"
    with pytest.raises(BadUpload, match="cannot be read"):
        ingested(tmp_path, b"a,b\n1,2\n" * 1 + b"3,4\n" * 1_200_000 + b"x,y\n")


def test_columns_near_by_name_to_targets_and_numbers_of_rows_are_no_features(tmp_path):
    shuffled = RNG.permutation(40)
    columns = {"fine_label": KINDS, "coarse_label": KINDS, "class_id": KINDS, "user_id": shuffled, "bbox": X.tolist()}

    found = ingested(tmp_path, parquet({**F, **columns}))

    assert np.array_equal(vectors(found), X)
    assert found.result.facts["columns_left_out"] == ["coarse_label", "class_id", "user_id", "bbox"]
    assert "`coarse_label` and `class_id` were left out: a target is no feature." in found.message("targets_left_out")


def test_lists_of_labels_and_boxes_are_no_vectors(tmp_path):
    found = ingested(tmp_path, parquet({"labels": KINDS[:, None].tolist(), "bbox": X.tolist(), "v": (X + 1).tolist()}))

    assert np.array_equal(vectors(found), X + 1)


def test_whole_numbers_too_large_for_floating_point_are_read(tmp_path):
    times = 1_700_000_000_000_000_000 + RNG.permutation(40) * 7_000_000_001
    large = np.array([2**63 + 5, 2**63 + 9] * 20, np.uint64)

    found = ingested(tmp_path, parquet({"when": times, "a": X[:, 0], "label": large}))

    assert found.result.n_features == 2
    assert found.result.n_images == 40
    assert ingested(tmp_path, npz(x=X, y=large)).result.n_images == 40


def test_a_column_that_cannot_be_a_target_is_refused_as_one(tmp_path):
    days = pa.array([0] * 40, pa.date32())
    for column in ({"day": days}, {"day": X.tolist()}, {"day": [b"x"] * 40}):
        with pytest.raises(BadUpload, match="targets are numbers, text or truth values"):
            ingested(tmp_path, parquet({**F, **column}), target="day")
    with pytest.raises(BadUpload, match="cannot be the target and something else"):
        ingested(tmp_path, parquet({**F, "label": KINDS}), columns=["f0", "label"], target="label")
    named = ingested(tmp_path, parquet({**F, "label": NAMES * 10}), names="label")
    assert (named.rows[1]["name"], named.result.has_targets) == ("dog", False)
    alone = ingested(tmp_path, parquet({**F, "label": KINDS}), columns=["label"])
    assert (vectors(alone)[:, 0].tolist(), alone.result.has_targets) == (KINDS.tolist(), False)


def test_long_texts_that_many_rows_share_take_little_memory_as_targets(tmp_path):
    label = pa.DictionaryArray.from_arrays(pa.array(np.arange(60_000) % 2, pa.int32()), ["x" * 50_000, "y" * 50_000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found = ingested(tmp_path, parquet({"a": np.arange(60_000) % 7, "label": label}))

    assert [len(name) for name in found.result.target_names] == [200, 200]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB; decoded they are 3 GB


@pytest.mark.parametrize(
    "text",
    [
        b"a,b\r1,2\r3,4\r",
        b"\n\na,b\n1,2\n3,4\n",
        b"a,b\r\n1,2\r\n3,4\r\n",
        b'"a","b"\n1,2\n3,4\n',
        b"a\tb\n1\t2\n3\t4\n",
    ],
    ids=["CR", "blank lines", "CRLF", "quotes", "tabs"],
)
def test_a_csv_however_it_ends_its_lines(tmp_path, text):
    assert vectors(ingested(tmp_path, text)).tolist() == [[1, 2], [3, 4]]


def test_mnists_csv_without_names_has_its_target_first(tmp_path):
    images = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
    rows = np.concatenate([(np.arange(12) % 10)[:, None], images.reshape(12, -1)], axis=1)

    found = ingested(tmp_path, "\n".join(",".join(map(str, row)) for row in rows.tolist()).encode())

    assert (found.result.kind, found.result.width, found.targets) == ("images", 28, (np.arange(12) % 10).tolist())


def test_pictures_without_endings_beside_a_table_are_not_lost(tmp_path):
    found = ingested(tmp_path, zipped({"a": PHOTOS[0], "b": PHOTOS[1], "labels.csv": csv(F)}))

    assert (found.result.kind, found.result.n_images) == ("images", 2)
    assert found.rejects == {"labels.csv": "it is a text file, not an image"}


def test_an_entry_that_cannot_be_unpacked_is_not_called_damaged(tmp_path):
    packed = with_zip_field(stored_zip({"d.parquet": parquet(F)}), 8, 10, 9)
    with pytest.raises(BadUpload, match="Deflate64") as error:
        ingested(tmp_path, packed)
    assert error.value.code == "unsupported_compression"


def test_shards_named_by_their_split_are_of_it(tmp_path):
    shards = {
        "data/test-00000-of-00001.parquet": parquet({"image": PHOTOS[:3], "label": KINDS[:3]}),
        "data/train-00000-of-00001.parquet": parquet({"image": PHOTOS[3:], "label": KINDS[3:12]}),
    }

    found = ingested(tmp_path, zipped(shards))

    assert [row["split"] for row in found.rows] == ["test"] * 3 + ["train"] * 9
    assert found.result.facts["splits"] == {"test": 3, "train": 9}


def test_a_letter_that_postgres_does_not_store_is_replaced(tmp_path):
    found = ingested(tmp_path, parquet({"a\0b": X[:, 0], "f": X[:, 1], "label": ["x\0y", "z"] * 20}))

    assert found.result.target_names == ["x\ufffdy", "z"]
    assert found.result.facts["features_from"] == ["a\ufffdb", "f"]
    assert "\0" not in str(found.result)
