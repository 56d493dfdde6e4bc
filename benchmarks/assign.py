"""Speed of bulk assignment: jobs over ever larger datasets on two workers, pages and exports of what they leave."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx2
import numpy as np
import psutil
import typer

from app.settings import Settings
from app.store import Database, families
from app.store.blobs import connect
from app.store.migrate import upgrade
from benchmarks import published
from benchmarks.graph import K_VECTORS, N_FEATURES
from benchmarks.inference import SIDE, SPEC, K
from benchmarks.service import free_port
from clusterserve.client import Client
from models.pixels import InputSpec

N_PAGES = 200


def main(
    kind: Annotated[
        str, typer.Option(help="`images` of 28 x 28, or `vectors` of 64 numbers for 1,000 clusters")
    ] = "images",
    sizes: Annotated[str, typer.Option(help="of the datasets, with commas")] = "10000,100000,1000000",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Print, by size: seconds of the job and of its work alone, the bare loop's, pages and exports."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = folder / "model.onnx"
        subprocess.run([sys.executable, "-m", "benchmarks.graph", kind, str(graph)], check=True)
        datasets = _prepare(folder, kind, graph.read_bytes(), [int(size) for size in sizes.split(",")])
        with _service(folder) as (url, api):
            bare = _bare(graph) if kind == "images" else None
            for n, dataset_id in datasets.items():
                found[n] = _measure(folder, url, api, (dataset_id, n), bare)
                print(n, json.dumps(found[n]), flush=True)
    if as_json:
        print(json.dumps(found))


def _measure(
    folder: Path, url: str, api: psutil.Process, dataset: tuple[str, int], bare: float | None
) -> dict[str, Any]:
    dataset_id, n = dataset
    with Client(url) as client:
        started = time.perf_counter()
        job = client.assign_dataset("mdl_bench", dataset_id)
        while job["state"] not in ("succeeded", "failed", "cancelled"):
            job = client.job(job["id"], wait_s=60)
        seconds = time.perf_counter() - started
        if job["state"] != "succeeded":
            raise RuntimeError(f"{job['state']}: {job['error']}")
        work, merge = _seconds_of_work(folder, client, job["id"])
        found: dict[str, Any] = {
            "job_s": round(seconds, 2),
            "work_s": round(work, 2),
            "merge_s": round(merge, 2),
            "us_per_input": round(1e6 * work / n, 2),
            "n_parts": job["n_parts"],
        }
        if bare is not None:
            found["share_of_bare"] = round(n / work / bare, 3)
            found["bare_per_s"] = round(bare)
    return {**found, **_read(url, api, job["assignment_set_id"], n)}


def _seconds_of_work(folder: Path, client: Client, job_id: str) -> tuple[float, float]:
    """From the first runner's first image to the last part's end, and of the merge: start-up is in neither."""
    database = Database(Settings(data_dir=folder).resolved_database_url)
    with database.read() as session:
        ids = [part.id for part in families.children(session, job_id)] or [job_id]
    database.close()
    begins, ends = [], []
    for part in ids:
        at = {e["data"]["phase"]: e["at"] for e in client.follow(part) if e["type"] == "phase"}
        begins.append(datetime.fromisoformat(at["assign"]))
        ends.append(datetime.fromisoformat(at["publish"]))
    merge = 0.0
    if ids != [job_id]:
        events = list(client.follow(job_id))
        merging = next(e["at"] for e in events if e["data"].get("phase") == "merge")
        merge = (datetime.fromisoformat(events[-1]["at"]) - datetime.fromisoformat(merging)).total_seconds()
    return (max(ends) - min(begins)).total_seconds(), merge


def _read(url: str, api: psutil.Process, set_id: str, n: int) -> dict[str, Any]:
    """Pages anywhere in the set, of clusters and by image, and its export as CSV."""
    rng, times = np.random.default_rng(0), []
    with httpx2.Client(base_url=url, timeout=600) as http:
        sizes = {item["cluster"]: item["size"] for item in _clusters(http, set_id)}
        filled = [cluster for cluster, size in sizes.items() if size]
        for _ in range(N_PAGES):
            started = time.perf_counter()
            params = {"cluster": int(rng.choice(filled)), "limit": 50}
            http.get(f"/v1/assignment-sets/{set_id}/assignments", params=params).raise_for_status()
            times.append(time.perf_counter() - started)
        before = most = api.memory_info().rss
        started, n_lines = time.perf_counter(), 0
        with http.stream("GET", f"/v1/assignment-sets/{set_id}/assignments", headers={"Accept": "text/csv"}) as answer:
            for piece in answer.iter_bytes():
                n_lines += piece.count(b"\n")
                most = max(most, api.memory_info().rss)
        if n_lines != n + 1:
            raise RuntimeError(f"the export has {n_lines} lines")
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return {
        "page_ms": [round(float(p50), 1), round(float(p99), 1)],
        "export_s": round(time.perf_counter() - started, 1),
        "export_mb": round((most - before) / 2**20),
        "api_mb": round(most / 2**20),
    }


def _clusters(http: httpx2.Client, set_id: str) -> Iterator[dict[str, Any]]:
    """Every cluster that has rows, found by asking for one row of each."""
    for cluster in range(K_VECTORS):
        answer = http.get(f"/v1/assignment-sets/{set_id}/assignments", params={"cluster": cluster, "limit": 1})
        if answer.status_code == 404:
            return
        yield {"cluster": cluster, "size": len(answer.json()["items"])}


def _prepare(folder: Path, kind: str, graph: bytes, sizes: list[int]) -> dict[int, str]:
    """The model and the datasets, by size."""
    settings = Settings(data_dir=folder)
    database, blobs = Database(settings.resolved_database_url), connect(settings)
    upgrade(database)
    if kind == "images":
        published.model(database, blobs, graph, SPEC, K)
        pictures = published.draw_pictures(10_000, SIDE)
        found = {n: published.images(database, blobs, pictures, n, SIDE) for n in sizes}
    else:
        published.model(database, blobs, graph, InputSpec("vectors", n_features=N_FEATURES), K_VECTORS)
        found = {n: published.vectors(database, blobs, _drawn(n), n, N_FEATURES) for n in sizes}
    database.close()
    return found


def _drawn(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, published.BLOCK):
        size = min(published.BLOCK, n - start)
        yield np.random.default_rng(start).normal(size=(size, N_FEATURES)).astype(np.float32)


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`clusterserve up` on the folder: its address and the API's process."""
    port = free_port()
    command = [sys.executable, "-m", "clusterserve", "up", "--data-dir", str(folder), "--port", str(port)]
    environment = os.environ | {"CLUSTERSERVE_RUNNER_THREADS": "1"}
    up = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url) as client:
            while not client.is_ready():
                time.sleep(0.2)
        children = psutil.Process(up.pid).children()
        yield url, next(child for child in children if "uvicorn" in " ".join(child.cmdline()))
    finally:
        up.terminate()
        up.wait(60)


def _bare(graph: Path) -> float:
    """Images a second of two bare loops at once, a process each."""
    command = [sys.executable, "-m", "benchmarks.bare", str(graph), "decode", "8"]
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return sum(float(loop.communicate()[0]) for loop in loops)
