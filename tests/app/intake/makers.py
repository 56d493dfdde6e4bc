"""Ingests a file as a job does, without a database, and makers of odd files."""

import io
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from app.intake.notes import FACTS
from app.settings import Settings
from app.store.blobs import connect
from app.store.dataset_files import DatasetReader, read_rejects
from app.store.parquet import ParquetFiles
from app.store.results import IngestResult
from app.store.tables import JobRow, UploadPartRow, UploadRow
from workers import ingest
from workers.work import Reporter, Work


@dataclass
class Ingested:
    """A dataset: what its row says, and its rows."""

    result: IngestResult
    rows: list[dict[str, Any]]
    rejects: dict[str, str]  # name -> reason

    @property
    def codes(self) -> set[str]:
        return {one["code"] for one in self.result.notes}

    @property
    def targets(self) -> list[int | None]:
        return [row["label"] for row in self.rows]

    @property
    def named_targets(self) -> list[str]:
        return [self.result.target_names[target] for target in self.targets]

    def message(self, code: str) -> str:
        return " ".join(one["message"] for one in self.result.notes if one["code"] == code)


def ingested(folder: Path, data: bytes, filename: str = "upload", **config: Any) -> Ingested:
    """Raises what the job would fail with."""
    folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=folder))
    blobs = connect(Settings(data_dir=folder / "data"))
    blobs.put("upload", data)
    scratch = folder / "scratch"
    scratch.mkdir()
    work = Work(
        settings=Settings(data_dir=folder / "data"),
        blobs=blobs,
        job=JobRow(config={"targets": "folders", **config}),
        dataset=None,
        model=None,
        upload=UploadRow(filename=filename, sha256=None),
        upload_parts=[UploadPartRow(key="upload", n_bytes=len(data), number=1)],
        part_prefixes=[],
        max_images=10**9,
        starts={},
        prefix="t/x/ingest/y/f1",
        scratch=scratch,
        report=Reporter(io.StringIO(), Event()),
    )
    result = ingest.run(work)
    assert set(result.facts) <= set(FACTS)  # each is explained in docs/notes.md
    files = ParquetFiles(blobs)
    reader = DatasetReader(files, work.prefix, result.kind, result.shards)
    columns = ["label", "name", "split", "image" if result.kind == "images" else "vector"]
    rejects = read_rejects(files, work.prefix, 0, result.n_rejects) if result.n_rejects else []
    rows = reader.rows(0, result.n_images, columns).to_pylist()
    return Ingested(result, rows, {one["name"]: one["reason"] for one in rejects})


def photo(seed: int = 0, side: int = 16, form: str = "PNG", **how: Any) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), form, **how)


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def parquet(columns: dict[str, Any], **how: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **how)
    return out.getvalue()


def with_zip_field(data: bytes, local_at: int, central_at: int, value: int) -> bytes:
    """A zip with two bytes of every entry's headers changed: in the local and in the central one."""
    changed = bytearray(data)
    for mark, at in ((b"PK\3\4", local_at), (b"PK\1\2", central_at)):
        place = changed.find(mark)
        while place >= 0:
            struct.pack_into("<H", changed, place + at, value)
            place = changed.find(mark, place + 1)
    return bytes(changed)


def stored_zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
