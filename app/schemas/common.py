"""Shapes that several resources share."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

Item = TypeVar("Item")

UtcTime = Annotated[
    datetime, PlainSerializer(lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
]
NO_NUL = r"^[^\x00]*$"  # the one character that Postgres does not store
Name = Annotated[str, Field(max_length=200, pattern=NO_NUL)]
Id = Annotated[str, Field(pattern=NO_NUL)]


def whole(value: Any) -> Any:
    """A number without a fraction as an integer, which it is to JSON Schema (`2.0`); anything else as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(whole)  # last in an annotation: bounds after it would not reach the schema


class Read(BaseModel):
    """Base of responses, filled from a row's attributes."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())


class Write(BaseModel):
    """Base of request bodies; unknown keys are refused, and `true` or `"1"` where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Page(BaseModel, Generic[Item]):
    """One page; send `next_cursor` as `cursor` to go on, null on the last page."""

    items: list[Item]
    next_cursor: str | None = None


class Failure(BaseModel):
    """Why a job or a dataset failed; `code` is stable."""

    code: str
    message: str


class NoteRead(BaseModel):
    """One sentence on how a dataset was read or a training went.

    `code` is stable, `count` says how many it is about, `examples` name a few of them.
    """

    code: str
    message: str
    count: int | None = None
    examples: list[str] = []


PROBLEM_TYPE = "application/problem+json"


class Problem(BaseModel):
    """An error, after RFC 9457; `code` is stable, `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, Any]] = []


def failures(error: ValidationError, under: str = "") -> list[dict[str, Any]]:
    """What is wrong with a body, for `errors` of a problem: at most twenty fields, named from `under` on."""
    above = [under] if under else []
    return [
        {"field": ".".join([*above, *map(str, part["loc"])]), "code": part["type"], "detail": part["msg"]}
        for part in error.errors(include_url=False, include_context=False, include_input=False)[:20]
    ]
