"""Twins: the same creating request many times at once, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import OperationalError

from app.store import idempotency
from tests.factories import npz


def test_twenty_twins_at_once_make_one_job(client, make_dataset):
    dataset = make_dataset()
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}

    def create(_: int):
        return client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "twins"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(create, range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs", params={"kind": "train"}).json()["items"]) == 1


def test_twin_uploads_make_one_dataset_and_leave_one_upload(client, blobs):
    data = npz(50)

    def create(_: int):
        return client.post("/v1/datasets", content=data, headers={"Idempotency-Key": "twins"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list(blobs.keys("t/"))) == 1


def test_a_request_that_failed_leaves_its_key_free(client, make_dataset):
    dataset = make_dataset()
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 99}}
    headers = {"Idempotency-Key": "k"}
    assert client.post("/v1/jobs", json=body, headers=headers).status_code == 409

    body["config"] = {"n_clusters": 3}

    assert client.post("/v1/jobs", json=body, headers=headers).status_code == 201


def test_texts_that_a_database_cannot_store_are_refused_or_stored(client):
    created = client.post("/v1/datasets", params={"name": "a\0b"}, content=npz(6))
    missing = client.get("/v1/jobs/job_%00")

    assert created.status_code in (201, 422)
    assert missing.status_code in (404, 422)


class Said(Exception):
    """What a driver raises; Postgres says why in `sqlstate`."""

    sqlstate: str | None = None


@pytest.mark.parametrize(
    ("state", "text", "is_busy"),
    [
        ("55P03", "canceling statement due to lock timeout", True),
        (None, "database is locked", True),
        ("57P01", "terminating connection due to administrator command", False),
        ("08006", "server closed the connection unexpectedly", False),
        (None, "connection refused", False),
    ],
)
def test_only_a_lock_that_was_waited_for_in_vain_is_a_busy_twin(state, text, is_busy):
    said = Said(text)
    said.sqlstate = state

    assert idempotency.is_lock_timeout(OperationalError("INSERT", {}, said)) is is_busy
