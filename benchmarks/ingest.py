"""Speed of ingest: the job over HTTP against a bare loop that decodes, encodes and writes the same images."""

import io
import json
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from PIL import Image

from clusterserve.client import Client, Json


def main(
    data: Annotated[Path, typer.Option(help=".npz with `x`: images")],
    url: Annotated[str, typer.Option(help="a running service")] = "http://127.0.0.1:8000",
    images: Annotated[int, typer.Option(help="how many of them also go as PNG files in a zip")] = 10_000,
    rounds: int = 3,
) -> None:
    """Print seconds of the bare loop, of the ingest phase and end to end, interleaved, as medians."""
    with tempfile.TemporaryDirectory() as folder, np.load(data) as archive:
        x = archive["x"]
        packed = Path(folder) / "images.zip"
        _zip(x[:images], packed)
        for name, file, bare in (("npz", data, _bare_npz), ("zip", packed, _bare_zip)):
            print(json.dumps({"upload": name, **_compare(Client(url), file, bare, Path(folder), rounds)}))


def _compare(client: Client, file: Path, bare: Callable[[Path, Path], None], folder: Path, rounds: int) -> Json:
    times: dict[str, list[float]] = {"bare_s": [], "phase_s": [], "end_to_end_s": []}
    for _ in range(rounds):
        started = time.perf_counter()
        bare(file, folder / "bare.parquet")
        times["bare_s"].append(time.perf_counter() - started)
        started = time.perf_counter()
        job = client.job(client.upload(file)["job_id"], wait_s=60)
        times["end_to_end_s"].append(time.perf_counter() - started)
        if job["state"] != "succeeded":
            raise RuntimeError(f"ingest {job['state']}: {job['error']}")
        times["phase_s"].append(_decode_seconds(client, job["id"]))
    found = {name: round(statistics.median(values), 2) for name, values in times.items()}
    return {**found, "phase_to_bare": round(found["phase_s"] / found["bare_s"], 2)}


def _decode_seconds(client: Client, job_id: str) -> float:
    """Seconds between the events that begin the phases `decode` and `publish`."""
    at = {e["data"]["phase"]: datetime.fromisoformat(e["at"]) for e in client.follow(job_id) if e["type"] == "phase"}
    return (at["publish"] - at["decode"]).total_seconds()


def _bare_npz(file: Path, out: Path) -> None:
    """Every image of the array encoded as PNG, all written as one Parquet file."""
    with np.load(file) as archive:
        encoded = []
        for image in archive["x"]:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG", compress_level=1)
            encoded.append(buffer.getvalue())
    pq.write_table(pa.table({"image": encoded}), out)


def _bare_zip(file: Path, out: Path) -> None:
    """Every file of the archive decoded (to know it is an image), its bytes written as one Parquet file."""
    kept = []
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            Image.open(io.BytesIO(data)).load()
            kept.append(data)
    pq.write_table(pa.table({"image": kept}), out)


def _zip(x: np.ndarray, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for index, image in enumerate(x):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(f"{index:05d}.png", buffer.getvalue())
