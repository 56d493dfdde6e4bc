"""The results table: methods x data sets x seeds, each run in a process of its own, as `docs/results.md`.

Every run is one line of a JSON Lines file; what is there already is
not run again. Starts that methods share are kept beside it, with the seconds they took.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from models import registry

Result = dict[str, Any]
STARTS = Path("benchmarks/.starts")
RESULTS, PAGE = Path("benchmarks/results.jsonl"), Path("docs/results.md")
TITLES = {
    "mnist": "MNIST, 70,000 digits of 28 x 28",
    "usps": "USPS, 9,298 digits of 16 x 16",
    "fashion_mnist": "Fashion-MNIST, 70,000 pictures of 28 x 28",
    "coil20": "COIL-20, 1,440 pictures of 128 x 128",
    "orl32": "ORL, 400 faces of 32 x 32",
}
# ACC as the papers give it; where it is of another set than ours, the note says which.
PUBLISHED = {
    ("depict", "mnist"): ".965",
    ("depict", "usps"): ".964 (a balanced set of 11,000)",
    ("dcae", "mnist"): ".921 (part not said)",
    ("adaptive-gmm", "mnist"): ".987",
    ("adaptive-gmm", "usps"): ".985 (a balanced set of 11,000)",
    ("adaptive-gmm", "fashion_mnist"): ".635",
    ("adaptive-gmm", "coil20"): ".946",
    ("dual-autoencoder", "mnist"): ".978",
    ("dual-autoencoder", "usps"): ".869",
    ("dual-autoencoder", "fashion_mnist"): ".662",
    ("precise-feature", "mnist"): ".958 (scored on the test part)",
    ("precise-feature", "fashion_mnist"): ".721 (scored on the test part)",
}
HEAD = """# Results

Written by `python -m benchmarks quality --suite`, which measured every figure. ACC is the share of images right under
the best map of clusters to classes, over all images at once; no fit sees a class. A cell is the median over seeds, with
the lowest and the highest. *Start* is the neighbour graph's partition that a `fast` run goes on from; **below** marks a
median that ends more than .003 under it: such a run's start is the better answer. Seconds are from stored pixels to the
fitted model, the start included. *Published* is the figure of the method's own paper, not ours.
"""


def run(data: Path, datasets: list[str], methods: list[str], seeds: list[int]) -> None:
    """Run what is missing, one after the other, print each line as it comes, and write the table."""
    done = {_key(result) for result in read(RESULTS)}
    for dataset in datasets:
        for seed in seeds:
            for method in methods:
                if (method, registry.get(method).default_profile, dataset, seed) in done:
                    continue
                found = _measure(data / f"{dataset}.npz", method, seed, STARTS)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({**found, "dataset": dataset}) + "\n")
                PAGE.write_text(render(read(RESULTS)))
                print(json.dumps({name: value for name, value in found.items() if name != "curve"}), flush=True)


def read(results: Path) -> list[Result]:
    """The runs of a results file."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def render(results: Iterable[Result]) -> str:
    """The runs as Markdown: one table for each data set, methods by their median."""
    parts = [HEAD]
    by_set: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for result in results:
        by_set.setdefault(result["dataset"], {}).setdefault((result["method"], result["profile"]), []).append(result)
    for dataset, cells in by_set.items():
        parts.append(f"\n## {TITLES.get(dataset, dataset)}\n")
        parts.append("| method | profile | ACC | NMI | start's ACC | seconds | peak GB | seeds | commit | published |")
        parts.append("|---|---|---|---|---|---|---|---|---|---|")
        ordered = sorted(cells.items(), key=lambda cell: -statistics.median(one["acc"] for one in cell[1]))
        parts += [_line(dataset, method, profile, runs) for (method, profile), runs in ordered]
    return "\n".join(parts) + "\n"


def _line(dataset: str, method: str, profile: str, runs: list[Result]) -> str:
    starts = [one["start_acc"] for one in runs if one.get("start_acc") is not None]
    start = _range(starts) if starts else "–"
    acc = statistics.median(one["acc"] for one in runs)
    mark = " **below**" if starts and acc < statistics.median(starts) - 0.003 else ""
    seconds = round(statistics.median(one["seconds"] for one in runs))
    peak = max(one["peak_mb"] for one in runs) / 1000
    commits = ", ".join(sorted({one["commit"] for one in runs}))
    cells = (
        f"`{method}`", profile, _range([one["acc"] for one in runs]) + mark, _range([one["nmi"] for one in runs]),
        start, str(seconds), f"{peak:.1f}", str(len(runs)), commits, PUBLISHED.get((method, dataset), "–"),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _range(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}".lstrip("0")
    median, low, high = (f"{v:.4f}".lstrip("0") for v in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low}–{high})"


def _key(result: Result) -> tuple[Any, ...]:
    return (result["method"], result["profile"], result["dataset"], result["seed"])


def _measure(data: Path, method: str, seed: int, starts: Path) -> Result:
    """One run as a process of its own, with the largest memory that it and its children had together."""
    command = [sys.executable, "-m", "benchmarks", "quality", "--data", str(data), "--method", method,
               "--seed", str(seed), "--starts", str(starts), "--json"]  # fmt: skip
    commit = _commit()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | PATIENT)
    peak = _Peak(process.pid)
    try:
        out, _ = process.communicate()
    finally:
        peak_mb = peak.stop()
    if process.returncode:
        raise RuntimeError(f"{method} on {data.name} with seed {seed} failed")
    return {**json.loads(out.splitlines()[-1]), "peak_mb": peak_mb, "commit": commit}


def _commit() -> str:
    """The commit that is measured, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


# Threads that wait asleep: two of them on two cores must not take turns at burning.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


class _Peak:
    """Watches the memory of a process and its children, shared pages counted once."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._is_over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """The largest sum seen, in MB."""
        self._is_over.set()
        self._thread.join()
        return round(self._peak / 2**20)

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            total = 0
            try:
                process = psutil.Process(self._pid)
                for one in (process, *process.children(recursive=True)):
                    info = one.memory_full_info()
                    total += getattr(info, "pss", info.rss)
            except psutil.Error:
                continue  # one of them has just ended
            self._peak = max(self._peak, total)
