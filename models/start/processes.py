"""Steps of a computation side by side in processes of one thread each; torch-free, so that they start fast."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import connection
from threading import Thread
from types import TracebackType
from typing import Any, Self

HEARTBEAT_S = 0.5


class Workshop:
    """Runs pure functions: here, one after the other, or in processes; the results are the same."""

    def __init__(self, n_processes: int, on_beat: Callable[[int], None]) -> None:
        """Args:
        n_processes: 0 runs everything here.
        on_beat: told how many steps are done, after each and twice a second; what it raises ends the processes.
        """
        self._on_beat = on_beat
        self._n_done = 0
        self._others = set(multiprocessing.active_children())
        self._pool = None
        if n_processes:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None) -> None:
        if self._pool is None:
            return
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def beat(self) -> None:
        """Say that the work goes on."""
        self._on_beat(self._n_done)

    def run(self, step: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of one step over all tasks, in order."""
        return self.finish(self.begin(step, tasks))

    def begin(self, step: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Future[Any]]:
        """Have all tasks done, in order, while the caller goes on; without processes they are done at once."""
        return [self._pool.submit(step, *task) if self._pool else self._done(step, task) for task in tasks]

    def finish(self, begun: Sequence[Future[Any]]) -> list[Any]:
        """Wait for the results of what was begun."""
        waiting = set(begun) if self._pool else set()
        while waiting:
            ended, waiting = wait(waiting, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
            self._n_done += len(ended)
            self.beat()
        return [one.result() for one in begun]

    def _done(self, step: Callable[..., Any], task: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(step(*task))
        self._n_done += 1
        self.beat()
        return future


def _begin() -> None:
    """In a new process: end as soon as the parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
