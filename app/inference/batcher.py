"""One model, many requests: whatever waits is taken together the moment the session is free.

There is no thread of its own and no timer. The thread that brings inputs runs the model itself if a lane is free, and
goes on until nothing waits; otherwise it leaves them for the thread that is at it. Batches grow with the load alone.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import TimedOut
from app.inference.served import Assigned
from app.log import get_logger

Run = Callable[[NDArray[Any], bool], Assigned]  # inputs, with embedding

log = get_logger()


@dataclass(frozen=True)
class Answer:
    """A request's columns, and the positions whose input made the model fail; their columns mean nothing."""

    assigned: Assigned
    failed: frozenset[int] = frozenset()


class Pending:
    """A request's inputs (N, ...) on their way; `tell` gets its `Answer`, or the error that ended it, once."""

    def __init__(
        self,
        inputs: NDArray[Any],
        deadline: float,
        tell: Callable[[Answer | BaseException], None],
        *,
        with_embedding: bool = False,
    ) -> None:
        """`deadline`: of `time.monotonic()`, after which nobody waits for what has not begun."""
        self.inputs, self.deadline, self._tell = inputs, deadline, tell
        self.with_embedding = with_embedding
        self._parts: dict[int, Assigned] = {}
        self._failed: set[int] = set()
        self._n_open = len(inputs)
        self._lock = Lock()

    def take(self, start: int, answer: Answer | BaseException, n: int) -> None:
        """What became of the `n` inputs from `start` on."""
        with self._lock:
            if self._n_open <= 0:
                return
            if isinstance(answer, BaseException):
                self._n_open = 0
            else:
                self._parts[start] = answer.assigned
                self._failed.update(start + position for position in answer.failed)
                self._n_open -= n
                if self._n_open:
                    return
        if isinstance(answer, BaseException):
            self._tell(answer)
        else:
            parts = [self._parts[at] for at in sorted(self._parts)]
            self._tell(Answer(Assigned.joined(parts), frozenset(self._failed)))


@dataclass(frozen=True)
class _Piece:
    """Rows `start`...`stop` - 1 of a request, few enough for one run."""

    request: Pending
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Batcher:
    """Runs one model over pieces of requests, up to `max_batch` inputs at a time, in up to `n_lanes` threads."""

    def __init__(self, run: Run, executor: Executor, *, n_lanes: int, max_batch: int) -> None:
        """`executor` lends further threads where more than one batch waits."""
        self._run, self._executor = run, executor
        self._n_lanes, self._max_batch = n_lanes, max_batch
        self._waiting: deque[_Piece] = deque()
        self._n_running = 0
        self._lock = Lock()

    def put(self, request: Pending) -> None:
        """Answer a request, in this thread or in one that is at it already."""
        starts = range(0, len(request.inputs), self._max_batch)
        pieces = [_Piece(request, at, min(at + self._max_batch, len(request.inputs))) for at in starts]
        with self._lock:
            self._waiting.extend(pieces)
            n_new = min(self._n_lanes - self._n_running, len(pieces))
            self._n_running += n_new
        for _ in range(n_new - 1):
            self._executor.submit(self._work)
        if n_new:
            self._work()

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Piece]:
        """As many pieces as fit into one run; none: this lane is closed."""
        with self._lock:
            batch: list[_Piece] = []
            n = 0
            while self._waiting and (not batch or n + len(self._waiting[0]) <= self._max_batch):
                batch.append(self._waiting.popleft())
                n += len(batch[-1])
            if not batch:
                self._n_running -= 1
            return batch

    def _answer(self, batch: Sequence[_Piece]) -> None:
        moment = time.monotonic()
        for piece in batch:
            if piece.request.deadline < moment:
                piece.request.take(piece.start, TimedOut("the request waited too long for its turn"), len(piece))
        batch = [piece for piece in batch if piece.request.deadline >= moment]
        if not batch:
            return
        try:
            inputs = [piece.request.inputs[piece.start : piece.stop] for piece in batch]
            with_embedding = any(piece.request.with_embedding for piece in batch)
            answer = self._attempt(inputs[0] if len(inputs) == 1 else np.concatenate(inputs), with_embedding)
        except BaseException as error:  # whoever waits must hear of it, and this lane must go on
            log.exception("batch_failed", n=sum(len(piece) for piece in batch))
            for piece in batch:
                piece.request.take(piece.start, error, len(piece))
            return
        at = 0
        for piece in batch:
            own = frozenset(i - at for i in answer.failed if at <= i < at + len(piece))
            piece.request.take(piece.start, Answer(answer.assigned.part(at, at + len(piece)), own), len(piece))
            at += len(piece)

    def _attempt(self, inputs: NDArray[Any], with_embedding: bool) -> Answer:
        """Run the batch; where that fails, its halves, down to the inputs that are to blame."""
        try:
            return Answer(self._run(inputs, with_embedding))
        except Exception as error:
            if len(inputs) == 1:
                log.warning("input_failed", error=type(error).__name__)
                return Answer(Assigned.none(1), frozenset([0]))
        middle = len(inputs) // 2
        left = self._attempt(inputs[:middle], with_embedding)
        right = self._attempt(inputs[middle:], with_embedding)
        failed = left.failed | {middle + position for position in right.failed}
        return Answer(Assigned.joined([left.assigned, right.assigned]), frozenset(failed))
