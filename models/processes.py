"""Steps of a computation side by side in processes of one thread each; torch-free, so that they start fast."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import connection
from threading import Thread
from types import TracebackType
from typing import Any, Self

HEARTBEAT_S = 0.5
INLINE_UNTIL = 2_000  # rows; below it starting processes takes longer than the work


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
        if self._pool is None:
            return [self._counted(step(*task)) for task in tasks]
        futures = [self._pool.submit(step, *task) for task in tasks]
        waiting = set(futures)
        while waiting:
            ended, waiting = wait(waiting, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
            self._n_done += len(ended)
            self.beat()
        return [future.result() for future in futures]

    def _counted(self, result: Any) -> Any:
        self._n_done += 1
        self.beat()
        return result


def _begin() -> None:
    """In a new process: end as soon as the parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
