"""What a training keeps in object storage while it runs: checkpoints of the job, graph starts of the dataset.

The files lie under prefixes of their own, so they can be deleted at another time than the model's. They take effect
once a row names them: the runner tells its supervisor, which records them with a compare-and-set.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from app.store.blobs import prefix
from models import checkpoint
from models.training.trainer import can_resume
from workers.work import Work

_FILES = ("state.safetensors", "state.json")


class JobCheckpoints:
    """The checkpoints a job can resume from: the latest of each phase, from this attempt or an earlier one.

    Each checkpoint lists the latest of every phase, so the one that the job's row names leads to all of them.
    """

    def __init__(self, work: Work, device: str, extra: Callable[[], dict[str, Any]]) -> None:
        """`extra` gives what the runner must remember: saved with each checkpoint, read back as `resumed_extra`.

        Checkpoints of another release, or of another type of device than this one, are skipped.
        """
        self._work = work
        self._prefix = prefix(work.job.tenant_id, "checkpoint", work.job.id, work.job.fence)
        self._extra = extra
        head = self._head(work.job.checkpoint) if work.job.checkpoint else {}
        self.are_skipped = bool(head) and not can_resume(head, device)
        if self.are_skipped:
            head = {}
        self._phases: dict[str, str] = head.get("phases", {})
        self.resumed_extra: dict[str, Any] = head.get("extra", {})

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
            return {}  # retention deleted it: the job starts from the beginning
        return head


class DatasetStarts:
    """The dataset's neighbour-graph starts: those earlier jobs computed, and the one this job computes."""

    def __init__(self, work: Work) -> None:
        """Reads nothing yet."""
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
