"""The protocol between runner and supervisor: typed messages, each a JSON line on the runner's standard output.

`{"type": "phase", "phase": "decode", "progress": 0.05}` is one of them. Both sides belong to one release, so the
decoder takes exactly these fields and types.
"""

import json
import math
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, TypeAdapter, ValidationError

from app.store.results import Result


class BadMessage(ValueError):
    """A line of a known type whose fields are not those of the protocol."""


@dataclass(frozen=True, kw_only=True)
class PhaseMessage:
    """A new phase of the work begins; `progress` of the whole job is done, 0...1."""

    type: Literal["phase"] = "phase"
    phase: str
    progress: float


@dataclass(frozen=True, kw_only=True)
class StepMessage:
    """The work goes on. An ingest counts images; a fit says what `models.base.StepState` holds, and scores."""

    type: Literal["step"] = "step"
    progress: float
    n_images: int | None = None
    n_rejects: int | None = None
    phase: str | None = None
    step: int | None = None
    losses: dict[str, float | None] | None = None
    label_change: float | None = None
    cluster_sizes: list[int] | None = None
    scores: dict[str, float | None] | None = None
    event: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointMessage:
    """A complete checkpoint of a phase lies under this prefix."""

    type: Literal["checkpoint"] = "checkpoint"
    prefix: str
    phase: str


@dataclass(frozen=True, kw_only=True)
class StartMessage:
    """A neighbour-graph start of the dataset lies under this prefix; `key` names all that decides it."""

    type: Literal["start"] = "start"
    key: str
    prefix: str


@dataclass(frozen=True, kw_only=True)
class TimesMessage:
    """How long storage, SQL and epochs took since the last of these: (metric, label, seconds)."""

    type: Literal["times"] = "times"
    times: list[tuple[str, str, float]]


@dataclass(frozen=True, kw_only=True)
class ResultMessage:
    """The attempt succeeded."""

    type: Literal["result"] = "result"
    result: Result


@dataclass(frozen=True, kw_only=True)
class ErrorMessage:
    """The attempt failed; `is_retryable` tells whether another may succeed."""

    type: Literal["error"] = "error"
    code: str
    message: str
    is_retryable: bool


@dataclass(frozen=True, kw_only=True)
class StoppedMessage:
    """The attempt ended because it was asked to."""

    type: Literal["stopped"] = "stopped"


EventMessage = PhaseMessage | StepMessage | CheckpointMessage  # these become events of the job
Message = EventMessage | StartMessage | TimesMessage | ResultMessage | ErrorMessage | StoppedMessage

_MESSAGES: TypeAdapter[Message] = TypeAdapter(
    Annotated[Message, Discriminator("type")], config=ConfigDict(extra="forbid", strict=True)
)
_IGNORED = ("json_invalid", "union_tag_invalid")  # pydantic's names for a line cut short and for an unknown type


def encode(message: Message) -> str:
    """The message as a line."""
    return json.dumps(_plain(message), allow_nan=False) + "\n"


def decode(line: bytes) -> Message | None:
    """The message of a line; None for a line that a kill cut short, and for a type that is not known.

    Raises:
        BadMessage: a field is missing, unknown or of the wrong type.
    """
    try:
        return _MESSAGES.validate_json(line)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        if faults[0]["type"] in _IGNORED:
            return None
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise BadMessage(said) from error


def event_data(message: EventMessage) -> dict[str, Any]:
    """The `data` of the event that a message becomes."""
    data: dict[str, Any] = _plain(message)
    del data["type"]
    return data


def _plain(value: Any) -> Any:
    """As JSON has it: NaN and infinity are null, and an optional field that is None is left out."""
    if is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _plain(part) for field, part in pairs if part is not None or field.default is MISSING}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
