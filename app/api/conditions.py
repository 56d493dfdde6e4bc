"""Conditional requests (RFC 9110, section 13): the tag of what a resource says now, and what callers ask of it."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import BaseModel

from app.errors import PreconditionFailed

UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "unchanged"}}

IfMatch = Annotated[str | None, Header(description="`ETag` as last read: refused (412) where it has changed since")]
IfNoneMatch = Annotated[str | None, Header(description="`ETag` as last read: 304 where nothing has changed since")]


def tag(body: BaseModel) -> str:
    """The entity tag of a resource that says this."""
    return _tag(body.model_dump_json().encode())


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has what this tag stands for, by the weak comparison."""
    return _names(if_none_match, etag, is_weak=True)


def require(if_match: str | None, current: Callable[[], str]) -> None:
    """Hold a change against what its caller knows; `current` gives the tag, with the row held until the change is done.

    Raises:
        PreconditionFailed: it is not what there is.
    """
    if if_match is not None and not _names(if_match, etag := current(), is_weak=False):
        raise PreconditionFailed(f"it has changed: its ETag is {etag} now")


def send(body: BaseModel, if_none_match: str | None = None, etag: str | None = None) -> Response:
    """A resource with its tag, or 304 to whoever has it."""
    data = body.model_dump_json().encode()
    etag = etag or _tag(data)
    headers = {"ETag": etag}
    if is_known(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type="application/json")


def _tag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def _names(header: str | None, etag: str, *, is_weak: bool) -> bool:
    names = [name.strip() for name in (header or "").split(",")]
    return "*" in names or etag in ([name.removeprefix("W/") for name in names] if is_weak else names)
