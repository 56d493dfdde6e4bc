"""Networks and storage that fail on command, between our processes and real servers."""

import contextlib
import http.client
import select
import socket
import socketserver
import struct
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


class Link:
    """A TCP proxy to local ports, taken in turn. `mode`: `open`; `cut` refuses and resets; `hole` swallows all."""

    def __init__(self, *targets: int) -> None:
        self._targets, self._turn = list(targets), 0
        self.mode = "open"
        self._over = Event()
        link = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                link.carry(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, request_queue_size = True, True, 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def carry(self, near: socket.socket) -> None:
        """One connection, until either side ends it or the link's mode changes."""
        mode = self.mode
        with contextlib.suppress(OSError):
            if mode == "open":
                with self._connected() as far:
                    self._pump(near, far)
            while mode == "hole" == self.mode and not self._over.is_set():
                if select.select([near], [], [], 0.05)[0] and not near.recv(65_536):
                    return
        if self.mode != "open":
            with contextlib.suppress(OSError):
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        for end in (near, far):  # what goes through in two pieces would wait 40 ms for the first one's receipt
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while self.mode != "cut" and not self._over.is_set():
            for source in select.select([near, far], [], [], 0.05)[0]:
                if not (data := source.recv(65_536)):
                    return
                if self.mode == "open":
                    (near if source is far else far).sendall(data)

    def _connected(self) -> socket.socket:
        for _ in self._targets:
            self._turn += 1
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self._targets[self._turn % len(self._targets)]), 5)
        raise ConnectionResetError

    @contextlib.contextmanager
    def failing(self, mode: str) -> Iterator[None]:
        """In that mode for the block, new and old connections alike."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "open"

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FaultyStorage:
    """An HTTP proxy to an S3 server. `fault`: None, a status to answer with, `slow`, or `after` (done, but 500 said).

    By default every second request meets it: a client that tries again gets through.
    """

    def __init__(self, target: str) -> None:
        self.fault: int | str | None = None
        self.n_faults = self._n = 0
        self._every = 2
        self._lock = Lock()
        storage, host = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                storage.answer(self, host)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - the server's own names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler, host: str) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        fault = self._draw()
        if isinstance(fault, int):
            return self._say(request, fault, [], b"")
        if fault == "slow":
            time.sleep(1)
        with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as far:
            # The signature is over the address that the client asked, so its own headers go on unchanged.
            far.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    far.putheader(name, value)
            far.endheaders(body or None)
            reply = far.getresponse()
            data = reply.read()
        if fault == "after":
            return self._say(request, 500, [], b"")
        headers = [(name, value) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        return self._say(request, reply.status, headers, data)

    def _draw(self) -> int | str | None:
        with self._lock:
            self._n += 1
            if self.fault is None or self._n % self._every:
                return None
            self.n_faults += 1
            return self.fault

    def _say(self, request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        with contextlib.suppress(OSError):
            request.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or request.command == "HEAD":
                    request.send_header(name, value)
            if request.command != "HEAD":
                request.send_header("Content-Length", str(len(data)))
            elif not headers:
                request.send_header("Content-Length", "0")
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(data)

    @contextlib.contextmanager
    def failing(self, fault: int | str, every: int = 2) -> Iterator[None]:
        """With that fault for the block, at every so many requests."""
        self.fault, self._every = fault, every
        try:
            yield
        finally:
            self.fault = None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
