"""Coverage-guided fuzzing of whatever reads callers' bytes: `python -m tests.fuzz TARGET SECONDS FOLDER`.

A caller's bytes may be refused, by an error that says so, or read. Anything else ends the run, and the bytes that led
there are in the folder: they go to tests/found, which tests/app/api/test_found.py sends. `FOLDER/TARGET` keeps what was
learnt for the next run.
"""

import asyncio
import contextlib
import io
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import IO

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["app", "models.pixels", "zipfile", "tarfile", "python_multipart"]):
    import tarfile
    import zipfile

    import python_multipart.multipart
    from fastapi import Request

    from app.api import bodies
    from app.errors import AppError
    from app.intake import ImageEntry, IntakeLimits, check, columns, open_source
    from app.intake.batches import read_batch
    from app.intake.footers import Chunk, RowGroup
    from models.pixels import BadImage
    from workers.ingest import store_image

from tests import hostile
from tests.factories import idx, image_parquet, npy, npz, picture, tarred, zipped

INSTRUMENTED = (tarfile, zipfile, python_multipart.multipart)
MAX_BYTES, MAX_ENTRIES = 1 << 16, 200


def ingest(data: bytes) -> None:
    """As an uploaded file: the API's look at its headers, then the runner's at all of it."""
    with contextlib.suppress(AppError):
        check(io.BytesIO(data), IntakeLimits())
    with contextlib.suppress(AppError):
        source = open_source(io.BytesIO(data), IntakeLimits())
        if source.kind == "vectors":
            for _ in source.blocks():
                pass
            return
        for entry in islice(source.entries(), MAX_ENTRIES):
            if isinstance(entry, ImageEntry):
                with contextlib.suppress(BadImage):
                    store_image(entry)


def batch(data: bytes) -> None:
    """As the body of `assign`: arrays or an Arrow stream."""
    with contextlib.suppress(AppError):
        read_batch(data, IntakeLimits(), max_inputs=1000, max_bytes=1 << 24)


def multipart(data: bytes) -> None:
    """As a form, in chunks of as many bytes as the first one says."""
    size, body = (data[0] or 1, data[1:]) if data else (1, b"")
    chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]

    async def receive() -> dict:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def read() -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=edge")]
        async for _ in bodies.file_parts(Request({"type": "http", "headers": headers}, receive), 1 << 20):
            pass

    with contextlib.suppress(AppError):
        asyncio.run(read())


def _plain_footer(file: IO[bytes]) -> list[RowGroup]:
    """In place of a process for each file: one row group of two values a row."""
    file.seek(0)
    metadata = pq.ParquetFile(file).metadata
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    return [RowGroup(metadata.num_rows, [Chunk(path, 2 * metadata.num_rows, 1000, False) for path in paths])]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "archives": ingest,
    "arrays": ingest,
    "idx": ingest,
    "parquet": ingest,
    "pictures": ingest,
    "batches": batch,
    "multipart": multipart,
}


def seeds(target: str) -> list[bytes]:
    """What a run begins with: sound files and hostile ones."""
    form = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n%s\r\n--edge--\r\n'
    known = {
        "archives": [zipped({"a/1.png": picture(), "2.jpg": picture(form="JPEG")}), tarred({"1.png": picture()})],
        "arrays": [npz(4), npy(hostile.ROUGH.astype("float32")[0])],
        "idx": [idx(hostile.ROUGH[..., 0][None])],
        "parquet": [image_parquet([picture(), picture(form="GIF")], [0, 1])],
        "pictures": list(hostile.images().values()),
        "batches": [npz(4), npy(hostile.ROUGH), _arrow()],
        "multipart": [b"\x10" + form % picture(), b"\xff" + (form % b"x") * 2],
    }
    words = {"archives": ("zip", "tar", "gzip"), "arrays": ("npz", "npy"), "idx": ("idx",), "parquet": ("parquet",)}
    more = [data for name, data in hostile.archives().items() if name.lower().startswith(words.get(target, ("-",)))]
    return [data for data in known[target] + more if len(data) <= MAX_BYTES]


def _arrow() -> bytes:
    out = io.BytesIO()
    table = pa.table({"image": pa.array([picture(), picture()], pa.binary()), "name": ["a", "b"]})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def main(target: str, seconds: str, folder: str) -> None:
    """Fuzz one target for so long."""
    columns.read_footer = _plain_footer
    corpus = Path(folder) / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number:03d}").write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=3000"]
    options += [f"-artifact_prefix={folder}/{target}-", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
