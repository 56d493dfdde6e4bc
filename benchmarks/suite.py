"""The results: each case run in a process of its own and kept as one line of a file, from which the page is written.

What is there already is not run again. Starts that methods share are kept beside it, with the seconds they took.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results_page

STARTS = Path("benchmarks/.starts")
RESULTS, PAGE, NOTES = Path("benchmarks/results.jsonl"), Path("docs/results.md"), Path("benchmarks/notes.md")
# Threads that wait asleep: two of them on two cores must not take turns at burning.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


@dataclass(frozen=True)
class Case:
    """One run: `n_known` targets are told, `config` changes the profile."""

    dataset: str
    method: str
    profile: str
    seed: int
    n_known: int = 0
    config: dict[str, Any] = field(default_factory=dict)

    def is_in(self, result: results_page.Result) -> bool:
        """Whether this is the case that was measured there."""
        return all(result.get(name, 0 if name == "n_known" else {}) == value for name, value in asdict(self).items())


def run(data: Path, case: Case, device: str | None = None) -> None:
    """Measure a case that is missing, print its line without the curve, and write the page.

    `device` is that of `benchmarks quality`. A case that was measured on another device counts as measured.
    """
    done = read(RESULTS)
    if any(case.is_in(result) for result in done):
        return
    found = {**_measure(data / f"{case.dataset}.npz", case, device), **asdict(case)}
    with RESULTS.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "curve"}), flush=True)
    write_page()


def write_page() -> None:
    """The page of all that was measured, pictures of the curves beside it."""
    results = read(RESULTS)
    notes = NOTES.read_text() if NOTES.exists() else ""
    PAGE.write_text(results_page.render(results, notes))
    results_page.draw_curves(results, PAGE.with_suffix(""))


def read(results: Path) -> list[results_page.Result]:
    """The runs of a results file."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def _measure(data: Path, case: Case, device: str | None) -> results_page.Result:
    """One run as a process of its own, with the largest memory that it and its children had together."""
    command = [
        sys.executable, "-m", "benchmarks", "quality", "--data", str(data), "--method", case.method,
        "--profile", case.profile, "--seed", str(case.seed), "--known", str(case.n_known),
        "--config", json.dumps(case.config), "--starts", str(STARTS), "--json",
        *(["--device", device] if device else []),
    ]  # fmt: skip
    commit = _commit()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | PATIENT)
    peak = _Peak(process.pid)
    try:
        out, _ = process.communicate()
    finally:
        peak_mb = peak.stop()
    if process.returncode:
        raise RuntimeError(f"{case.method} on {data.name} with seed {case.seed} failed")
    return {**json.loads(out.splitlines()[-1]), "peak_mb": peak_mb, "commit": commit}


def _commit() -> str:
    """The commit that is measured, marked where other files than the results differ from it."""
    own = [f":!{path}" for path in (RESULTS, PAGE, PAGE.with_suffix(""), NOTES)]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", *own], check=False).returncode
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return commit + ("-dirty" if changed else "")


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
