"""Steps of a computation side by side in threads, each of which gives torch one thread of its own.

Torch sums in another order on another number of threads. A step on one thread gives one result, so does the whole, on
any number of cores. Torch releases the GIL inside an operator, so steps of large operators run in parallel.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

HEARTBEAT_S = 0.4
T = TypeVar("T")


class Stopped(Exception):
    """Raised by `Crew.beat` inside a step whose caller no longer wants its result."""


class Crew:
    """Runs pure functions in threads; the results are the same on any number of them."""

    def __init__(self, n_threads: int, on_beat: Callable[[int], None]) -> None:
        """Args:
        n_threads: how many steps run at a time; an accelerator wants one.
        on_beat: told how many steps are done, at least twice a second; what it raises stops all steps.
        """
        self._on_beat = on_beat
        self._n_done = 0
        self._stopped = Event()
        self._n_torch_threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(n_threads, "start", initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._n_torch_threads)

    def beat(self) -> None:
        """Called by steps, often.

        Raises:
            Stopped: the result is no longer wanted.
        """
        if self._stopped.is_set():
            raise Stopped

    def skip(self, n_steps: int) -> None:
        """Count steps as done that turned out to be needless."""
        self._n_done += n_steps

    def run(self, step: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> list[T]:
        """The results of one step over all tasks, in order."""
        return self.finish(self.begin(step, tasks))

    def begin(self, step: Callable[..., T], tasks: Sequence[tuple[Any, ...]]) -> list[Future[T]]:
        """Have all tasks done, in order, while the caller goes on."""
        return [self._pool.submit(step, *task) for task in tasks]

    def finish(self, begun: Sequence[Future[T]]) -> list[T]:
        """Wait for the results of what was begun."""
        waiting: set[Future[T]] = set(begun)
        while waiting:
            ended, waiting = wait(waiting, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
            self._n_done += len(ended)
            self._on_beat(self._n_done)
            for one in ended:
                one.result()  # raise at once, not when the others have ended
        return [one.result() for one in begun]
