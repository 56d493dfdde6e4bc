"""Neighbour-graph starts kept in a folder, so that methods measured on one data set share them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models import checkpoint


class KeptStarts:
    """Starts in a folder (see `models.checkpoint.Starts`), each with the seconds it took."""

    def __init__(self, folder: Path) -> None:
        """The folder may not exist yet."""
        self._folder = folder
        self._begun = time.perf_counter()
        self.saved_s = 0.0  # what a start that was found there took when it was computed

    def find(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See `models.checkpoint.Starts`."""
        self._begun = time.perf_counter()
        if not (self._folder / key / "start.json").exists():
            return None
        tensors, facts = checkpoint.load(self._folder / key, "start")
        self.saved_s = facts.pop("seconds")
        return tensors, facts

    def keep(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """See `models.checkpoint.Starts`."""
        seconds = time.perf_counter() - self._begun
        checkpoint.save(self._folder / key, "start", tensors, {**facts, "seconds": seconds})
