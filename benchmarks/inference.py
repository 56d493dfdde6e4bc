"""Speed of online assignment beside the bare loop of decode and ONNX Runtime, each pinned to one core.

The model is `depict`'s network at 28 x 28 with ten clusters, its weights as drawn: speed does not depend on them. The
server and the bare loop have the first core, the clients the second; rounds are interleaved and medians printed.
"""

import base64
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks import load, service
from benchmarks.published import draw_pictures
from models.pixels import InputSpec

K, SIDE = 10, 28
SPEC = InputSpec("images", side=SIDE, channels=1)
N_PICTURES = 12_288  # in turn, and more than the service remembers answers: none comes from its memory
FORM, ARRAY = 32, 256


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="of each round")] = 5,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    overload_seconds: Annotated[float, typer.Option(min=0, help="of ten times the load; 0: none")] = 0,
    litserve: Annotated[
        Path | None, typer.Option(help="an interpreter that has litserve (see benchmarks/rivals.py)")
    ] = None,
    bentoml: Annotated[Path | None, typer.Option(help="one that has bentoml")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on the last line")] = False,
) -> None:
    """Print images a second and shares of the bare loop, latency over decode and forward at half load."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        subprocess.run([sys.executable, "-m", "benchmarks.graph", "images", str(graph)], check=True)
        pictures = draw_pictures(N_PICTURES, SIDE)
        with service.of_models(Path(folder), graph.read_bytes(), SPEC, K) as running:
            os.sched_setaffinity(0, {1})
            port, process, path = running.port, running.process, running.path("bench")
            found = measure(port, path, graph, pictures, seconds, rounds)
            _show(found)
            for name, python in (("litserve", litserve), ("bentoml", bentoml)):
                if python is not None:
                    with _rival(name, python, graph) as rival_port:
                        found[name] = _against(port, path, rival_port, name, pictures, seconds, rounds)
                    _show({name: found[name]})
            if overload_seconds:
                found["overload"] = _overload(port, path, pictures, overload_seconds, process)
                _show({"overload": found["overload"]})
    if as_json:
        print(json.dumps(found))


def _show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        print(f"{name:>28}  {value}", flush=True)


def measure(
    port: int, path: str, graph: Path, pictures: Sequence[bytes], seconds: float, rounds: int
) -> dict[str, Any]:
    """Figures by name; images a second are medians over rounds, shares those of the same round's bare loop."""
    single = [load.prepared(port, path, data, "image/png") for data in pictures]
    forms = [_form(port, path, pictures[at : at + FORM]) for at in range(0, len(pictures), FORM)]
    arrays = [_array(port, path, at) for at in range(16)]
    kinds = {"form of 32": (forms, 4, FORM), "npz of 256": (arrays, 3, ARRAY), "single": (single, 16, 1)}
    load.closed(port, single, clients=4, seconds=2)
    bare: dict[str, list[float]] = {"decode": [], "array": []}
    served: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for kind in bare:
            bare[kind].append(_bare(graph, kind, seconds))
        for name, (requests, clients, n_images) in kinds.items():
            found = load.closed(port, requests, clients=clients, seconds=seconds)
            if set(found.statuses) != {200}:
                raise RuntimeError(f"{name}: {dict(found.statuses)}")
            served[name].append(found.per_s * n_images)
    against = {"form of 32": "decode", "npz of 256": "array", "single": "decode"}
    figures: dict[str, Any] = {f"bare {kind}, images/s": round(statistics.median(of)) for kind, of in bare.items()}
    for name, of in served.items():
        shares = [ours / theirs for ours, theirs in zip(of, bare[against[name]], strict=True)]
        figures[f"{name}, images/s"] = round(statistics.median(of))
        figures[f"{name}, share of bare"] = round(statistics.median(shares), 3)
    alone = _bare(graph, "one", seconds)
    half = load.open_loop(port, single, per_s=statistics.median(served["single"]) / 2, seconds=seconds, clients=32)
    figures["decode + forward of one, ms"] = round(1000 / alone, 3)
    figures["overhead at half load, ms"] = {f"p{p}": round(half.ms(p) - 1000 / alone, 2) for p in (50, 99)}
    return figures


def _against(
    port: int, path: str, rival_port: int, name: str, pictures: Sequence[bytes], seconds: float, rounds: int
) -> dict[str, Any]:
    """Single pictures at 1, 8 and 64 clients, in turn: ours over the rival's, medians.

    Throughput and `p99, full` where each client sends when it is answered; `p99` at equal load, .8 of what the slower
    of the two can do.
    """
    ours = [load.prepared(port, path, data, "image/png") for data in pictures]
    theirs = []
    for data in pictures:
        picture = base64.b64encode(data).decode()
        body = {"image": picture} if name == "litserve" else {"images": [picture]}
        rival_path = "/predict" if name == "litserve" else "/assign"
        theirs.append(load.prepared(rival_port, rival_path, json.dumps(body).encode(), "application/json"))
    load.closed(rival_port, theirs, clients=8, seconds=2)
    found: dict[str, Any] = {}
    for clients in (1, 8, 64):
        ratios, per_s = [], []
        for _ in range(rounds):
            mine = load.closed(port, ours, clients=clients, seconds=seconds)
            its = load.closed(rival_port, theirs, clients=clients, seconds=seconds)
            equal = 0.8 * min(mine.per_s, its.per_s)
            my_times = load.open_loop(port, ours, per_s=equal, seconds=seconds, clients=clients)
            its_times = load.open_loop(rival_port, theirs, per_s=equal, seconds=seconds, clients=clients)
            times = (my_times.ms(99) / its_times.ms(99), mine.ms(99) / its.ms(99))
            ratios.append((mine.per_s / its.per_s, *times))
            per_s.append((mine.per_s, its.per_s))
        throughput, p99, p99_full = (round(float(ratio), 2) for ratio in np.median(ratios, axis=0))
        found[f"{clients} clients"] = {
            "throughput": throughput,
            "p99": p99,
            "p99, full": p99_full,
            "per_s": [round(float(value)) for value in np.median(per_s, axis=0)],
        }
    return found


@contextlib.contextmanager
def _rival(name: str, python: Path, graph: Path) -> Iterator[int]:
    """Another server on the first core, in turn with ours; its port."""
    port = service.free_port()
    command = [str(python), "-m", "benchmarks.rivals", name, str(graph), str(port)]
    null = subprocess.DEVNULL
    rival = subprocess.Popen(command, preexec_fn=service.first_core, start_new_session=True, stdout=null, stderr=null)
    try:
        service.wait_for(port)
        yield port
    finally:
        for child in psutil.Process(rival.pid).children(recursive=True):  # in sessions of their own
            child.kill()
        rival.kill()
        rival.wait()


def _overload(
    port: int, path: str, pictures: Sequence[bytes], seconds: float, process: psutil.Process
) -> dict[str, Any]:
    """Ten times as many forms a second as can be answered, then whether all is as before."""
    path += "?embedding=true"  # such answers are not remembered, so that every image costs the model
    forms = [_form(port, path, pictures[at : at + FORM]) for at in range(0, len(pictures), FORM)]
    most = load.closed(port, forms, clients=4, seconds=5).per_s
    before = process.memory_info().rss
    found = load.open_loop(port, forms, per_s=10 * most, seconds=seconds, clients=512)
    time.sleep(1)
    after = load.closed(port, forms, clients=4, seconds=5)
    return {
        "times the load": round(sum(found.statuses.values()) / found.seconds / most, 1),
        "statuses": dict(found.statuses),
        "goodput, share": round(found.per_s / most, 3),
        "a second later, share": round(after.per_s / most, 3),
        "memory, MB": [round(before / 2**20), round(process.memory_info().rss / 2**20)],
    }


def _form(port: int, path: str, pictures: Sequence[bytes]) -> bytes:
    head = (
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    body = b"".join(head % number + data + b"\r\n" for number, data in enumerate(pictures)) + b"--edge--\r\n"
    return load.prepared(port, path, body, "multipart/form-data; boundary=edge")


def _array(port: int, path: str, seed: int) -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.random.default_rng(seed).integers(0, 255, (ARRAY, SIDE, SIDE), np.uint8))
    return load.prepared(port, path, out.getvalue(), "application/x-npz")


def _bare(graph: Path, kind: str, seconds: float) -> float:
    """Images a second of the loop without a service, in a process of its own on the server's core."""
    command = [sys.executable, "-m", "benchmarks.bare", str(graph), kind, str(seconds)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=service.first_core)
    return float(out.stdout)
