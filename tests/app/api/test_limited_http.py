"""What the server refuses by itself, seen from its sockets."""

import http.client
import json
import re
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
import uvicorn

from app.api.limited_http import KEEP_ALIVE_S
from app.main import create_app
from app.schemas.common import Problem
from app.settings import Settings
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[3]
N_BYTES = 1000


@pytest.fixture(scope="module")
def served(migrated_sqlite, broker_url, tmp_path_factory):
    """The port of an API on a real server, and its desk."""
    folder = tmp_path_factory.mktemp("served")
    settings = Settings(data_dir=folder, broker_url=broker_url, database_url=f"sqlite:///{migrated_sqlite}")
    app, port = create_app(settings), free_port()
    config = uvicorn.Config(app, port=port, http="app.api.limited_http:LimitedHttp", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 30, "the server")
    yield port, app.state.service.desk
    server.should_exit = True
    thread.join()


def begin(path: str, **headers: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {N_BYTES}\r\n{more}\r\n".encode()


def answer(connection: socket.socket) -> tuple[http.client.HTTPResponse, dict]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response, json.loads(response.read())


def drip(connection: socket.socket) -> None:
    """All of a body but its last byte, in twenty seconds."""
    for _ in range(N_BYTES - 1):
        connection.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "extra"), [("/v1/models/m/assign?embedding=true", set()), ("/v2/models/m/infer", {"error"})]
)
def test_a_full_desk_refuses_before_the_body_is_sent_and_the_connection_stays(served, path, extra):
    port, desk = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        with desk.admit(1 << 40):
            connection.sendall(begin(path, X_Request_Id="mine"))
            response, problem = answer(connection)

            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert response.headers["X-Request-Id"] == problem["request_id"] == "mine"
            assert (problem["code"], problem["status"]) == ("overloaded", 429)
            assert problem.keys() - Problem.model_fields.keys() == extra

            connection.sendall(b"x" * N_BYTES + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(connection)[0].status == 200

        connection.sendall(begin(path) + b"x" * N_BYTES)
        assert answer(connection)[1]["code"] != "overloaded"


def test_a_refused_caller_who_wants_no_more_is_let_go(served):
    port, desk = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection, desk.admit(1 << 40):
        connection.sendall(begin("/v1/models/m/assign", Connection="close") + b"x" * N_BYTES)

        assert answer(connection)[0].status == 429
        assert connection.recv(1) == b""


def test_the_body_of_a_refused_caller_is_not_waited_for_without_end(served, monkeypatch):
    monkeypatch.setattr("app.api.limited_http.HEAD_S", 0.5)
    port, desk = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection, desk.admit(1 << 40):
        connection.sendall(begin("/v1/models/m/assign"))
        assert answer(connection)[0].status == 429
        with pytest.raises(ConnectionError):
            drip(connection)


def test_an_idle_connection_outlives_what_clients_and_the_proxy_keep(served):
    """A server that closes first loses requests that are on their way."""
    port, _ = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for _ in range(2):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(connection)[0].status == 200
            time.sleep(httpx2.Limits().keepalive_expiry + 1)

    of_proxy = re.search(r"keepalive (\d+)s", (ROOT / "deploy/Caddyfile").read_text())
    assert int(of_proxy[1]) < KEEP_ALIVE_S


def test_a_full_desk_refuses_nothing_else(served):
    port, desk = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection, desk.admit(1 << 40):
        connection.sendall(b"GET /v1/models/m/assign HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(connection)[0].status == 405
        connection.sendall(begin("/v1/jobs") + b"x" * N_BYTES)
        assert answer(connection)[0].status == 422


def test_refusals_are_counted(served):
    port, desk = served
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        with desk.admit(1 << 40):
            connection.sendall(begin("/v1/models/m/assign") + b"x" * N_BYTES)
            answer(connection)
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()

        assert b'{method="POST",route="none",status="429"}' in response.read()
