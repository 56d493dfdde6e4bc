"""What every kind of job is given: the work itself, a way to report progress, and its share of the progress."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any

from app import metrics
from app.settings import Settings
from app.store.blobs import Blobs
from app.store.tables import DatasetRow, JobRow, ModelRow, UploadPartRow, UploadRow
from models.errors import Cancelled
from workers.messages import (
    CheckpointMessage,
    Message,
    PhaseMessage,
    StartMessage,
    StepMessage,
    TimesMessage,
    encode,
)

STEP_GAP_S, TIMES_GAP_S = 0.2, 5.0


@dataclass(frozen=True)
class Span:
    """The part of a job's progress that a step takes, each 0...1."""

    start: float
    stop: float

    def at(self, share: float) -> float:
        """Progress of the job when this share of the step is done."""
        return self.start + (self.stop - self.start) * share


class Reporter:
    """Reports progress to the supervisor, and raises `Cancelled` in the job once it must stop."""

    def __init__(self, pipe: IO[str], stop: Event) -> None:
        self._pipe = pipe
        self._stop = stop
        self._lock = Lock()
        self._last_step = self._last_times = 0.0

    def phase(self, name: str, progress: float) -> None:
        """A new phase of the work begins; `progress` of the whole job is done, 0...1."""
        self.raise_if_stopped()
        self.send(PhaseMessage(phase=name, progress=round(progress, 4)))

    def step(self, progress: float, *, is_due: bool = False, **facts: Any) -> None:
        """Report progress. Cheap: unless `is_due`, calls within 0.2 s of the last one are dropped."""
        self.raise_if_stopped()
        if is_due or time.monotonic() - self._last_step >= STEP_GAP_S:
            self._last_step = time.monotonic()
            if self._last_step - self._last_times >= TIMES_GAP_S:
                self._last_times = self._last_step
                self.times()
            self.send(StepMessage(progress=round(progress, 4), **facts))

    def checkpoint(self, key_prefix: str, phase: str) -> None:
        """A complete checkpoint of the phase lies under this prefix."""
        self.send(CheckpointMessage(prefix=key_prefix, phase=phase))

    def start(self, key: str, key_prefix: str) -> None:
        """A neighbour-graph start of the dataset lies under this prefix."""
        self.send(StartMessage(key=key, prefix=key_prefix))

    def times(self) -> None:
        """How long storage, SQL and epochs took since the last call, for the supervisor's metrics."""
        self.send(TimesMessage(times=metrics.take_latest()))

    def raise_if_stopped(self) -> None:
        """Raise `Cancelled` once the supervisor has asked to stop."""
        if self._stop.is_set():
            raise Cancelled("asked to stop")

    def send(self, message: Message) -> None:
        """Write one line of the protocol; threads of the job may call it at the same time."""
        line = encode(message)
        with self._lock:
            self._pipe.write(line)
            self._pipe.flush()


@dataclass(frozen=True)
class Work:
    """Everything an attempt needs: rows as they were when it started, and where it may write."""

    settings: Settings
    blobs: Blobs
    job: JobRow
    dataset: DatasetRow
    model: ModelRow | None
    upload: UploadRow | None
    upload_parts: Sequence[UploadPartRow]
    part_prefixes: Sequence[str]  # where the parts of a large assignment lie, in the order of their images
    max_images: int  # that an ingest may add: what is left of the tenant's quota
    starts: Mapping[str, str]  # key -> prefix of each neighbour-graph start kept of the dataset
    prefix: str
    scratch: Path
    report: Reporter
