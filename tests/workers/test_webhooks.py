"""The ends of jobs, told to whoever asked: signed as others check it, and never into private networks."""

import contextlib
import json
import socket
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app import outward
from app.store import Database, webhooks
from tests.factories import client_of, npz, run_jobs
from tests.marks import production_first
from workers.webhooks import Courier


@pytest.fixture
def receiver():
    """A server that keeps what it gets and answers what it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.got.append((dict(self.headers), body))
            self.send_response(server.answers.pop(0) if server.answers else 200)
            self.send_header("Location", server.url + "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answers, server.url = [], [], f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def private(settings):
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def told(private, database, receiver):
    """A webhook at the receiver, and a dataset that was ingested after it was made."""
    with client_of(private) as client:
        webhook = client.post("/v1/webhooks", json={"url": receiver.url + "/hook"}).json()
        dataset = client.post("/v1/datasets", content=npz(12)).json()
        run_jobs(private, database)
        yield client, webhook, dataset


def test_the_end_of_a_job_is_told_once_with_a_signature_that_others_accept(told, private, database, receiver):
    client, webhook, dataset = told
    courier = Courier(private, database)

    n_sent = courier.deliver(), courier.deliver()
    headers, body = receiver.got[0]

    assert n_sent == (1, 0)
    assert len(receiver.got) == 1
    message = Webhook(webhook["secret"]).verify(body, {name.lower(): value for name, value in headers.items()})
    assert (message["type"], message["data"]["id"]) == ("job.succeeded", dataset["job_id"])
    with pytest.raises(WebhookVerificationError):
        Webhook(outward.new_secret()).verify(body, {name.lower(): value for name, value in headers.items()})
    delivery = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["items"][0]
    assert (delivery["state"], delivery["status"], delivery["id"]) == ("delivered", 200, headers["webhook-id"])
    assert "secret" not in client.get(f"/v1/webhooks/{webhook['id']}").json()


def test_a_message_that_is_not_taken_comes_again_after_growing_pauses_and_at_last_no_more(
    told, private, database, receiver
):
    client, webhook, _ = told
    receiver.answers = [500, 302, 404, *[500] * 20]
    pauses, later = [], timedelta(0)
    for _ in range(20):
        late = Database(private.resolved_database_url, clock_offset=later)
        sent = Courier(private, late).deliver()
        if sent:
            pauses.append(later.total_seconds())
        late.close()
        later += timedelta(hours=3)

    states = client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["items"]
    assert [item["state"] for item in states] == ["failed"]
    assert len(receiver.got) == 1 + len(webhooks.PAUSES_S) == len(pauses)  # 302 was not followed
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {states[0]["id"]}


@production_first
def test_a_trainings_message_names_its_model(told, private, database, receiver):
    client, _, dataset = told
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
    client.post("/v1/jobs", json=body)
    run_jobs(private, database)
    model = client.get("/v1/models").json()["items"][0]

    Courier(private, database).deliver()

    data = next(data for _, body in receiver.got if (data := json.loads(body)["data"])["kind"] == "train")
    assert (data["model_id"], data["assignment_set_id"]) == (model["id"], model["assignment_set_id"])


def test_a_receiver_that_drips_costs_ten_seconds_and_the_others_nothing(told, private, database, receiver, monkeypatch):
    """An answer of a byte every .3 s never times out by itself."""
    client, webhook, _ = told
    monkeypatch.setattr(outward, "TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as dripping:
        url = f"http://127.0.0.1:{dripping.getsockname()[1]}/"
        slow = client.post("/v1/webhooks", json={"url": url}).json()
        is_over = threading.Event()

        def drip() -> None:
            connection, _ = dripping.accept()
            with connection, contextlib.suppress(OSError):
                while not is_over.wait(0.3):
                    connection.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        client.post("/v1/datasets", content=npz(12))
        run_jobs(private, database)
        started = time.monotonic()
        Courier(private, database).deliver()
        took = time.monotonic() - started
        is_over.set()
        thread.join()

    states = {
        one["id"]: [item["state"] for item in client.get(f"/v1/webhooks/{one['id']}/deliveries").json()["items"]]
        for one in (webhook, slow)
    }
    assert took < 5
    assert states == {webhook["id"]: ["delivered", "delivered"], slow["id"]: ["waiting"]}


def test_a_removed_webhook_is_told_nothing_more(told, private, database, receiver):
    client, webhook, _ = told

    assert client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    assert Courier(private, database).deliver() == 0
    assert receiver.got == []
    assert client.get(f"/v1/webhooks/{webhook['id']}").status_code == 404


def test_two_couriers_send_each_message_once(told, private, database, receiver):
    client, _, _ = told
    for _ in range(8):
        job_id = client.post("/v1/datasets", content=npz(12)).json()["job_id"]
        client.post(f"/v1/jobs/{job_id}/cancel")
    run_jobs(private, database)
    couriers = [Courier(private, database) for _ in range(2)]
    threads = [threading.Thread(target=courier.deliver) for courier in couriers]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    couriers[0].deliver()

    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert len(ids) == len(set(ids)) == 9
    assert {json.loads(body)["type"] for _, body in receiver.got} == {"job.succeeded", "job.cancelled"}


REFUSED = [
    "http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://10.1.2.3/", "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[fd00::1]/",
    "https://[64:ff9b::a9fe:a9fe]/", "https://[::a00:1]/", "https://[2002:a00:1::]/", "https://[fec0::1]/",
    "https://93.184.215.14/\x01", "https://b\u00fccher.example/", "https://1\u30021\u30021\u30021/",
    "https://0.0.0.0/", "https://224.0.0.1/", "https://2130706433/", "https://user:word@93.184.215.14/", "https:///x",
    "ftp://93.184.215.14/", "https://93.184.215.14:99999/", "nonsense", "https://no-such-host.invalid/",
]  # fmt: skip


def test_addresses_of_private_networks_and_other_schemes_are_refused(light_client):
    for url in REFUSED:
        response = light_client.post("/v1/webhooks", json={"url": url})

        assert (response.status_code, response.json()["code"]) == (422, "bad_webhook_url"), url


def test_a_name_that_means_another_address_by_now_is_refused_at_delivery(told, private, database, receiver):
    """What was allowed when it was made is judged again when it is sent."""
    _, webhook, _ = told
    strict = private.model_copy(update={"webhook_allow_private": False})

    Courier(strict, database).deliver()

    assert receiver.got == []
    with database.read() as session:
        row = session.scalars(webhooks.deliveries(webhook["id"])).one()
        assert (row.state, row.status, row.attempt) == ("waiting", None, 1)


def test_an_open_address_is_asked_by_its_number_and_named_by_its_host():
    to = outward.target("https://93.184.215.14/hook?x=1", allow_private=False)

    assert to == outward.Target("https://93.184.215.14:443/hook?x=1", "93.184.215.14", "93.184.215.14")
