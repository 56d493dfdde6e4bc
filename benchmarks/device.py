"""`python -m benchmarks.device --data FOLDER`: what the library does with a GPU, in a few minutes, most telling first.

a. `depict` `fast` on MNIST from pixels to assignments. b. The graph start alone, also on a million images. c. Steps a
second of every stage (`benchmarks.stages`), against a loop written by hand (`benchmarks.loops`).

Each line is one JSON object, printed as soon as it is known. This module needs the library and what the library needs,
nothing of the service: a machine with a GPU may have no more.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import stages
from benchmarks.hardware import choose_device, describe, wait_for
from models import registry
from models.base import Run, StepState
from models.pixels import InputSpec
from models.start.graph import graph_start
from models.worth import metrics

N_LARGE, N_OF_STAGES = 1_000_000, 20_000
LARGEST_SHIFT = 2  # pixels, of the copies that make up the large set
BYTES_A_ROW = 32_000  # of a start: stored pixels, three views in float32, and copies of two of them
GROWS_BY = 1.3  # a start's time against the number of its images, at most
SMALL = {
    "n_neighbors": 5,
    "n_starts": 1,
    "n_init": 1,
    "n_hold_steps": 4,
    "n_epochs": 1,
    "n_keep_steps": 4,
    "batch_size": 30,
}


class Lines:
    """Tells each line once it is known, to standard output and to a file, while there is time."""

    def __init__(self, file: Path | None, minutes: float, is_continued: bool) -> None:
        self._file, self._deadline = file, time.monotonic() + 60 * minutes
        if file is not None and not is_continued:
            file.write_text("")

    @property
    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self._deadline - time.monotonic()

    def tell(self, line: dict[str, Any]) -> None:
        """Print a line and append it to the file."""
        text = json.dumps(line)
        print(text, flush=True)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(text + "\n")

    def attempt(self, name: str, measure: Callable[[], dict[str, Any]], expected_s: float = 0.0) -> dict[str, Any]:
        """Measure and tell one line, or why there is none; an error ends the line, not the run."""
        line: dict[str, Any]
        if expected_s >= self.left_s:
            line = {"line": name, "skipped": f"about {expected_s:.0f} s needed, {max(0, self.left_s):.0f} s left"}
        else:
            begun = time.perf_counter()
            try:
                line = {"line": name, **measure()}
            except Exception as error:
                line = {"line": name, "error": f"{type(error).__name__}: {error}"[:500]}
            line["took_s"] = round(time.perf_counter() - begun, 2)
        self.tell(line)
        return line


class Phases:
    """Seconds of each phase of a fit, from its reports; the accuracy of its start.

    A report comes at the end of a step, so the time before it belongs to its phase. `summarise` alone is reported as it
    begins: the time before it is called `end`.
    """

    def __init__(self, targets: NDArray[Any]) -> None:
        self._targets, self._at = targets, time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.start_acc: float | None = None

    def __call__(self, state: StepState) -> None:
        """See `models.base.OnStep`."""
        self.mark("end" if state.phase == "summarise" else state.phase)
        if self.start_acc is None and state.is_epoch and state.assignments is not None:
            self.start_acc = metrics.acc(self._targets, state.assignments)
            self._at = time.perf_counter()  # scoring is no part of a fit

    def mark(self, phase: str) -> None:
        """Give the time since the last mark to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._at
        self._at = now


class Bench:
    """The data, the device, and how much of everything."""

    def __init__(self, folder: Path, device: str, is_small: bool) -> None:
        with np.load(folder / "mnist.npz", allow_pickle=False) as archive:
            self.x, self.y = np.ascontiguousarray(archive["x"][:, None]), archive["y"]
        self.device, self.is_small = device, is_small
        self.n_clusters = len(np.unique(self.y))
        self.spec = InputSpec("images", side=self.x.shape[-1], channels=1)
        small = SMALL if is_small else {}
        self.config: Any = registry.get("depict").make_config("fast", {"n_clusters": self.n_clusters, **small})

    def fit(self) -> dict[str, Any]:
        """`depict` `fast`: seconds by phase, accuracy of start and end, peak memory of the device in MB."""
        self._forget_peak()
        phases = Phases(self.y)
        begun = time.perf_counter()
        model = registry.get("depict").load()(self.config, self.spec)
        model.fit(self.x, Run(device=self.device, on_step=phases))
        wait_for(self.device)
        phases.mark("summarise")
        with model.on(self.device):
            clusters = model.predict(self.x)
        phases.mark("assign")
        total = time.perf_counter() - begun
        return {
            "images": len(self.x),
            "seconds": {name: round(value, 2) for name, value in phases.seconds.items()},
            "total_s": round(total, 2),
            "start_acc": phases.start_acc,
            "acc": metrics.acc(self.y, clusters),
            "peak_device_mb": self._peak_mb(),
        }

    def start(self, n: int) -> dict[str, Any]:
        """The graph start of n images, copies among them shifted at random."""
        self._forget_peak()
        x, y = (self.x, self.y) if n == len(self.x) else shifted_copies(self.x, self.y, n)
        begun = time.perf_counter()
        start = graph_start(x, self.spec, self.config, Run(device=self.device), (0.0, 1.0))
        seconds = time.perf_counter() - begun
        acc = metrics.acc(y, start.labels)
        return {"images": n, "seconds": round(seconds, 2), "acc": acc, "peak_device_mb": self._peak_mb()}

    def large_start(self) -> dict[str, Any]:
        """The graph start of a million images, or of as many as memory allows."""
        n = self.count_large()
        if n <= len(self.x):
            return {"skipped": f"there is no memory for more than {n} images"}
        return self.start(n)

    def count_large(self) -> int:
        """How many images a start has memory for, at most a million."""
        if self.is_small:
            return 2 * len(self.x)
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if self.device.startswith("cuda"):
            free = min(free, torch.cuda.mem_get_info(self.device)[0])
        return min(N_LARGE, free // BYTES_A_ROW)

    def stage(self, case: stages.Case) -> dict[str, Any]:
        """One stage, by the trainer and by hand."""
        n, batch_size = (20, 10) if self.is_small else (N_OF_STAGES, None)
        return stages.measure(case, self.x[:n], self.n_clusters, self.device, batch_size)

    def is_usable(self) -> bool:
        """Whether the device still computes: an error may leave CUDA, or torch's generator there, unusable."""
        try:
            float(torch.rand(8, device=self.device).sum())
        except RuntimeError:
            return False
        return True

    def _forget_peak(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak_mb(self) -> int | None:
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20) if self.device.startswith("cuda") else None


def shifted_copies(x: NDArray[np.uint8], y: NDArray[Any], n: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The images and then copies of them, each shifted by up to two pixels, until there are n: (N, C, S, S), (N,)."""
    rng, side, margin = np.random.default_rng(0), x.shape[-1], LARGEST_SHIFT
    found = np.empty((n, *x.shape[1:]), np.uint8)
    padded = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    for at in range(0, n, len(x)):
        part = found[at : at + len(x)]
        down, right = rng.integers(0, 2 * margin + 1, (2, len(part))) if at else np.full((2, len(part)), margin)
        for top, left in np.unique(np.stack([down, right], axis=1), axis=0):
            rows = (down == top) & (right == left)
            part[rows] = padded[: len(part)][rows, :, top : top + side, left : left + side]
    return found, np.resize(y, n)


def main() -> None:
    """Tell the device, then a, b and c, as far as the time allows."""
    options = _options()
    device = choose_device(options.device)
    lines = Lines(options.json, options.minutes, is_continued=options.first is not None)
    bench = Bench(options.data, device, options.small)
    cases = {case.name: case for case in stages.CASES}
    if options.first is None:
        lines.tell({"line": "device", **describe(device)})
        _tell_whole(lines, bench)
    names = list(cases)
    at = names.index(options.first) if options.first else 0
    expected_s = 0.0
    for number, name in enumerate(names[at:], at + 1):
        line = lines.attempt(f"c {name}", lambda case=cases[name]: bench.stage(case), expected_s)  # type: ignore[misc]
        expected_s = line.get("took_s", expected_s)
        if number < len(names) and not bench.is_usable():
            _go_on_in_another_process(options, names[number], lines.left_s)
            return


def _tell_whole(lines: Lines, bench: Bench) -> None:
    """Lines a and b."""
    fitted = lines.attempt("a depict fast", bench.fit)
    graph_s = fitted.get("seconds", {}).get("graph", 0.0)
    started = lines.attempt("b start", lambda: bench.start(len(bench.x)), graph_s)
    known_s = started.get("seconds", graph_s)
    lines.attempt("b start large", bench.large_start, known_s * (bench.count_large() / len(bench.x)) ** GROWS_BY)


def _go_on_in_another_process(options: argparse.Namespace, first: str, left_s: float) -> None:
    """The stages from `first` on, where this process has lost its device."""
    command = [sys.executable, "-m", "benchmarks.device", "--data", str(options.data), "--first", first]
    command += ["--minutes", str(max(0.0, left_s) / 60)]
    command += ["--device", options.device] if options.device else []
    command += ["--json", str(options.json)] if options.json else []
    command += ["--small"] if options.small else []
    subprocess.run(command, check=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description="Speed and quality on one device.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--minutes", type=float, default=8.0, help="what would take longer is skipped")
    parser.add_argument("--json", type=Path, help="file for the same lines")
    parser.add_argument("--device", help="cuda or cpu; by default cuda where there is one")
    parser.add_argument("--small", action="store_true", help="tiny settings, to see that all of it runs")
    parser.add_argument("--first", metavar="STAGE", help="part c alone, from this stage on, such as 'dcae fast Hold'")
    return parser.parse_args()


if __name__ == "__main__":
    main()
