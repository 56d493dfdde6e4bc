"""Turns the library's `on_step` reports into job events and learning curves, with scores against targets."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import metrics as metrics_of_service
from app.store.model_files import write_history
from models.base import StepState
from workers.work import Reporter, Span

MAX_SIZES_TOLD = 1_000  # cluster sizes in one event: a page of events must stay small


class Curves:
    """Receives the reports of one fit. The targets stay here: the library never sees them."""

    def __init__(self, report: Reporter, span: Span, targets: NDArray[np.int64] | None) -> None:
        """`span` is the fit's part of the job; `targets` (N,) are -1 where there is none."""
        self._report, self._span, self._targets = report, span, targets
        self._phase = ""
        self._last = time.monotonic()
        self.epochs: list[dict[str, Any]] = []
        self._told: set[tuple[str, int]] = set()

    def go_on_from(self, epochs: list[dict[str, Any]]) -> None:
        """Continue the curves of an earlier attempt."""
        self.epochs = list(epochs)
        self._told = {(epoch["phase"], epoch["epoch"]) for epoch in epochs}

    def on_step(self, state: StepState) -> None:
        """Report to the supervisor, and add the epoch to the curves if one has ended."""
        progress = self._span.at(state.progress)
        if state.phase != self._phase:
            self._phase = state.phase
            self._report.phase(state.phase, progress)
        facts: dict[str, Any] = {"phase": state.phase, "step": state.step}
        if state.losses:
            facts["losses"] = dict(state.losses)
        if state.label_change is not None:
            facts["label_change"] = state.label_change
        if state.cluster_sizes is not None:
            facts["cluster_sizes"] = state.cluster_sizes[:MAX_SIZES_TOLD]
        if state.event is not None:
            facts["event"] = state.event
        if state.is_epoch:
            facts["scores"] = self._keep(state)
        self._report.step(progress, is_due=state.is_epoch or state.event is not None, **facts)

    def start_scores(self) -> dict[str, float]:
        """Scores of the partition the fit began with, `start_acc` and so on; none without targets or a start."""
        scores: dict[str, float] = next((epoch["scores"] for epoch in self.epochs if epoch["epoch"] == 0), {})
        return {f"start_{name}": value for name, value in scores.items()}

    def parquet(self) -> bytes:
        """The curves as a file."""
        return write_history(self.epochs)

    def _keep(self, state: StepState) -> dict[str, float]:
        scores: dict[str, float] = {}
        if self._targets is not None and state.assignments is not None:
            from models.worth import metrics  # slow to import, and a dataset without targets does not need it

            scores = metrics.with_targets(self._targets, state.assignments)
        moment = time.monotonic()
        if (state.phase, state.step) in self._told:
            return scores  # a resumed fit reports its start a second time
        self._told.add((state.phase, state.step))
        metrics_of_service.observe("epoch", state.phase, moment - self._last)
        self.epochs.append(
            {
                "phase": state.phase,
                "epoch": state.step,
                "seconds": moment - self._last,
                "losses": dict(state.losses),
                "scores": scores,
                "label_change": state.label_change,
                "cluster_sizes": state.cluster_sizes,
            }
        )
        self._last = moment
        return scores
