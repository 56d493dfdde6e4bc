"""`python -m benchmarks.papers --data FOLDER`: the papers' recipes in full, as far as the time allows.

Schedules of the `paper` profiles take from minutes to weeks. So a run may stop anywhere. It goes on from its last whole
epoch: its checkpoints, its curve and its result lie in a folder of its own under `--out`. Each recipe first runs for a
few seconds, which tell about how long the rest will take. Then the one with least left runs until it is over.

Each line is one JSON object, printed as soon as it is known. Published figures stand beside ours as `published`. As
`benchmarks.device`, this module needs the library and what the library needs, nothing of the service.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.device import Lines
from benchmarks.hardware import choose_device, describe, wait_for
from benchmarks.results_page import PUBLISHED
from models import checkpoint, registry
from models.base import Run, StepState
from models.errors import BadCheckpoint, Cancelled
from models.pixels import InputSpec
from models.worth import metrics

PROBE_S = 10.0
SMALL: dict[str, dict[str, Any]] = {
    "dcae": {"n_epochs": 2, "batch_size": 20},
    "depict": {"n_pretrain_epochs": 2, "n_epochs": 2, "batch_size": 20},
    "dual-autoencoder": {"n_pretrain_epochs": 2, "n_spectral_epochs": 2, "n_epochs": 2, "pretrain_batch_size": 20},
    "adaptive-gmm": {
        "n_rbm_steps": 400,
        "n_finetune_steps": 400,
        "n_steps": 12,
        "learning_rate": 0.1,
        "pretrain_batch_size": 20,
        "batch_size": 20,
        "hidden_units": (32, 32, 64),
        "clip": 1.0,
    },
    "precise-feature": {"n_steps": 1, "batch_size": 20},
}


@dataclass(frozen=True)
class Case:
    """A recipe on a set: on its last rows alone, where the paper has them as a test part."""

    method: str
    dataset: str
    n_last: int | None = None

    @property
    def name(self) -> str:
        """Of the recipe in what is told, and of its folder."""
        return f"{self.method}-{self.dataset}{'_test' if self.n_last else ''}"

    @property
    def published(self) -> str:
        """ACC as the paper gives it."""
        return PUBLISHED[self.method, f"{self.dataset}{'_test' if self.n_last else ''}"]


CASES = (
    Case("depict", "mnist", n_last=10_000),
    Case("dual-autoencoder", "mnist", n_last=10_000),
    Case("dual-autoencoder", "usps"),
    Case("depict", "usps"),
    Case("adaptive-gmm", "usps"),
    Case("dcae", "mnist"),
    Case("adaptive-gmm", "mnist"),
    Case("precise-feature", "mnist"),
)


class FolderCheckpoints:
    """The latest checkpoint of every phase, in a folder (see `models.checkpoint.Checkpoints`)."""

    def __init__(self, folder: Path) -> None:
        """The folder may not exist yet."""
        self._folder = folder

    def save(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """See `models.checkpoint.Checkpoints`. Older ones of the phase go once this one is whole."""
        before = self._of(facts["phase"])
        checkpoint.save(self._folder / facts["phase"] / name, "state", tensors, facts)
        for folder in before:
            if folder.name != name:
                shutil.rmtree(folder)

    def latest(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See `models.checkpoint.Checkpoints`."""
        for folder in reversed(self._of(phase)):
            try:
                return checkpoint.load(folder, "state")
            except BadCheckpoint:  # stopped while it was written
                continue
        return None

    def _of(self, phase: str) -> list[Path]:
        return sorted((self._folder / phase).glob("*"))


class Recipe:
    """One case in its folder, run a slice of time after another."""

    def __init__(
        self,
        case: Case,
        data: Path,
        out: Path,
        device: str,
        is_small: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.case, self.device, self._folder, self._clock = case, device, out / case.name, clock
        self._data, self._small = data, SMALL[case.method] if is_small else {}
        self._curve = self._folder / "curve.jsonl"
        self._result = self._folder / "result.json"
        self.left_s = 0.0  # about; 0 until it has run
        self._known: set[tuple[str, int]] = set()

    @property
    def is_over(self) -> bool:
        """Whether it has a result."""
        return self._result.exists()

    def result(self) -> dict[str, Any]:
        """What was found once it was over."""
        found: dict[str, Any] = json.loads(self._result.read_text())
        return found

    def run(self, seconds: float) -> dict[str, Any]:
        """Go on for so long; what to tell of it."""
        x, y = self._read()
        self._known = {(epoch["phase"], epoch["epoch"]) for epoch in self._epochs()}
        begun, first, last = self._clock(), None, 0.0

        def on_step(state: StepState) -> None:
            nonlocal first, last
            first, last = state.progress if first is None else first, state.progress
            if state.is_epoch:
                self._keep(state, y, self._clock() - begun)
            if self._clock() - begun >= seconds:
                raise Cancelled("its time is up")

        spec = registry.get(self.case.method)
        n_clusters = len(np.unique(y))
        input_spec = InputSpec("images", side=x.shape[-1], channels=1)
        model = spec.load()(spec.make_config("paper", {"n_clusters": n_clusters, **self._small}), input_spec)
        checkpoints = FolderCheckpoints(self._folder / "checkpoints")
        try:
            model.fit(x, Run(device=self.device, on_step=on_step, checkpoints=checkpoints))
        except Cancelled:
            took = self._clock() - begun
            done = last - (first or 0.0)
            self.left_s = took * (1 - last) / done if done > 0 else float("inf")
            return {
                "state": "stopped",
                "progress": round(last, 4),
                "about_left_s": _rounded(self.left_s),
                **self._last(),
            }
        wait_for(self.device)
        with model.on(self.device):
            acc = metrics.acc(y, model.predict(x))
        found = {"acc": acc, "published": self.case.published}
        self._result.write_text(json.dumps(found))
        return {"state": "over", **found}

    def _read(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        with np.load(self._data / f"{self.case.dataset}.npz", allow_pickle=False) as archive:
            x, y = np.ascontiguousarray(archive["x"][:, None]), archive["y"]
        start = 0 if self.case.n_last is None else -self.case.n_last
        return x[start:], y[start:]

    def _epochs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._curve.read_text().splitlines()] if self._curve.exists() else []

    def _last(self) -> dict[str, Any]:
        epochs = self._epochs()
        return {name: epochs[-1].get(name) for name in ("phase", "epoch", "acc")} if epochs else {}

    def _keep(self, state: StepState, y: NDArray[Any], seconds: float) -> None:
        """Add an epoch to the curve, unless an earlier slice got as far."""
        if (state.phase, state.step) in self._known:
            return
        epoch: dict[str, Any] = {"phase": state.phase, "epoch": state.step, "slice_s": round(seconds, 2)}
        if state.assignments is not None:
            epoch["acc"] = metrics.acc(y, state.assignments)
        epoch |= {"label_change": state.label_change, "losses": dict(state.losses)}
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._curve.open("a") as file:
            file.write(json.dumps(epoch) + "\n")


def _rounded(seconds: float) -> float | None:
    return round(seconds) if np.isfinite(seconds) else None


def main() -> None:
    """Tell the device, then every slice of every recipe."""
    options = _options()
    device = choose_device(options.device)
    lines = Lines(options.json, options.minutes, is_continued=False)
    lines.tell({"line": "device", **describe(device)})
    recipes = [
        Recipe(case, options.data, options.out, device, options.small)
        for case in CASES
        if options.method is None or case.method in options.method.split(",")
    ]
    for recipe in recipes:
        if recipe.is_over:
            lines.tell({"line": recipe.case.name, "state": "over before", **recipe.result()})
    waiting = [recipe for recipe in recipes if not recipe.is_over]
    for recipe in list(waiting):
        _go_on(lines, waiting, recipe, min(PROBE_S, lines.left_s))
    while waiting and lines.left_s > 0:
        _go_on(lines, waiting, min(waiting, key=lambda one: one.left_s), lines.left_s)


def _go_on(lines: Lines, waiting: list[Recipe], recipe: Recipe, seconds: float) -> None:
    """Run a slice; a recipe that is over, or that fails, waits no longer."""
    line = lines.attempt(recipe.case.name, lambda: recipe.run(seconds))
    if line.get("state") != "stopped" and "skipped" not in line:
        waiting.remove(recipe)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description="The papers' recipes in full.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and usps.npz")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/.papers"), help="where runs stop and go on")
    parser.add_argument("--minutes", type=float, default=60.0, help="when to stop; the same command goes on")
    parser.add_argument("--method", help="of these methods only, with commas")
    parser.add_argument("--json", type=Path, help="file for the same lines")
    parser.add_argument("--device", help="cuda or cpu; by default cuda where there is one")
    parser.add_argument("--small", action="store_true", help="tiny settings, to see that all of it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
