"""Tensors and facts in a folder: safetensors + JSON, atomic, hash-checked. No pickle."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from models.errors import BadCheckpoint

FORMAT_VERSION = 1


class Checkpoints(Protocol):
    """Where a fit keeps the state it could resume from; the caller decides what that means."""

    def save(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a complete state; its `facts` carry at least `phase`."""

    def latest(self, phase: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last state kept of that phase, if there is one."""


class Starts(Protocol):
    """Where the starts of one dataset are kept, so that a second job on it need not compute them again."""

    def find(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts kept under a key, if any."""

    def keep(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep a complete start."""


def save(folder: Path, stem: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `{stem}.safetensors` and `{stem}.json` as one: the folder appears whole or not at all."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # Copies, since safetensors refuses tensors that share memory.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(copies)
    (unfinished / f"{stem}.safetensors").write_bytes(data)
    head = {"format": FORMAT_VERSION, "sha256": hashlib.sha256(data).hexdigest()}
    (unfinished / f"{stem}.json").write_text(json.dumps({**head, **facts}, indent=1))
    unfinished.rename(folder)


def load(folder: Path, stem: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote.

    Raises:
        BadCheckpoint: missing, altered, or of another format.
    """
    try:
        facts = json.loads((folder / f"{stem}.json").read_text())
        data = (folder / f"{stem}.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise BadCheckpoint("the folder is incomplete") from error
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT_VERSION:
        raise BadCheckpoint("the folder has an unknown format")
    if facts.pop("sha256", None) != hashlib.sha256(data).hexdigest():
        raise BadCheckpoint("the parameters are not those that were saved")
    try:
        return safetensors.torch.load(data), facts
    except safetensors.SafetensorError as error:
        raise BadCheckpoint("the parameters cannot be read") from error
