"""Tensors and facts in a folder: safetensors + JSON, hash-checked. No pickle."""

import hashlib
import json
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


def save(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, lists_files: bool = False
) -> None:
    """Write `{stem}.safetensors` and then `{stem}.json`, which carries its hash: without both, `load` finds nothing.

    `lists_files` adds the SHA-256 of every other file in the folder to the JSON, as `files`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, since safetensors refuses tensors that share memory.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(copies)
    _write(folder / f"{stem}.safetensors", data)
    head = {"format": FORMAT_VERSION, "sha256": hashlib.sha256(data).hexdigest(), **facts}
    if lists_files:
        files = sorted(path for path in folder.iterdir() if path.name != f"{stem}.json")
        head["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    _write(folder / f"{stem}.json", json.dumps(head, indent=1).encode())


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)


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
