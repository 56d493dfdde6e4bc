"""How jobs are taken in: limits, and the queue each goes to."""

import numpy as np
import pytest

from app.store import Database
from app.store.migrate import OldSchema, downgrade
from app.store.tables import JobRow
from tests.factories import client_of, npy, npz, run_jobs


@pytest.fixture
def limited(settings):
    with client_of(settings.model_copy(update={"max_queued_jobs": 2})) as found:
        yield found


def test_one_job_too_many_is_refused_until_there_is_room(limited, settings, database):
    made = [limited.post("/v1/datasets", content=npz()) for _ in range(3)]

    assert [response.status_code for response in made] == [201, 201, 429]
    assert (made[2].json()["code"], made[2].headers["Retry-After"]) == ("too_many_queued_jobs", "10")
    assert len(limited.get("/v1/datasets").json()["items"]) == 2  # nothing stays of what was refused
    run_jobs(settings, database)
    assert limited.post("/v1/datasets", content=npz()).status_code == 201


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("has_gpus", "asked", "queue"),
    [
        (True, {"method": "dcae"}, "train-gpu"),
        (True, {"method": "kmeans"}, "train"),
        (True, {"method": "dcae", "device": "cpu"}, "train"),
        (True, {"method": "kmeans", "device": "gpu"}, "train-gpu"),
        (False, {"method": "dcae"}, "train"),
        (False, {"method": "dcae", "device": "gpu"}, None),
    ],
)
def test_a_training_goes_to_the_workers_it_gains_from(settings, database, has_gpus, asked, queue):
    with client_of(settings.model_copy(update={"gpu_queue": has_gpus})) as client:
        dataset = client.post("/v1/datasets", content=npz()).json()
        run_jobs(settings, database)
        body = {"kind": "train", "dataset_id": dataset["id"], "config": {"n_clusters": 3}, **asked}
        response = client.post("/v1/jobs", json=body)

    if queue is None:
        assert (response.status_code, response.json()["code"]) == (422, "no_gpu_queue")
        return
    with database.read() as session:
        assert session.get_one(JobRow, response.json()["id"]).queue == queue


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_without_a_method_images_and_vectors_get_their_own_default(settings, client, work):
    for data, method in ((npz(), "graph-selflabel"), (npy(np.random.default_rng(0).normal(size=(12, 3))), "kmeans")):
        dataset = client.post("/v1/datasets", content=data).json()
        work()
        body = {"kind": "train", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
        assert client.post("/v1/jobs", json=body, params={"dry_run": True}).json()["method"] == method


def test_the_api_refuses_to_start_on_an_old_schema_and_names_the_command(settings):
    database = Database(settings.resolved_database_url)
    downgrade(database, "0001")
    database.close()

    with pytest.raises(OldSchema, match="clusterserve migrate"), client_of(settings):
        pass
