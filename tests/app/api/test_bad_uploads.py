"""Files that cannot become a dataset: a 4xx with a stable code at once, and nothing left behind."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.factories import client_of, idx, image_parquet, npy, npz, picture, tarred, zipped


def bomb() -> bytes:
    """A PNG header that promises 40,000 x 40,000 pixels over a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    frames = [Image.new("L", (8, 8), gray) for gray in (0, 200)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def parquet(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped({"a.png": picture()}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def folders(n: int, **extended: str) -> bytes:
    """A tar.gz of empty folders."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for number in range(n):
            info = tarfile.TarInfo(f"folder{number}")
            info.type, info.pax_headers = tarfile.DIRTYPE, extended
            archive.addfile(info)
    return out.getvalue()


def endless_headers() -> bytes:
    """A tar whose every header says that the next one has a long name."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    return (header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 2000


IMAGES = np.zeros((4, 8, 8), np.uint8)
BAD = {
    "empty body": (b"", 422, "empty_body"),
    "text": (b"hello, I am no dataset", 415, "unsupported_format"),
    "text that begins like a BMP": (b"BMW made these cars", 415, "unsupported_format"),
    "sound in WebP's container": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), 415, "unsupported_format"),
    "an image's first bytes": (picture()[:20], 415, "unsupported_format"),
    "a pixel bomb by itself": (bomb(), 422, "too_many_pixels"),
    "an animation": (animation(), 422, "animated_image"),
    "truncated zip": (zipped({"a.png": picture()})[:-30], 422, "broken_archive"),
    "zip of text files": (zipped({"a.txt": b"a", "b.txt": b"b"}), 422, "no_images"),
    "zip of nothing": (zipped({}), 422, "no_images"),
    "traversal names": (
        zipped({"../a.png": picture(), "/b.png": picture(), "C:\\c.png": picture()}),
        422,
        "unsafe_name",
    ),
    "zip bomb": (zipped({f"{n}.png": b"\0" * (30 << 20) for n in range(18)}), 422, "suspicious_compression"),
    "an array packed too well": (
        zipped({"x.npy": npy(np.zeros((40_000, 32, 32), np.uint8))}),
        422,
        "suspicious_compression",
    ),
    "pixel bomb": (zipped({"a.png": bomb()}), 422, "too_many_pixels"),
    "encrypted": (encrypted(), 422, "encrypted"),
    "link": (linked(), 422, "not_a_file"),
    "zip in a zip": (zipped({"inner.zip": zipped({"a.png": picture()})}), 422, "no_images"),
    "tar of text files": (tarred({"a.txt": b"a", "b.txt": b"b"}), 422, "no_images"),
    "tar with traversal names": (tarred({"../a.png": picture()}), 422, "unsafe_name"),
    "truncated tar.gz": (tarred({"a.txt": bytes(9999), "b.png": picture()})[:-30], 422, "broken_archive"),
    "tar bomb": (tarred({f"{n}.png": bytes(30 << 20) for n in range(18)}), 422, "suspicious_compression"),
    "gzip of nothing known": (gzip.compress(b"hello"), 415, "unsupported_format"),
    "broken gzip": (b"\x1f\x8bnothing", 422, "broken_archive"),
    "idx with few bytes": (idx(IMAGES)[:10], 422, "truncated_array"),
    "idx of nothing": (idx(IMAGES[:0]), 422, "wrong_shape"),
    "idx that unpacks too well": (
        gzip.compress(idx(IMAGES[:1])[:4] + struct.pack(">3I", 10**6, 28, 28)),
        422,
        "suspicious_compression",
    ),
    "zipped idx that unpacks too well": (
        zipped({"a-idx3-ubyte.gz": gzip.compress(idx(IMAGES)[:4] + struct.pack(">3I", 10**6, 28, 28))}),
        422,
        "suspicious_compression",
    ),
    "tar of endless extended headers": (endless_headers(), 422, "broken_archive"),
    "tar with a name too long": (tarred({"a" * 5000 + ".png": picture()}), 422, "name_too_long"),
    "idx pair of two lengths": (
        zipped({"a-idx3-ubyte": idx(IMAGES), "b-idx1-ubyte": idx(np.zeros(3))}),
        422,
        "wrong_shape",
    ),
    "parquet of no images": (image_parquet([], []), 422, "no_images"),
    "npz of unknown arrays": (npz(before=IMAGES, after=IMAGES), 422, "unknown_arrays"),
    "truncated npz": (npz(x=IMAGES)[:-40], 422, "broken_archive"),
    "x of five sides": (npz(x=np.zeros((2, 2, 2, 2, 2), np.uint8)), 422, "wrong_shape"),
    "x of two channels": (npz(x=np.zeros((2, 8, 8, 2), np.uint8)), 422, "wrong_shape"),
    "no images": (npz(x=np.zeros((0, 8, 8), np.uint8)), 422, "wrong_shape"),
    "complex images": (npz(x=np.zeros((4, 8, 8), complex)), 422, "unsupported_dtype"),
    "objects": (npy(np.array([[{}], [{}]], dtype=object)), 422, "unsupported_dtype"),
    "y of another length": (npz(x=IMAGES, y=np.zeros(3, int)), 422, "wrong_shape"),
    "y of two columns": (npz(x=IMAGES, y=np.zeros((4, 2))), 422, "wrong_shape"),
    "NaN vectors": (npy(np.array([[1.0, np.nan], [0, 0]])), 422, "not_finite"),
    "infinite vectors in an npz": (npz(x=np.array([[1.0, np.inf], [0, 0]])), 422, "not_finite"),
    "vectors that overflow": (npy(np.array([[1e300, 0], [0, 0]])), 422, "not_finite"),
    "one-sided npy": (npy(np.zeros(5)), 422, "wrong_shape"),
    "truncated npy": (npy(np.zeros((50, 4)))[:-8], 422, "truncated_array"),
    "broken npy header": (b"\x93NUMPY\x01\x00\x76\x00{'descr'", 422, "broken_array"),
    "parquet whose names unpack too well": (
        parquet(vector=[[1.0], [2.0]], name=["x" * (200 << 20), "y" * (100 << 20)]),
        422,
        "suspicious_compression",
    ),
    "truncated parquet": (parquet(vector=[[1.0], [2.0]])[:-5], 422, "broken_archive"),
    "parquet of strings": (parquet(a=["x", "y"]), 422, "wrong_shape"),
    "parquet of ragged vectors": (parquet(vector=[[1.0], [2.0, 3.0]]), 422, "wrong_shape"),
    "parquet with NaN": (parquet(vector=[[1.0], [float("nan")]]), 422, "not_finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_a_problem_and_leaves_nothing(light_client, embedded_settings, name):
    data, status, code = BAD[name]

    response = light_client.post("/v1/datasets", content=data)

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert light_client.get("/v1/datasets").json()["items"] == []
    assert light_client.get("/v1/jobs").json()["items"] == []
    assert [path for path in (embedded_settings.data_dir / "blobs").rglob("*") if path.is_file()] == []


def test_a_form_without_a_file_and_json_are_problems(light_client):
    form = light_client.post("/v1/datasets", files={"other": (None, "no file")})
    json = light_client.post("/v1/datasets", json={"x": 1})

    assert (form.status_code, form.json()["code"]) == (422, "empty_body")
    assert (json.status_code, json.json()["code"]) == (422, "validation_failed")


def test_damage_that_only_decoding_shows_fails_the_job_once_with_its_code(client, work):
    data = bytearray(zipped({"a.png": picture(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8))}, 0))
    data[200] ^= 255  # inside the image data: headers are fine, the archive's checksum is not
    created = client.post("/v1/datasets", content=bytes(data))
    assert created.status_code == 201

    work()

    dataset = client.get(created.headers["location"]).json()
    assert (dataset["state"], dataset["error"]["code"]) == ("failed", "no_images")
    assert client.get(f"/v1/jobs/{dataset['job_id']}").json()["attempt"] == 1


def test_the_extended_headers_of_folders_count_as_unpacked_bytes(light_client, monkeypatch):
    monkeypatch.setattr("app.intake.tars.ARCHIVE_APPLIES_FROM", 1 << 20)

    response = light_client.post("/v1/datasets", content=folders(40, comment="x" * 100_000))

    assert (response.status_code, response.json()["code"]) == (422, "suspicious_compression")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_tar_of_many_folders_is_left_to_the_job(client, work):
    created = client.post("/v1/datasets", content=folders(150))
    assert created.status_code == 201

    work()

    assert client.get(created.headers["location"]).json()["error"]["code"] == "no_images"


def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(embedded_settings):

    settings = embedded_settings.model_copy(update={"max_upload_bytes": 1000})
    with client_of(settings) as client:
        response = client.post("/v1/datasets", content=npz(500))

    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert [path for path in (settings.data_dir / "blobs").rglob("*") if path.is_file()] == []
