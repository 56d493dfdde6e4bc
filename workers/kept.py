"""What a training keeps in object storage while it runs: checkpoints of the job, graph starts of the dataset.

Files lie under prefixes of their own kind, so that they can go at another time than the model's. A row is what
makes them count: the runner tells its supervisor, which records them with a compare-and-set.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from app.store.blobs import prefix
from models import checkpoint
from workers.work import Work

_FILES = ("state.safetensors", "state.json")


class JobCheckpoints:
    """The states a job can resume from: the latest of every phase, of this attempt or of an earlier one.

    Each state names the latest of all phases, so the one that the job's row names is enough to find them.
    """

    def __init__(self, work: Work, extra: Callable[[], dict[str, Any]]) -> None:
        """`extra` is kept with each state and found again in `found_extra`: what the runner itself must remember."""
        self._work = work
        self._prefix = prefix(work.job.tenant_id, "checkpoint", work.job.id, work.job.fence)
        self._extra = extra
        head = self._head(work.job.checkpoint) if work.job.checkpoint else {}
        self._phases: dict[str, str] = head.get("phases", {})
        self.found_extra: dict[str, Any] = head.get("extra", {})

    def save(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """See `models.checkpoint.Checkpoints`."""
        key, phase = f"{self._prefix}/{name}", facts["phase"]
        self._phases = {**self._phases, phase: key}
        _put(self._work, key, tensors, {**facts, "phases": self._phases, "extra": self._extra()})
        self._work.report.checkpoint(key, phase)

    def latest(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See `models.checkpoint.Checkpoints`."""
        key = self._phases.get(phase)
        return None if key is None else _get(self._work, key)

    def _head(self, key: str) -> dict[str, Any]:
        try:
            head: dict[str, Any] = json.loads(self._work.blobs.get(f"{key}/state.json"))
        except FileNotFoundError:
            return {}  # retention took it: the job begins anew
        return head


class DatasetStarts:
    """The dataset's neighbour-graph starts: those earlier jobs computed, and the one this job computes."""

    def __init__(self, work: Work) -> None:
        """Nothing is read before it is asked for."""
        self._work = work

    def find(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See `models.checkpoint.Starts`."""
        kept = self._work.starts.get(key)
        return None if kept is None else _get(self._work, kept)

    def keep(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """See `models.checkpoint.Starts`."""
        kept = prefix(self._work.job.tenant_id, "start", self._work.job.id, self._work.job.fence)
        _put(self._work, kept, tensors, facts)
        self._work.report.start(key, kept)


def _put(work: Work, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    folder = _empty(work)
    checkpoint.save(folder, "state", tensors, facts)
    for name in _FILES:
        work.blobs.put(f"{key}/{name}", (folder / name).read_bytes())


def _get(work: Work, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    folder = _empty(work)
    folder.mkdir()
    try:
        for name in _FILES:
            (folder / name).write_bytes(work.blobs.get(f"{key}/{name}"))
    except FileNotFoundError:
        return None
    return checkpoint.load(folder, "state")


def _empty(work: Work) -> Path:
    folder = work.scratch / "state"
    shutil.rmtree(folder, ignore_errors=True)
    return folder
