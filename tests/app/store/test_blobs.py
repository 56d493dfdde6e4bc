"""Object storage, on a folder and on a real S3 server."""

import asyncio
import io
import zipfile

import psutil
import pytest

from app.store.blobs import BlobExists, Blobs, prefix
from tests.factories import zipped


def test_what_was_put_is_got_whole_in_ranges_and_as_a_stream(blobs: Blobs):
    data = bytes(range(256)) * 5000
    blobs.put("t/a/one", io.BytesIO(data))

    assert blobs.get("t/a/one") == data
    assert blobs.get_range("t/a/one", 300, 4) == data[300:304]
    assert blobs.size("t/a/one") == len(data)
    assert b"".join(blobs.stream("t/a/one", 10, 1_000_000)) == data[10:1_000_000]


def test_a_key_is_written_once(blobs: Blobs):
    blobs.put("t/a/one", b"first")

    with pytest.raises(BlobExists):
        blobs.put("t/a/one", b"second")

    assert blobs.get("t/a/one") == b"first"


def test_an_asynchronous_stream_arrives_whole_and_a_broken_one_not_at_all(blobs: Blobs):
    async def chunks(fail: bool):
        for number in range(40):
            yield bytes([number]) * 300_000
        if fail:
            raise ConnectionError("the client went away")

    async def send(key: str, fail: bool):
        await blobs.put_stream(key, chunks(fail), 20_000_000)

    asyncio.run(send("t/a/whole", False))
    with pytest.raises(ConnectionError):
        asyncio.run(send("t/a/broken", True))

    assert blobs.size("t/a/whole") == 40 * 300_000
    assert blobs.get_range("t/a/whole", 39 * 300_000 - 1, 2) == bytes([38, 39])
    with pytest.raises(FileNotFoundError):
        blobs.get("t/a/broken")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_stream_of_200_mb_is_written_in_a_fraction_of_its_size(blobs: Blobs):
    rss: list[int] = []

    async def chunks():
        for number in range(800):
            rss.append(psutil.Process().memory_info().rss)
            yield bytes([number % 256]) * (256 << 10)

    async def send():
        await blobs.put_stream("t/a/large", chunks(), 200 << 20)

    asyncio.run(send())

    assert blobs.size("t/a/large") == 200 << 20
    assert max(rss) - rss[0] < 40 << 20


def test_an_object_opens_as_a_seekable_file(blobs: Blobs):
    blobs.put("t/a/archive", zipped({"one.txt": b"1" * 100_000, "two.txt": b"2"}))

    with blobs.open("t/a/archive") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("one.txt") == b"1" * 100_000
        assert archive.namelist() == ["one.txt", "two.txt"]


def test_a_missing_object_is_a_file_not_found(blobs: Blobs):
    for look in (blobs.get, blobs.size, blobs.open):
        with pytest.raises(FileNotFoundError):
            look("t/nothing")


def test_prefixes_are_listed_by_folder_and_deleted_whole(blobs: Blobs):
    for key in ("t/a/train/j1/f1/x", "t/a/train/j1/f2/y/z", "t/a/train/j2/f1/x"):
        blobs.put(key, b"1")

    assert sorted(blobs.folders("t/a/train/")) == ["t/a/train/j1", "t/a/train/j2"]
    assert sorted(blobs.folders("t/a/train/j1/")) == ["t/a/train/j1/f1", "t/a/train/j1/f2"]
    assert blobs.delete_prefix("t/a/train/j1") == 2
    assert list(blobs.keys("t/")) == ["t/a/train/j2/f1/x"]
    assert blobs.folders("t/nobody/") == []


def test_keys_name_tenant_kind_owner_and_fence():
    assert prefix("default", "train", "job_1", 3) == "t/default/train/job_1/f3"
