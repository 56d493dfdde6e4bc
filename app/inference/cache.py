"""Loaded models by id, least recently used out first, so that a warm `assign` touches neither SQL nor storage."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from app.errors import NotFound, TimedOut
from app.inference.serving import Serving

RECHECK_S, CHECK_WAIT_S = 10.0, 1.0
_N_LOADERS = 4

Key = tuple[str, str]  # tenant, model


@dataclass
class _Entry:
    serving: Serving
    checked_at: float


class ModelCache:
    """Holds models up to a number of bytes; loads each once, in threads of its own, however many ask for it.

    Belongs to the event loop's thread but for `forget`, which is atomic.
    """

    def __init__(self, max_bytes: int, load_s: float) -> None:
        """`load_s`: how long a request waits for a model to be loaded; the loading goes on without it."""
        self._max_bytes, self._load_s = max_bytes, load_s
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Serving]] = {}
        self._loaders = ThreadPoolExecutor(_N_LOADERS, thread_name_prefix="loader")

    async def get(
        self, tenant_id: str, model_id: str, load: Callable[[], Serving], check: Callable[[], None]
    ) -> Serving:
        """The model, loaded if need be.

        `check` raises where the model is gone. It runs at most every RECHECK_S, since a model may be deleted through
        another process. If it does not answer in time, the cached model is used until the next check.

        Raises:
            NotFound: what `load` and `check` raise.
            TimedOut: it is still being loaded.
        """
        key = (tenant_id, model_id)
        entry = self._entries.get(key)
        if entry is None:
            return await self._loaded(key, load)
        if time.monotonic() - entry.checked_at > RECHECK_S:
            entry.checked_at = time.monotonic()
            await self._checked(key, check)
        with suppress(KeyError):
            self._entries.move_to_end(key)
        return entry.serving

    def forget(self, tenant_id: str, model_id: str) -> None:
        """Drop a model that was deleted."""
        self._entries.pop((tenant_id, model_id), None)

    def entries(self) -> Iterator[tuple[str, Serving]]:
        """The loaded models by id."""
        for (_, model_id), entry in list(self._entries.items()):
            yield model_id, entry.serving

    def close(self) -> None:
        """Let the threads end."""
        self._loaders.shutdown(wait=False, cancel_futures=True)

    async def _checked(self, key: Key, check: Callable[[], None]) -> None:
        checking = asyncio.get_running_loop().run_in_executor(self._loaders, check)
        try:
            await asyncio.wait_for(asyncio.shield(checking), CHECK_WAIT_S)
        except NotFound:
            self.forget(*key)
            raise
        except TimeoutError:
            checking.add_done_callback(lambda done: self._settle(key, done))

    def _settle(self, key: Key, done: "asyncio.Future[None]") -> None:
        """What a check that nobody waited for found."""
        if not done.cancelled() and isinstance(done.exception(), NotFound):
            self.forget(*key)

    async def _loaded(self, key: Key, load: Callable[[], Serving]) -> Serving:
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key, load))
        try:
            return await asyncio.wait_for(asyncio.shield(task), self._load_s)
        except TimeoutError as error:
            raise TimedOut("the model is being loaded; try again soon", code="model_loading") from error

    async def _load(self, key: Key, load: Callable[[], Serving]) -> Serving:
        try:
            serving = await asyncio.get_running_loop().run_in_executor(self._loaders, load)
        finally:
            self._loading.pop(key, None)
        self._entries[key] = _Entry(serving, time.monotonic())
        while len(self._entries) > 1 and sum(e.serving.n_bytes for e in self._entries.values()) > self._max_bytes:
            self._entries.popitem(last=False)
        return serving
