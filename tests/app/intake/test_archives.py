"""Archives: folders as splits and classes, names, and files that are no pictures."""

import io
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from app.errors import BadUpload
from app.intake.names import split_named
from tests.app.intake.makers import encoded, ingested, photo, stored_zip, with_zip_field
from tests.factories import tarred, zipped

A, B = photo(1), photo(2)
packed = pytest.mark.parametrize("pack", [zipped, tarred])


@packed
@pytest.mark.parametrize("above", ["", "ds/"])
def test_train_and_test_are_splits_and_the_folders_in_them_are_classes(tmp_path, pack, above):
    files = {
        f"{above}{split}/{kind}/{n}.png": b"" for split in ("train", "test") for kind in ("cats", "dogs") for n in "12"
    }

    found = ingested(tmp_path, pack({name: photo(at) for at, name in enumerate(files)}))

    assert found.result.target_names == ["cats", "dogs"]
    assert found.targets == [0, 0, 1, 1] * 2
    assert [row["split"] for row in found.rows] == ["train"] * 4 + ["test"] * 4
    assert found.result.facts["splits"] == {"train": 4, "test": 4}
    assert found.result.facts["target_from"] == "folders"
    assert (
        found.message("splits_found")
        == "Folders named `test` and `train` are splits, not classes. Every image has its split."
    )
    assert found.message("classes_from_folders") == "2 names of folders became targets: `cats` and `dogs`."


@packed
@pytest.mark.parametrize(
    ("names", "targets", "code"),
    [
        (["cats/1.png", "dogs/2.png"], ["cats", "dogs"], "classes_from_folders"),
        (["Training/a/1.png", "VALID/b/2.png"], ["a", "b"], "classes_from_folders"),
        (["photos/1.png", "photos/2.png"], [], "folders_are_no_classes"),
        (["train/1.png", "test/2.png"], [], "folders_are_no_classes"),
        (["x/good/1.png", "x/bad/2.png", "y/good/3.png"], ["bad", "good"], "classes_from_folders"),
        (["cats/1.png", "notes/readme.txt", "2.png"], [], "folders_are_no_classes"),
        (["1.png", "2.png"], [], None),
    ],
)
def test_a_folder_is_a_class_if_another_one_with_images_lies_beside_it(tmp_path, pack, names, targets, code):
    found = ingested(
        tmp_path, pack({name: photo(at) if name.endswith("png") else b"text" for at, name in enumerate(names)})
    )

    assert found.result.target_names == targets
    assert {code} - {None} == found.codes & {"classes_from_folders", "folders_are_no_classes"}


def test_folders_are_no_targets_where_the_caller_says_so(tmp_path):
    found = ingested(tmp_path, zipped({"cats/1.png": A, "dogs/2.png": B}), targets="none")

    assert (found.result.has_targets, found.result.target_names) == (False, [])


@packed
def test_hidden_folders_and_those_of_programs_are_left_out(tmp_path, pack):
    hidden = [
        "cats/.ipynb_checkpoints/1.png",
        "@eaDir/cats/1.png",
        "__MACOSX/cats/._1.png",
        "cats/Thumbs.db",
        ".git/x.png",
    ]

    found = ingested(tmp_path, pack({"cats/1.png": A, "dogs/2.png": B, **dict.fromkeys(hidden, A)}))

    assert (found.result.n_images, found.result.n_rejects, found.result.target_names) == (2, 0, ["cats", "dogs"])
    assert found.message("hidden_left_out") == "Left out: 5 files, hidden or of other programs."


def test_names_of_a_zip_are_utf_8_with_and_without_the_flag(tmp_path):
    files = {"café/été.png": A, "naïve/日.png": B}
    without = with_zip_field(stored_zip(files), 6, 8, 0)
    assert zipfile.ZipFile(io.BytesIO(without)).namelist() != list(files)

    for data in (stored_zip(files), without):
        found = ingested(tmp_path, data)
        assert [row["name"] for row in found.rows] == list(files)
        assert found.result.target_names == ["café", "naïve"]
    assert "names_repaired" in found.codes


@packed
def test_letters_that_macos_has_split_are_put_together(tmp_path, pack):
    split = unicodedata.normalize("NFD", "café/1.png")
    assert split != "café/1.png"

    found = ingested(tmp_path, pack({split: A, "café/2.png": A, "thé/3.png": B}))

    assert found.result.target_names == ["café", "thé"]


def test_backslashes_are_separators_and_colons_are_letters(tmp_path):
    names = ["photos\\cats\\12:30.png", "photos\\dogs\\2.png"]
    found = ingested(tmp_path, stored_zip(dict(zip(names, (A, B), strict=True))))

    assert [row["name"] for row in found.rows] == ["photos/cats/12:30.png", "photos/dogs/2.png"]
    assert found.result.target_names == ["cats", "dogs"]
    with pytest.raises(BadUpload) as error:
        ingested(tmp_path, stored_zip({"C:\\a.png": A, "..\\b.png": B}))
    assert "the name leaves the archive" in error.value.detail


def test_deflate64_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(BadUpload, match="Deflate64, as Windows Explorer does above 2 GB; zip it with 7-Zip"):
        ingested(tmp_path, with_zip_field(stored_zip({"a.png": A, "b.png": B}), 8, 10, 9))


def test_blank_pictures_are_no_bombs(tmp_path):
    blank = {f"{n}.bmp": encoded(Image.new("RGB", (800, 600), (n, n, n)), "BMP") for n in range(3)}

    found = ingested(tmp_path, zipped(blank))

    assert (found.result.n_images, found.result.n_rejects) == (3, 0)
    assert found.message("one_colour") == "3 of 3 images show one colour and nothing else."


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.pdf", b"%PDF-1.7", "a PDF document"),
        ("a.json", b'{"a": 1}', "a JSON file"),
        ("a.txt", b"hello", "a text file"),
        ("a.zip", zipped({"a.png": A}), "a zip archive"),
        ("a.cr2", b"II*\0raw", "a camera's raw file (CR2)"),
        ("a.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        ("a.png", b"", "an empty file"),
        ("a.bin", b"\xf0\xf1\xf2\0", "a file of an unknown kind"),
        ("a.svg", b"<svg xmlns=''>", "an SVG drawing"),
    ],
)
def test_a_refused_file_is_called_what_it_seems_to_be(tmp_path, name, data, words):
    found = ingested(tmp_path, zipped({"1.png": A, "2.png": B, name: data}))

    assert found.rejects == {name: f"it is {words}, not an image"}
    assert found.message("refused").startswith("1 of 3 files were refused")


@packed
def test_one_picture_beside_something_else_is_no_dataset(tmp_path, pack):
    with pytest.raises(BadUpload, match=r"only one of 2 files is an image.*`table.xlsx`: it is a zip archive") as error:
        ingested(tmp_path, pack({"logo.png": A, "table.xlsx": zipped({"x": b"1"})}))
    assert error.value.code == "hardly_anything_read"


def test_exact_copies_are_counted(tmp_path):
    found = ingested(tmp_path, zipped({"1.png": A, "2.png": A, "3.png": B}))

    assert found.result.facts["n_distinct"] == 2
    assert found.message("duplicates") == "1 of 3 images are exact copies of others: 2 differ."


def test_sizes_and_the_input_side_are_facts(tmp_path):
    sizes = [(30, 20), (64, 48), (200, 100)]
    found = ingested(tmp_path, zipped({f"{w}.png": encoded(Image.new("L", (w, h))) for w, h in sizes}))

    assert found.result.facts["sizes"] == {"smallest": [30, 20], "median": [64, 48], "largest": [200, 100]}
    assert found.result.facts["input_side"] == 32
    assert ingested(tmp_path, zipped({"a.png": A, "b.png": B})).result.facts["input_side"] == 16


def test_a_tar_whose_folders_come_late_has_the_same_classes(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in (("b/1.png", A), ("b/2.png", B), ("a/3.png", photo(3))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    found = ingested(tmp_path, out.getvalue())

    assert found.named_targets == ["b", "b", "a"]
    assert np.array(found.targets).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("train2017", "train"),
        ("train_images", "train"),
        ("training_set", "train"),
        ("test-data", "test"),
        ("t10k", "test"),
        ("val", "val"),
        ("validation", "val"),
        ("trains", ""),
        ("testimony", ""),
        ("values", ""),
        ("trainer_red", ""),
    ],
)
def test_folders_that_name_a_split(name, split):
    assert split_named(name) == split
