"""Which GPU a training gets: one at a time has each, named to its runner by `CUDA_VISIBLE_DEVICES`."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from app.queue import GPU_QUEUE
from app.settings import Settings


class AllTaken(Exception):
    """Every device of this worker has a training."""


class Devices:
    """The GPUs of one worker."""

    def __init__(self, settings: Settings) -> None:
        """Those the settings name; else those that the worker's own environment lets it see; else all there are."""
        self._is_split = settings.gpu_queue
        named = settings.gpus or os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(_present())
        self._free = [name.strip() for name in named.split(",") if name.strip()]
        self._lock = Lock()

    @contextmanager
    def lend(self, queue: str) -> Iterator[str | None]:
        """What a runner of that queue may see: a device of its own, none (""), or whatever the worker sees (None).

        Raises:
            AllTaken: there is no free one; who gives one back asks for more work.
        """
        if not self._is_split:
            yield None
            return
        if queue != GPU_QUEUE:
            yield ""
            return
        device = self._take()
        try:
            yield device
        finally:
            with self._lock:
                self._free.append(device)

    def _take(self) -> str:
        with self._lock:
            if not self._free:
                raise AllTaken
            return self._free.pop(0)


def _present() -> list[str]:
    """Numbers of the NVIDIA devices of this machine, by their files: no driver library is loaded."""
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)
