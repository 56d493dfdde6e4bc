"""A folder of photos goes in by the command line and comes out as it was; other tools read results over HTTP."""

import io
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pandas
import pytest
from fsspec.implementations.http import HTTPFileSystem
from PIL import Image

from tests.app.intake.makers import encoded, parquet
from tests.factories import npz
from tests.service import Service, running

HEIC = Path(__file__).parents[1] / "app" / "intake" / "photo.heic"
EXIF = Image.Exif()
EXIF[0x010F], EXIF[0x0132] = "A camera", "2020:05:17 10:11:12"
TAKEN = 1_589_710_272


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Service:
    with running(tmp_path_factory.mktemp("up") / "data") as found:
        yield found


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def command(service: Service, home: Path, *arguments: object, code: int = 0) -> str:
    environment = os.environ | {"CLUSTERSERVE_URL": address(service), "XDG_DATA_HOME": str(home), "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "clusterserve", *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


class Web(HTTPFileSystem):
    """HTTP as DuckDB wants a file system: it asks when a file has changed. These never do."""

    def modified(self, _path: str) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def photos(folder: Path, n: int) -> dict[str, bytes]:
    """A folder of `n` photos of two kinds, with dates and metadata, HEIC and a hidden file among them."""
    rng, files = np.random.default_rng(0), {}
    for number in range(n):
        kind = ("day", "night")[number % 2]
        pixels = np.clip(rng.normal((200, 40)[number % 2], 20, (48, 64, 3)), 0, 255).astype(np.uint8)
        name = f"{kind}/{number:03d}.jpg"
        data = encoded(Image.fromarray(pixels), "JPEG", quality=90, exif=EXIF)
        if number % 40 == 0:
            name, data = f"{kind}/été {number:03d}.heic", HEIC.read_bytes()
        files[name] = data
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        os.utime(folder / name, (TAKEN + number, TAKEN + number))
    (folder / ".DS_Store").write_bytes(b"hidden")
    return files


def test_a_folder_of_photos_goes_in_and_comes_back_as_it_was(service, tmp_path):
    files = photos(tmp_path / "album", 200)

    told = command(service, tmp_path, "upload", tmp_path / "album")
    dataset = re.search(r"ds_\w+", told)[0]
    model = re.search(r"mdl_\w+", command(service, tmp_path, "train", dataset, "-k", 2, "--method", "kmeans"))[0]
    command(service, tmp_path, "export", model, "--copy-to", tmp_path / "sorted")

    assert "200 images, 0 refused" in told
    assert "- 2 names of folders became targets: `day` and `night`." in told
    copies = [path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]
    by_name = {Path(name).name: (name, data) for name, data in files.items()}
    assert sorted(path.name for path in copies) == sorted(by_name)
    for path in copies:
        name, data = by_name[path.name]
        assert path.read_bytes() == data
        assert path.stat().st_mtime == (tmp_path / "album" / name).stat().st_mtime
    assert len(list((tmp_path / "sorted").iterdir())) == 2


def test_a_zip_gives_its_files_back_with_their_dates(service, tmp_path):
    files = photos(tmp_path / "album", 12)
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "album.zip", "album"], cwd=tmp_path, check=True)

    dataset = re.search(r"ds_\w+", command(service, tmp_path, "upload", tmp_path / "album.zip"))[0]
    model = re.search(r"mdl_\w+", command(service, tmp_path, "train", dataset, "-k", 2, "--method", "kmeans"))[0]
    command(service, tmp_path, "export", model, "--copy-to", tmp_path / "sorted")

    for path in (tmp_path / "sorted").rglob("*.*"):
        number = int(re.search(r"\d{3}", path.name)[0])
        assert path.read_bytes() in files.values()
        assert abs(path.stat().st_mtime - (TAKEN + number)) <= 2  # a zip keeps every other second


def test_without_the_originals_the_stored_copies_come_and_it_is_said(service, tmp_path):
    photos(tmp_path / "album", 6)
    dataset = re.search(r"ds_\w+", command(service, tmp_path, "upload", tmp_path / "album"))[0]
    model = re.search(r"mdl_\w+", command(service, tmp_path, "train", dataset, "-k", 2, "--method", "kmeans"))[0]

    told = command(service, tmp_path / "elsewhere", "export", model, "--copy-to", tmp_path / "sorted")
    assert "6 of them as the service stores them: upright, without date and metadata" in told
    copies = sorted(path.name for path in (tmp_path / "sorted").rglob("*.*"))
    assert copies == ["001.jpg", "002.jpg", "003.jpg", "004.jpg", "005.jpg", "été 000.jpg"]
    for path in (tmp_path / "sorted").rglob("*.*"):
        with Image.open(path) as stored:
            assert not stored.getexif()

    told = command(service, tmp_path, "export", model, "--copy-to", tmp_path / "sorted", code=1)
    assert "is not empty; name a new folder" in told
    told = command(service, tmp_path, "export", model, "--copy-to", tmp_path / "again", "--stored")
    assert "6 of them as the service stores them" in told


def test_names_too_long_for_a_file_are_cut(service, tmp_path):
    names = [f"{'é' * 200}{letter}.png" for letter in "ab"]
    rows = [{"bytes": encoded(Image.new("L", (8, 8), 9 * n)), "path": name} for n, name in enumerate(names * 3)]
    (tmp_path / "long.parquet").write_bytes(parquet({"image": rows}))
    dataset = re.search(r"ds_\w+", command(service, tmp_path, "upload", tmp_path / "long.parquet"))[0]
    model = re.search(r"mdl_\w+", command(service, tmp_path, "train", dataset, "-k", 2, "--method", "kmeans"))[0]

    command(service, tmp_path, "export", model, "--copy-to", tmp_path / "sorted")

    copies = [path.name for path in (tmp_path / "sorted").rglob("*.png")]
    assert len(copies) == 6
    assert all(len(name.encode()) <= 255 for name in copies)


def test_a_missing_file_is_one_sentence(service, tmp_path):
    for arguments in (("upload", tmp_path / "nothing.zip"), ("assign", "mdl_x", tmp_path / "nothing.png")):
        told = command(service, tmp_path, *arguments, code=1)
        assert told.strip() == f"there is no file {arguments[-1]}"


def test_columns_are_named_on_the_command_line(service, tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3))
    (tmp_path / "t.parquet").write_bytes(parquet({"id": range(12), "a": x[:, 0], "b": x[:, 1], "kind": ["x", "y"] * 6}))

    told = command(service, tmp_path, "upload", tmp_path / "t.parquet", "--columns", "b", "--target", "kind")

    dataset = service.client.dataset(re.search(r"ds_\w+", told)[0])
    assert (dataset["n_features"], dataset["target_names"]) == (1, ["x", "y"])
    assert "`id` was left out: it numbers the rows." in told


def test_duckdb_and_pandas_read_results_over_http_ranges(service, tmp_path):
    (tmp_path / "x.npz").write_bytes(npz(30))
    dataset = re.search(r"ds_\w+", command(service, tmp_path, "upload", tmp_path / "x.npz"))[0]
    model_id = re.search(r"mdl_\w+", command(service, tmp_path, "train", dataset, "-k", 3, "--method", "kmeans"))[0]
    model = service.client.model(model_id)
    set_id = model["assignment_set_id"]
    assignments = f"{address(service)}/v1/assignment-sets/{set_id}/assignments?format=parquet"
    history = f"{address(service)}/v1/models/{model_id}/artifacts/history.parquet"
    expected = {item["index"]: item["cluster"] for item in service.client.assignments(set_id)}
    web = Web(block_size=256)

    connection = duckdb.connect()
    connection.register_filesystem(web)
    rows = connection.execute(
        f"SELECT cluster, count(*) FROM read_parquet('{assignments}') GROUP BY cluster"
    ).fetchall()
    n_epochs = connection.execute(f"SELECT count(*) FROM read_parquet('{history}')").fetchall()
    with web.open(assignments) as file:
        frame = pandas.read_parquet(file)

    assert dict(rows) == pandas.Series(expected).value_counts().to_dict()
    assert frame["cluster"].tolist() == [expected[index] for index in range(30)]
    with web.open(history) as file:
        assert n_epochs == [(len(pandas.read_parquet(file)),)]
    with fsspec.filesystem("http", block_size=64).open(assignments) as file:  # one range, not the file
        file.seek(-4, io.SEEK_END)
        assert file.read() == b"PAR1"
        assert file.cache.total_requested_bytes < file.size
