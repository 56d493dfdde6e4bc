"""Uvicorn's HTTP/1.1 with an end to its patience: heads are short and come soon, and a full desk takes nothing in.

`uvicorn --http app.api.limited_http:LimitedHttp`
"""

import asyncio
import json
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import metrics
from app.api import problems
from app.api.middleware import request_id
from app.errors import Overloaded
from app.inference.desk import DESK_FULL, Desk
from app.schemas.common import PROBLEM_TYPE, Problem

MAX_HEAD_BYTES, HEAD_S = 64 << 10, 15.0
# Longer than any client or proxy keeps an idle connection (httpx 5 s, Caddy as set up 30 s, AWS's balancer 60 s): who
# sends a request while the server closes loses it, so the server must not be the first.
KEEP_ALIVE_S = 75
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/problem+json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_FULL = (
    f"HTTP/1.1 {Overloaded.status} Too Many Requests\r\nContent-Type: {PROBLEM_TYPE}\r\n"
    f"Retry-After: {Overloaded.retry_after_s}\r\n"
).encode() + b"X-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
_REFUSED = metrics.REQUEST_S.labels("POST", "none", Overloaded.status)
_PROBLEM = b'{"type":"about:blank","title":"Request header too large","status":431,"code":"header_too_large"}'


class LimitedHttp(HttpToolsProtocol):
    """One connection; between requests it may rest for `KEEP_ALIVE_S`, whatever `--timeout-keep-alive` says.

    While the desk is full, requests for assignments are refused before anything is made of them. Refusing is then most
    of what the process does, and what it costs is missing for the answers.
    """

    _n_bytes = 0  # of the head that is being read
    _ends: asyncio.TimerHandle | None = None
    _is_refused = False  # the request whose body is coming

    def connection_made(self, transport: Any) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        self.timeout_keep_alive = KEEP_ALIVE_S
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._finish()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes of a head."""
        super().data_received(data)
        if self._ends is not None and not self._is_refused:
            self._n_bytes += len(data)
            if self._n_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE % (len(_PROBLEM), _PROBLEM))
                self.transport.close()
        elif self.timeout_keep_alive_task is None and self._is_idle():
            # What came was no request, or one that was refused: it must not keep the connection.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._ends is None:
            self._begin()

    def on_headers_complete(self) -> None:
        """A head is read."""
        self._finish()
        path = self.url.partition(b"?")[0]
        prepared = _REFUSALS.get(path[path.rfind(b"/") :])
        if prepared and self.parser.get_method() == b"POST" and self._is_idle() and not self._desk_has_room():
            self._refuse(*prepared)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of a body; those of a refused request are dropped."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come whole."""
        if not self._is_refused:
            super().on_message_complete()
            return
        self._is_refused = False
        self._finish()
        if not self.parser.should_keep_alive():
            self.transport.close()

    def _is_idle(self) -> bool:
        """Whether every request that the application was given is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _desk_has_room(self) -> bool:
        desk: Desk | None = self.app_state.get("desk")
        return desk is None or desk.has_room()

    def _refuse(self, before: bytes, after: bytes) -> None:
        started, name = time.perf_counter(), request_id(self.headers).encode()
        body = before + name + after
        self.transport.write(_FULL % (name, len(body), body))
        self._is_refused = True
        self._begin()  # its body, which nobody reads, has no longer than a head to come
        _REFUSED.observe(time.perf_counter() - started)

    def _begin(self) -> None:
        self._n_bytes = 0
        self._ends = self.loop.call_later(HEAD_S, self.transport.close)

    def _finish(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None


def _around_id(path: str) -> tuple[bytes, bytes]:
    """The problem of a full desk as JSON, before and after the request's id."""
    mark = "<id>"
    problem = Problem(
        title=Overloaded.title, status=Overloaded.status, detail=DESK_FULL, code=Overloaded.code, request_id=mark
    )
    before, _, after = json.dumps(problems.document(path, problem)).partition(mark)
    return before.encode(), after.encode()


_REFUSALS = {b"/assign": _around_id("/v1/"), b"/infer": _around_id("/v2/")}  # by the ends of paths
