"""What a job would be and take, without there being one."""

import pytest

from tests.marks import production_first


def ask(client, dataset, **more):
    body = {"kind": "train", "dataset_id": dataset["id"], "config": {"n_clusters": 3}, **more}
    return client.post("/v1/jobs", json=body, params={"dry_run": True})


@pytest.fixture
def dataset(client, make_dataset):
    return make_dataset(n_images=30)


def test_a_dry_run_tells_what_would_be_done_and_leaves_nothing(client, dataset, settings):
    answer = ask(client, dataset, method="depict")

    assert answer.status_code == 200
    found = answer.json()
    assert (found["method"], found["profile"], found["n_images"], found["n_own"]) == ("depict", "fast", 30, 0)
    assert found["config"]["n_clusters"] == 3
    assert 0 < found["seconds_low"] < found["seconds_high"]
    assert 500e6 < found["memory_bytes"] < 2e9
    assert [job["kind"] for job in client.get("/v1/jobs").json()["items"]] == ["ingest"]


@production_first
def test_a_recipe_nobody_has_run_is_not_guessed_and_one_that_was_run_is_measured(client, dataset, work):
    before = ask(client, dataset, method="kmeans").json()
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    work()
    job = client.get(f"/v1/jobs/{job_id}").json()
    after = ask(client, dataset, method="kmeans").json()

    assert (before["seconds_low"], before["n_own"]) == (None, 0)
    seconds = _seconds(job["finished_at"]) - _seconds(job["started_at"])
    assert after["n_own"] == 1
    assert after["seconds_low"] < seconds < after["seconds_high"]


def test_what_is_wrong_with_a_job_is_wrong_in_a_dry_run(client, dataset):
    assert ask(client, dataset, method="nobody").json()["code"] == "unknown_method"
    assert ask(client, dataset, config={"n_clusters": 31}).json()["code"] == "too_few_images"
    assert ask(client, {"id": "ds_x"}).status_code == 404


def _seconds(text: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()
