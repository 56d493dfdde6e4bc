"""What happens around every request: its id, its time, and the limit of bodies that are read whole. Plain ASGI."""

import secrets
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import log, metrics
from app.api import problems

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class NameRequests:
    """Gives every request an id, its caller's if that is sane, for logs and problems; and counts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _sane(Headers(scope=scope).get("x-request-id", "")) or secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started, is_answered = time.perf_counter(), False

        async def send_named(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                MutableHeaders(scope=message).setdefault("X-Request-Id", request_id)
                _count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            with log.bound(request_id=request_id):
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


def _is_streamed(path: str, content_type: str) -> bool:
    """Whether a route counts its body's bytes as they come; JSON is always read whole."""
    if content_type.startswith("application/json"):
        return False
    return path == "/v1/datasets" or path.endswith(("/assign", "/infer")) or "/parts/" in path


def _sane(given: str) -> str:
    return given if given.isascii() and given.isalnum() and len(given) <= 64 else ""


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")  # never the path: its ids would be endless labels
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.REQUEST_S.labels(method, route, status).observe(seconds)
