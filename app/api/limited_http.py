"""Uvicorn's HTTP/1.1 with an end to its patience: heads of requests have to be short, and come soon.

`uvicorn --http app.api.limited_http:LimitedHttp`
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES, HEAD_S = 64 << 10, 15.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/problem+json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_PROBLEM = b'{"type":"about:blank","title":"Request header too large","status":431,"code":"header_too_large"}'


class LimitedHttp(HttpToolsProtocol):
    """One connection. What lies between requests is left to Uvicorn's `--timeout-keep-alive`."""

    _n_bytes = 0  # of the head that is being read
    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._finish()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes of a head."""
        super().data_received(data)
        if self._ends is not None:
            self._n_bytes += len(data)
            if self._n_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE % (len(_PROBLEM), _PROBLEM))
                self.transport.close()
        elif self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete):
            # What came was no request: it must not keep the connection.
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
        super().on_headers_complete()

    def _begin(self) -> None:
        self._n_bytes = 0
        self._ends = self.loop.call_later(HEAD_S, self.transport.close)

    def _finish(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
