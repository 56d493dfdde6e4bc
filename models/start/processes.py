"""One step of a computation in a process of its own, for a library that holds the GIL. Torch-free: it starts fast."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import connection
from threading import Thread
from typing import Any

HEARTBEAT_S = 0.4


def run_in_process(step: Callable[..., Any], *task: Any, on_beat: Callable[[], None]) -> Any:
    """What a function of a module gives for `task`, computed in a new process.

    `on_beat` is called twice a second meanwhile. If it raises, the process is killed.

    Raises:
        RuntimeError: the process died. What the function itself raises is raised here.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, step, task), daemon=True)
    process.start()
    theirs.close()
    try:
        while not ours.poll(HEARTBEAT_S):
            on_beat()
        value = ours.recv()
    except EOFError:
        raise RuntimeError("the process died") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(value, BaseException):
        raise value
    return value


def _answer(pipe: "connection.Connection[Any, Any]", step: Callable[..., Any], task: tuple[Any, ...]) -> None:
    """In the new process: compute, and end as soon as the parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    try:
        pipe.send(step(*task))
    except Exception as error:
        pipe.send(error)
