"""Which GPU a training gets: each GPU runs one training at a time; `CUDA_VISIBLE_DEVICES` names it to the runner."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from app.log import get_logger
from app.queue import GPU_QUEUE
from app.settings import Settings

log = get_logger()


class AllTaken(Exception):
    """Every GPU of this worker is in use."""


class Devices:
    """The GPUs of one worker."""

    def __init__(self, settings: Settings) -> None:
        """Use the GPUs of the settings, else those of the worker's `CUDA_VISIBLE_DEVICES`, else all of the machine."""
        self._is_split = settings.gpu_queue
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        named = settings.gpus or (",".join(_present()) if seen is None else seen)
        self._free = [name.strip() for name in named.split(",") if name.strip()]
        self._lock = Lock()
        self._has_any = bool(self._free)

    @contextmanager
    def lend(self, queue: str) -> Iterator[str | None]:
        """Reserve what a runner of that queue may see: one GPU, none (""), or what the worker itself sees (None).

        Raises:
            AllTaken: no GPU is free. The task that returns one rings the queue again.
        """
        if not self._is_split:
            yield None
            return
        if queue != GPU_QUEUE:
            yield ""
            return
        if not self._has_any:
            log.error("no_gpu", remedy="CLUSTERSERVE_GPUS, or take train-gpu from this worker's queues")
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
    """Numbers of the NVIDIA devices here as CUDA counts them, by their files: no driver library is loaded."""
    n_devices = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))
    return [str(number) for number in range(n_devices)]
