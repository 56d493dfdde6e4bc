"""Workers that sleep past their lease, are told to stop, are rung too often, or have the wrong time."""

import os
import signal
import time

import psutil
import pytest

from app.queue import Bell
from tests.servers import wait_until

# What a lease decides is one statement on either database: `make test` asks the one that several machines share.
on_both_in_chaos = pytest.mark.parametrize(
    "service", [pytest.param("embedded", marks=pytest.mark.thorough), "production"], indirect=True
)


def until_clustering(service, job_id: str) -> None:
    wait_until(lambda: service.client.job(job_id)["phase"] == "cluster", 30, "the clustering")


@on_both_in_chaos
def test_a_paused_worker_that_wakes_after_its_successor_changes_nothing(service, expected):
    """The zombie: runner and supervisor stop past their lease, a successor publishes, then they go on."""
    job_id = expected.submit(service, "train")
    until_clustering(service, job_id)
    worker = service.train_worker()
    with service.second_worker():
        with service.paused([worker.pid, *(child.pid for child in worker.children())]):
            job = service.wait_for(job_id)
            before = service.client.model(job["model_id"])
        assert (job["state"], job["attempt"]) == ("succeeded", 2)
        expected.check(service, "train", job_id)

    assert service.client.model(job["model_id"]) == before
    assert service.client.job(job_id) == job


@on_both_in_chaos
def test_a_runner_paused_alone_loses_its_lease_and_the_job_runs_again(service, expected):
    job_id = expected.submit(service, "train")
    wait_until(lambda: service.pids("runner"), 30, "a runner")
    os.kill(service.pids("runner")[0], signal.SIGSTOP)

    assert expected.check(service, "train", job_id)["attempt"] == 2


@on_both_in_chaos
def test_a_deploy_in_mid_training_puts_the_job_back_within_30_seconds(service, expected):
    job_id = expected.submit(service, "train")
    until_clustering(service, job_id)
    worker = service.train_worker()
    started = time.monotonic()

    worker.terminate()
    psutil.wait_procs([worker], 40)

    assert time.monotonic() - started < 30
    assert expected.check(service, "train", job_id)["attempt"] == 1  # being sent away is no failure
    states = [event["data"]["state"] for event in service.client.follow(job_id) if event["type"] == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]


@pytest.mark.thorough
def test_the_same_ring_a_hundred_times_runs_the_job_once(service, expected):
    bell = Bell(service.train_worker().environ()["CLUSTERSERVE_BROKER_URL"])
    job_id = expected.submit(service, "train")
    for _ in range(100):
        bell.ring("train")
    job = expected.check(service, "train", job_id)
    bell.close()

    assert job["attempt"] == 1
    states = [event["data"]["state"] for event in service.client.follow(job_id) if event["type"] == "state"]
    assert states == ["queued", "running", "succeeded"]


@pytest.mark.thorough
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong_does_its_work(service, expected, tmp_path, hours):
    """Only the database's clock decides: such a worker, alone, hears the ring, keeps its lease and ends its job."""
    (tmp_path / "sitecustomize.py").write_text(
        "import datetime, time_machine\n"
        f"wrong = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours={hours})\n"
        "time_machine.travel(wrong, tick=True).start()\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), service.train_worker().environ().get("PYTHONPATH")]))
    first = service.train_worker()
    with service.second_worker(PYTHONPATH=path), service.paused([first.pid]):
        job = service.wait_for(expected.submit(service, "train"))

    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    expected.check(service, "train", job["id"])
