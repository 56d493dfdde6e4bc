"""Half the load for long while models come and go: errors, and whether memory grows.

Requests go around a set of models of which the service can hold half, so that it loads one every few seconds; all the
while the one asked for longest ago is deleted and another published.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from httpx2 import Client

from benchmarks import load, published, service
from benchmarks.inference import SIDE, SPEC, K
from benchmarks.service import Running

N_MODELS, N_HELD, N_PICTURES = 6, 3, 2_048
TURN_S = 2.0  # how long requests go to one model


def main(
    seconds: Annotated[float, typer.Option(min=10)] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Print statuses, models loaded and deleted, memory in time, and its slope over the second half."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        subprocess.run([sys.executable, "-m", "benchmarks.graph", "images", str(graph)], check=True)
        names = tuple(f"m{n}" for n in range(N_MODELS))
        cache_bytes = int((N_HELD + 0.5) * graph.stat().st_size)
        with service.of_models(
            Path(folder), graph.read_bytes(), SPEC, K, names, model_cache_bytes=cache_bytes
        ) as running:
            os.sched_setaffinity(0, {1})
            found = measure(running, graph.read_bytes(), list(names), seconds)
    for name, value in found.items():
        print(f"{name:>28}  {value}")
    if as_json:
        print(json.dumps(found))


def measure(running: Running, graph: bytes, names: list[str], seconds: float) -> dict[str, Any]:
    """Figures by name."""
    pictures = published.draw_pictures(N_PICTURES, SIDE)
    most = load.closed(running.port, _requests(running, names[0], pictures), clients=16, seconds=5).per_s
    statuses: Counter[int] = Counter()
    times: list[float] = []
    memory: list[tuple[float, float]] = []
    elapsed = 0.0
    for turn in itertools.count():
        if elapsed >= seconds:
            break
        changing = threading.Thread(target=_change, args=(running, graph, names, turn))
        changing.start()
        asked = _requests(running, names[turn % len(names)], pictures)
        found = load.open_loop(running.port, asked, per_s=most / 2, seconds=TURN_S, clients=32)
        changing.join()
        statuses.update(found.statuses)
        times += found.times
        elapsed += found.seconds
        memory.append((elapsed, running.memory_mb))
    seconds_in, mb = np.array(memory[len(memory) // 2 :]).T
    slope, begin = np.polyfit(seconds_in / 60, mb, 1)
    return {
        "requests a second": round(most / 2),
        "statuses": dict(statuses),
        "models deleted": turn,
        "p50 and p99, ms": [round(float(np.percentile(times, p)) * 1000, 2) for p in (50, 99)],
        "memory by tenths, MB": [mb for _, mb in memory[:: max(1, len(memory) // 10)]],
        "slope of the second half, MB/min": round(float(slope), 3),
        "its noise, MB": round(float(np.std(mb - slope * seconds_in / 60 - begin)), 2),
    }


def _requests(running: Running, name: str, pictures: list[bytes]) -> list[bytes]:
    return [load.prepared(running.port, running.path(name), data, "image/png") for data in pictures]


def _change(running: Running, graph: bytes, names: list[str], turn: int) -> None:
    """Delete the model whose turn was last, and publish another in its place."""
    at = (turn - 1) % len(names)
    with Client(base_url=f"http://127.0.0.1:{running.port}") as client:
        client.delete(f"/v1/models/mdl_{names[at]}").raise_for_status()
    names[at] = f"n{turn}"
    published.model(running.database, running.blobs, graph, SPEC, K, names[at])
