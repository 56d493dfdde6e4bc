"""Large assignments run in parts: the same result as in one piece, whatever happens to a part."""

import itertools

import numpy as np
import pytest
from sqlalchemy import select

from app.store import claims, families, jobs
from app.store.claims import Outcome
from app.store.sweep import sweep
from app.store.tables import JobRow
from tests.factories import LIMITS, add_model, attempt, blobs_of_pixels, claim, npy, npz
from tests.marks import production_first
from workers.supervisor import record


@pytest.fixture
def settings(settings):
    """Parts of ten images."""
    return settings.model_copy(update={"assign_part_images": 10})


@pytest.fixture
def run_one(settings, database):
    """Run the first queued job only."""

    def run() -> None:
        held = claim(database)
        record(database, held, attempt(settings, database, held), settings)

    return run


@pytest.fixture
def model(client, database, blobs) -> str:
    return add_model(database, blobs)


def pairs(n: int, seed: int = 0) -> bytes:
    """Vectors of two positive numbers: which is larger is the cluster."""
    return npy(np.random.default_rng(seed).random((n, 2)).astype(np.float32) + 0.1)


def start(client, model: str, **source) -> dict:
    created = client.post("/v1/jobs", json={"kind": "assign", "model_id": model, **source})
    assert created.status_code == 201, created.text
    return created.json()


def job_of(client, job: dict) -> dict:
    return client.get(f"/v1/jobs/{job['id']}").json()


def rows_of(client, job: dict, **params) -> list[dict]:
    found = client.get(f"/v1/assignment-sets/{job_of(client, job)['assignment_set_id']}/assignments", params=params)
    return found.json()["items"]


def parts_of(database, job: dict) -> list[JobRow]:
    with database.read() as session:
        found = families.parts_in_order(session, job["id"])
        session.expunge_all()
        return found


@production_first
def test_parts_give_what_one_piece_gives(client, make_dataset, work, database, blobs):
    model = trained_on_images(client, make_dataset, work)
    dataset = make_dataset(npz(47, seed=9))
    job = start(client, model, dataset_id=dataset["id"])
    assert (job["state"], job["n_parts"]) == ("queued", 5)
    assert [listed["id"] for listed in client.get("/v1/jobs", params={"kind": "assign"}).json()["items"]] == [job["id"]]
    work()

    done = job_of(client, job)
    assert (done["state"], done["progress"]) == ("succeeded", 1.0)
    single = client.post(f"/v1/models/{model}/assign", content=npz(x=blobs_of_pixels(47, seed=9)[0])).json()["items"]
    rows = rows_of(client, job, limit=100)
    assert [row["index"] for row in rows] == list(range(47))
    assert [row["cluster"] for row in rows] == [item["cluster"] for item in single]
    np.testing.assert_allclose([row["confidence"] for row in rows], [item["confidence"] for item in single], atol=1e-6)
    for cluster in range(3):
        own = [row for row in rows if row["cluster"] == cluster]
        own.sort(key=lambda row: (-row["confidence"], row["index"]))
        assert rows_of(client, job, limit=100, cluster=cluster) == own
    found = client.get(f"/v1/assignment-sets/{done['assignment_set_id']}").json()
    assert (found["n_images"], found["scores"]["acc"]) == (47, 1.0)
    sweep(database, blobs, keep_checkpoints_s=3600)
    assert rows_of(client, job, limit=100) == rows
    assert [key for part in parts_of(database, job) for key in blobs.keys(f"t/default/assign/{part.id}/")] == []


@pytest.fixture
def falling_ids(monkeypatch):
    """Each job's id before that of the last one, as ids of one millisecond may be."""
    numbers = itertools.count(10**6, -1)
    monkeypatch.setattr(jobs, "new_id", lambda prefix: f"{prefix}_{next(numbers):026d}")


@production_first
@pytest.mark.usefixtures("falling_ids")
def test_parts_are_put_together_in_the_order_of_their_images(client, make_dataset, work, model):
    job = start(client, model, dataset_id=make_dataset(pairs(47))["id"])
    assert job["n_parts"] == 5
    work()

    rows = rows_of(client, job, limit=100)
    assert [row["index"] for row in rows] == list(range(47))
    single = client.post(f"/v1/models/{model}/assign", content=pairs(47)).json()["items"]
    assert [row["cluster"] for row in rows] == [item["cluster"] for item in single]


def trained_on_images(client, make_dataset, work) -> str:
    body = {"kind": "train", "dataset_id": make_dataset(npz(30))["id"], "method": "kmeans", "config": {"n_clusters": 3}}
    job = client.post("/v1/jobs", json=body).json()
    work()
    found: str = job_of(client, job)["model_id"]
    return found


@production_first
def test_a_lost_part_is_done_again_and_the_others_are_not(client, make_dataset, work, model, database):
    job = start(client, model, dataset_id=make_dataset(pairs(30))["id"])
    held = claim(database)
    database.clock_offset += LIMITS.lease_s * 2 * np.timedelta64(1, "s").astype(object)
    with database.write() as session:
        for ended in claims.requeue_lost(session):
            families.pass_on_end(session, ended)
    work()

    parts = parts_of(database, job)
    assert job_of(client, job)["state"] == "succeeded"
    assert [(part.id == held.job_id, part.attempt) for part in parts] == [(True, 2), (False, 1), (False, 1)]
    assert len(rows_of(client, job, limit=100)) == 30


@production_first
def test_a_part_that_fails_for_good_ends_the_job_and_a_retry_keeps_the_others(
    client, make_dataset, work, model, database
):
    job = start(client, model, dataset_id=make_dataset(pairs(30))["id"])
    first = claim(database)
    with database.write() as session:
        families.pass_on_end(session, claims.finish(session, first, Outcome("succeeded")))
    second = claim(database)
    with database.write() as session:
        error = {"code": "disk_full", "message": "the worker's disk is full"}
        families.pass_on_end(session, claims.finish(session, second, Outcome("failed", error=error)))

    failed = job_of(client, job)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "disk_full")
    assert [part.state for part in parts_of(database, job)] == ["succeeded", "failed", "cancelled"]
    with database.write() as session:  # the first was ended without work: let it be done
        session.get_one(JobRow, first.job_id).state = "failed"
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 202
    work()
    assert job_of(client, job)["state"] == "succeeded"
    assert len(rows_of(client, job, limit=100)) == 30


@production_first
def test_finished_parts_outlive_a_failure_and_are_not_done_again(client, make_dataset, work, model, run_one):
    job = start(client, model, dataset_id=make_dataset(pairs(30))["id"])
    database, blobs = (getattr(client.app.state.service, name) for name in ("database", "blobs"))
    run_one()
    second = claim(database)
    with database.write() as session:
        families.pass_on_end(
            session, claims.finish(session, second, Outcome("failed", error={"code": "x", "message": "x"}))
        )
    sweep(database, blobs, keep_checkpoints_s=0)

    client.post(f"/v1/jobs/{job['id']}/retry")
    work()

    parts = parts_of(database, job)
    assert job_of(client, job)["state"] == "succeeded"
    assert [part.fence for part in parts] == [1, 2, 1]
    assert len(rows_of(client, job, limit=100)) == 30


@production_first
def test_cancelling_ends_every_part_and_nothing_is_published(client, make_dataset, work, model, database):
    job = start(client, model, dataset_id=make_dataset(pairs(30))["id"])
    held = claim(database)

    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"

    assert [part.state for part in parts_of(database, job)] == ["cancelling", "cancelled", "cancelled"]
    assert client.post(f"/v1/jobs/{job['id']}/retry").json()["code"] == "wrong_state"
    with database.write() as session:
        families.pass_on_end(session, claims.finish(session, held, Outcome("succeeded")))
    assert work() == 0
    assert (job_of(client, job)["state"], job_of(client, job)["assignment_set_id"]) == ("cancelled", None)
    part = parts_of(database, job)[0]
    assert client.post(f"/v1/jobs/{part.id}/retry").json()["code"] == "wrong_state"
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 202
    work()
    assert job_of(client, job)["state"] == "succeeded"


@production_first
@pytest.mark.parametrize("n", [8, 25])
def test_an_upload_is_assigned_without_naming_a_dataset(client, work, model, n):
    upload = client.post("/v1/uploads", json={"filename": "new.npy"}).json()
    client.put(f"/v1/uploads/{upload['id']}/parts/1", content=pairs(n))
    assert client.post(f"/v1/uploads/{upload['id']}/complete").status_code == 200

    job = start(client, model, upload_id=upload["id"])
    work()

    done = job_of(client, job)
    assert (done["state"], done["n_parts"]) == ("succeeded", 0 if n == 8 else 3)
    assert len(rows_of(client, job, limit=100)) == n
    assert client.get(f"/v1/datasets/{done['dataset_id']}").json()["n_images"] == n


def test_an_upload_the_model_cannot_take_fails_with_the_reason(client, work, model):
    for data, code in ((npy(np.zeros((30, 3), np.float32)), "wrong_data"), (b"text", "unsupported_format")):
        upload = client.post("/v1/uploads", json={"filename": "f"}).json()
        client.put(f"/v1/uploads/{upload['id']}/parts/1", content=data)
        client.post(f"/v1/uploads/{upload['id']}/complete")
        created = client.post("/v1/jobs", json={"kind": "assign", "model_id": model, "upload_id": upload["id"]})
        if code == "unsupported_format":
            assert (created.status_code, created.json()["code"]) == (415, code)
            continue
        work()
        assert job_of(client, created.json())["error"]["code"] == code


def test_a_source_must_be_named_once(client, model):
    for body in ({}, {"dataset_id": "ds_1", "upload_id": "upl_1"}):
        response = client.post("/v1/jobs", json={"kind": "assign", "model_id": model, **body})
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


def test_parts_of_a_running_job_pass_the_tenants_limit_and_others_do_not(client, make_dataset, model, database):
    limits = claims.ClaimLimits(lease_s=60, max_running_per_tenant=1)
    dataset = make_dataset(pairs(30))["id"]
    first, second = (start(client, model, dataset_id=dataset) for _ in range(2))

    def take():
        with database.write() as session:
            return claims.claim_next(session, "io", "test", limits)

    held = take()
    with database.write() as session:
        claims.record_progress(session, held, "step", {"progress": 0.5})
    taken = [held, take(), take()]

    assert {found.parent_id for found in taken} == {first["id"]}
    assert take() is None  # the second job waits for its turn
    assert job_of(client, first)["state"] == "running"
    assert 0.1 < job_of(client, first)["progress"] < 0.2
    assert job_of(client, second)["state"] == "queued"


def test_no_part_is_claimed_before_its_job_is_ready_and_the_job_not_before_its_parts(
    client, make_dataset, model, database
):
    job = start(client, model, dataset_id=make_dataset(pairs(30))["id"])

    ids = [claim(database).job_id for _ in range(3)]

    assert claim(database) is None
    with database.read() as session:
        assert job["id"] not in ids
        assert set(session.scalars(select(JobRow.id).where(JobRow.parent_id == job["id"]))) == set(ids)
