"""What happens around every request: its id, its time, what is refused before it is read. Plain ASGI."""

import asyncio
import random
import time
from collections.abc import Iterable

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import log, metrics
from app.api import problems
from app.store.audit import acting

ONLINE = ("/assign", "/infer")  # ends of paths whose requests the desk takes in
JSON_BODY_S = 30.0
# Reading random bytes from the system releases the GIL; under load, getting it back waits for the decoding threads.
_names = random.Random()  # noqa: S311 - names of requests are no secrets
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class NameRequests:
    """Gives every request an id, its caller's if that is sane, for logs and problems; and counts it.

    `root_path` is where a proxy serves the service; `Location` and the OpenAPI document carry it.
    """

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._root_path
        name = request_id(scope["headers"])
        acting.set(None)  # pipelined requests begin in the context of the one before
        scope.setdefault("state", {})["request_id"] = name
        started, is_answered = time.perf_counter(), False

        async def send_named(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Request-Id", name)
                if self._root_path and headers.get("location", "").startswith("/"):
                    headers["location"] = self._root_path + headers["location"]
                for rate in scope["state"].get("rates", {}).values():
                    for field, value in rate.headers().items():
                        headers.append(field, value)
                _count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            with log.bound(request_id=name):
                await self._app(scope, receive, send_named)
        finally:
            if not is_answered:
                _count(scope, 500, time.perf_counter() - started)


class LimitJson:
    """Bodies that are read whole must say how long they are, and be short."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH"):
            headers = Headers(scope=scope)
            if not _is_streamed(scope["path"], headers.get("content-type", "")):
                refusal = self._refusal(Request(scope), headers)
                if refusal is not None:
                    await refusal(scope, receive, send)
                    return
                receive = _in_time(receive)
        await self._app(scope, receive, send)

    def _refusal(self, request: Request, headers: Headers) -> ASGIApp | None:
        length = headers.get("content-length", "")
        if not length.isdecimal():
            if "transfer-encoding" not in headers:
                return None
            detail = "a JSON body needs a Content-Length"
            return problems.render(request, 411, "length_required", "Length required", detail)
        if int(length) > self._max_bytes:
            detail = f"a JSON body holds at most {self._max_bytes} bytes"
            return problems.render(request, 413, "too_large", "Too large", detail)
        return None


def _in_time(receive: Receive) -> Receive:
    """A body that is read whole, and ends within `JSON_BODY_S`; what comes after it is not waited for."""
    until: float | None = asyncio.get_running_loop().time() + JSON_BODY_S

    async def receive_in_time() -> Message:
        nonlocal until
        async with asyncio.timeout_at(until):
            message = await receive()
        if not message.get("more_body", False):
            until = None
        return message

    return receive_in_time


def _is_streamed(path: str, content_type: str) -> bool:
    """Whether a route counts its body's bytes as they come; JSON is always read whole."""
    if content_type.lower().startswith("application/json"):
        return False
    return path == "/v1/datasets" or path.endswith(ONLINE) or "/parts/" in path


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's, if that is sane, or a new one."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return given.decode() if given.isalnum() and len(given) <= 64 else f"{_names.getrandbits(64):016x}"


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")  # never the path: its ids would be endless labels
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.REQUEST_S.labels(method, route, status).observe(seconds)
