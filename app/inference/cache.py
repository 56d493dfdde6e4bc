"""Loaded models by id, least recently used out first, so that a warm `assign` touches neither SQL nor storage."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from app.errors import NotFound
from app.inference.served import ServedModel

RECHECK_S = 10.0


@dataclass
class _Entry:
    model: ServedModel
    checked_at: float


class ModelCache:
    """Holds models up to a number of bytes; loads each once, however many ask at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._loading: dict[tuple[str, str], Lock] = {}
        self._lock = Lock()

    def get(
        self, tenant_id: str, model_id: str, load: Callable[[], ServedModel], check: Callable[[], object]
    ) -> ServedModel:
        """The model, loaded if need be.

        `check` raises where the model is gone; it runs at most every RECHECK_S, since a model may be
        deleted through another process.
        """
        key = (tenant_id, model_id)
        with self._lock:
            loading = self._loading.setdefault(key, Lock())
        entry = self._find(key)
        if entry is None:
            with loading:
                entry = self._find(key)
                if entry is None:
                    entry = self._load(key, load)
        elif time.monotonic() - entry.checked_at > RECHECK_S:
            entry.checked_at = time.monotonic()
            try:
                check()
            except NotFound:
                self.forget(tenant_id, model_id)
                raise
        return entry.model

    def forget(self, tenant_id: str, model_id: str) -> None:
        """Drop a model that was deleted."""
        with self._lock:
            self._entries.pop((tenant_id, model_id), None)
            self._loading.pop((tenant_id, model_id), None)

    def _find(self, key: tuple[str, str]) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def _load(self, key: tuple[str, str], load: Callable[[], ServedModel]) -> _Entry:
        try:
            return self._keep(key, load())
        except BaseException:
            with self._lock:
                self._loading.pop(key, None)
            raise

    def _keep(self, key: tuple[str, str], model: ServedModel) -> _Entry:
        entry = _Entry(model, time.monotonic())
        with self._lock:
            self._entries[key] = entry
            while len(self._entries) > 1 and sum(e.model.n_bytes for e in self._entries.values()) > self._max_bytes:
                gone, _ = self._entries.popitem(last=False)
                self._loading.pop(gone, None)
        return entry
