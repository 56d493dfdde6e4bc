"""kill -9 at any moment: the job ends without a person, exactly one result, the right one."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.factories import npz
from tests.servers import wait_until
from tests.service import Service, running

N_IMAGES = 6000
LONGEST_PAUSE_S = {"decode": 0.3, "cluster": 2.0}
VICTIMS = [("runner",), ("worker",), ("api",), ("valkey",), ("runner", "worker", "api", "valkey", "up")]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Service:
    with running(tmp_path_factory.mktemp("chaos") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Enough random images that ingest and training take a second or two."""
    x = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 28, 28), np.uint8)
    path = tmp_path_factory.mktemp("file") / "set.npz"
    path.write_bytes(npz(x=x))
    return path


@pytest.fixture(scope="module")
def undisturbed(service, file) -> tuple[str, list[int]]:
    """A dataset, and the assignments of a training nobody disturbs."""
    dataset = service.client.upload(file)
    assert service.wait_for(dataset["job_id"])["state"] == "succeeded"
    job = service.wait_for(train(service, dataset["id"]))
    return dataset["id"], service.clusters_of(job["assignment_set_id"])


def train(service: Service, dataset_id: str) -> str:
    return service.client.train(dataset_id, "kmeans", 5, seed=3, config={"n_init": 3})["id"]


def strike(service: Service, job_id: str, phase: str, victims: tuple[str, ...]) -> None:
    """Wait for the job to be in the middle of its work, then a seeded moment, then kill."""
    wait_until(lambda: service.client.job(job_id)["phase"] == phase, 30, f"the phase {phase}")
    time.sleep(random.Random(f"{phase} {victims}").uniform(0, LONGEST_PAUSE_S[phase]))
    service.kill(*victims)
    if "up" in victims:
        service.start()
    wait_until(service.client.is_ready, 60, "the service")


@pytest.mark.parametrize("victims", VICTIMS, ids=lambda v: v[0] if len(v) == 1 else "all")
def test_killed_in_mid_ingest(service, file, victims):
    dataset = service.client.upload(file)
    strike(service, dataset["job_id"], "decode", victims)

    assert service.wait_for(dataset["job_id"])["state"] == "succeeded"

    found = service.client.dataset(dataset["id"])
    assert (found["state"], found["n_images"]) == ("ready", N_IMAGES)
    assert published(service, "ingest", dataset["job_id"]) == ["images-00000.parquet", "rejects.parquet"]
    wait_until(lambda: not service.runners_of(), 10, "the end of every runner")


@pytest.mark.parametrize("victims", VICTIMS, ids=lambda v: v[0] if len(v) == 1 else "all")
def test_killed_in_mid_train(service, undisturbed, victims):
    dataset_id, expected = undisturbed
    job_id = train(service, dataset_id)
    strike(service, job_id, "cluster", victims)

    job = service.wait_for(job_id)

    assert job["state"] == "succeeded"
    models = [model for model in service.client._all("/v1/models") if model["job_id"] == job_id]
    assert [model["id"] for model in models] == [job["model_id"]]
    assert service.clusters_of(job["assignment_set_id"]) == expected
    assert "model.onnx" in published(service, "train", job_id)
    wait_until(lambda: not service.runners_of(), 10, "the end of every runner")


def test_a_paused_worker_that_wakes_after_its_successor_changes_nothing(service, undisturbed):
    """The zombie: runner and supervisor stop past their lease, a successor publishes, then they go on."""
    dataset_id, expected = undisturbed
    job_id = train(service, dataset_id)
    wait_until(lambda: service.pids("runner"), 30, "a runner")
    worker = psutil.Process(service.pids("runner")[0]).parent()
    second = start_worker(service)
    try:
        with service.paused([worker.pid, *(child.pid for child in worker.children())]):
            job = service.wait_for(job_id)
            before = service.client.model(job["model_id"]), blobs(service, job_id)
        wait_until(lambda: not service.runners_of(), 60, "the end of the zombie")
        time.sleep(3)  # two sweeps: what the zombie wrote is gone, what was published is not
    finally:
        second.terminate()
        second.wait(30)

    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert (service.client.model(job["model_id"]), blobs(service, job_id)) == before
    assert service.client.job(job_id) == job
    assert service.clusters_of(job["assignment_set_id"]) == expected


def test_a_runner_paused_alone_loses_its_lease_and_the_job_runs_again(service, undisturbed):
    dataset_id, expected = undisturbed
    job_id = train(service, dataset_id)
    wait_until(lambda: service.pids("runner"), 30, "a runner")
    os.kill(service.pids("runner")[0], signal.SIGSTOP)

    job = service.wait_for(job_id)

    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert service.clusters_of(job["assignment_set_id"]) == expected
    wait_until(lambda: not service.runners_of(), 10, "the end of every runner")


def test_sigterm_puts_the_job_back_and_ends_the_worker(service, undisturbed):
    dataset_id, expected = undisturbed
    job_id = train(service, dataset_id)
    wait_until(lambda: service.client.job(job_id)["phase"] == "cluster", 30, "the clustering")
    worker = psutil.Process(service.pids("runner")[0]).parent()
    started = time.monotonic()

    worker.terminate()
    worker.wait(30)

    assert time.monotonic() - started < 30
    job = service.wait_for(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    states = [event["data"]["state"] for event in service.client.follow(job_id) if event["type"] == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]
    assert service.clusters_of(job["assignment_set_id"]) == expected


def start_worker(service: Service) -> psutil.Popen:
    """A second training worker on the same service."""
    first = next(psutil.Process(pid) for pid in service.pids("worker") if "train" in psutil.Process(pid).cmdline())
    command = [part.replace("train@", "second@") for part in first.cmdline()]
    return psutil.Popen(command, env=first.environ(), stdout=-3, stderr=-3)


def blobs(service: Service, job_id: str) -> dict[str, bytes]:
    """Every stored object of a job."""
    folder = service.folder / "blobs" / "t" / "default" / "train" / job_id
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(service: Service, kind: str, job_id: str) -> list[str]:
    """Names of a job's objects once the sweep has removed what dead attempts left: one prefix."""
    folder = service.folder / "blobs" / "t" / "default" / kind / job_id
    wait_until(lambda: len(list(folder.iterdir())) == 1, 15, "the sweep")
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def deep(service, tmp_path_factory) -> tuple[str, list[int]]:
    """A dataset of small images, and the assignments of a deep training nobody disturbs."""
    x = np.random.default_rng(1).integers(0, 255, (120, 8, 8), np.uint8)
    path = tmp_path_factory.mktemp("deep") / "set.npz"
    path.write_bytes(npz(x=x))
    dataset = service.client.upload(path)
    assert service.wait_for(dataset["job_id"])["state"] == "succeeded"
    job = service.wait_for(train_deep(service, dataset["id"]))
    return dataset["id"], service.clusters_of(job["assignment_set_id"])


def train_deep(service: Service, dataset_id: str) -> str:
    # Noise with five clusters: nothing to agree on, so every epoch moves images and a resume that strays shows.
    config = {"batch_size": 20, "n_hold_steps": 900, "n_epochs": 30, "stop_change": 0.0}
    return service.client.train(dataset_id, "dcae", 5, seed=3, config=config)["id"]


@pytest.mark.parametrize(("victim", "phase"), [("runner", "hold"), ("worker", "cluster")])
def test_a_deep_training_killed_midway_resumes_to_the_same_assignments(service, deep, victim, phase):
    dataset_id, expected = deep
    job_id = train_deep(service, dataset_id)
    wait_until(lambda: kept_epochs(service, job_id, phase), 60, f"a checkpoint of {phase}")

    service.kill(victim)
    job = service.wait_for(job_id)

    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert service.clusters_of(job["assignment_set_id"]) == expected
    history = service.client._call("GET", f"/v1/models/{job['model_id']}/history")["epochs"]
    told = [(epoch["phase"], epoch["epoch"]) for epoch in history]
    assert told == [("graph", 0), *(("hold", n + 1) for n in range(150)), *(("cluster", n + 1) for n in range(30))]
    wait_until(lambda: not list(service.folder.glob(f"blobs/t/default/checkpoint/{job_id}/f*")), 15, "the sweep")


def kept_epochs(service: Service, job_id: str, phase: str) -> list[str]:
    """Checkpoints of a phase that the job's events tell of."""
    page = service.client._call("GET", f"/v1/jobs/{job_id}/events", params={"limit": 1000})
    return [e["data"]["prefix"] for e in page["items"] if e["type"] == "checkpoint" and e["data"]["phase"] == phase]
