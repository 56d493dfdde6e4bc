"""Figures for Prometheus, read back with its own parser; and one request followed through the logs."""

import json
import subprocess
import sys

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.factories import npz
from tests.servers import free_port, wait_until
from workers.supervisor import log_file


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_jobs_and_queues_are_those_of_the_whole_service(client, work):
    client.post("/v1/datasets", content=npz())
    waiting = figures(client.get("/metrics").text)
    work()
    ended = figures(client.get("/metrics").text)

    assert waiting["clusterserve_jobs", "ingest", "queued"] == 1
    assert waiting["clusterserve_queue_age_seconds", "io"] >= 0
    assert ended["clusterserve_jobs", "ingest", "succeeded"] == 1
    assert ("clusterserve_queue_age_seconds", "io") not in ended


def test_requests_are_counted_by_route_and_status_never_by_path(client):
    name = "clusterserve_http_request_seconds_count"
    before = figures(client.get("/metrics").text).get((name, "GET", "/v1/jobs/{job_id}", "404"), 0)
    for job_id in ("job_a", "job_b"):
        client.get(f"/v1/jobs/{job_id}")
    client.get("/nowhere/at/all")
    found = figures(client.get("/metrics").text)

    assert found[name, "GET", "/v1/jobs/{job_id}", "404"] == before + 2
    assert not [key for key in found if "nowhere" in str(key) or "job_a" in str(key)]


def test_a_runners_times_count_as_its_supervisors(client, work):
    """The test is the supervisor here: what runner processes read and wrote shows in its own figures."""
    name = "clusterserve_storage_seconds_count"
    created = client.post("/v1/datasets", content=npz()).json()
    before = figures(client.get("/metrics").text)
    work()
    found = figures(client.get("/metrics").text)

    assert client.get(f"/v1/datasets/{created['id']}").json()["state"] == "ready"
    assert found[name, "put"] >= before.get((name, "put"), 0) + 2  # images and rejects
    assert found["clusterserve_attempts_total", "ingest", "succeeded"] > before.get(
        ("clusterserve_attempts_total", "ingest", "succeeded"), 0
    )


def test_one_request_can_be_followed_into_the_runners_log(settings, client, database, work):
    answered = client.post("/v1/datasets", content=b"\x93NUMPY nonsense" * 10, headers={"X-Request-Id": "follow4me"})
    assert answered.headers["X-Request-Id"] == "follow4me"
    created = client.post("/v1/datasets", content=npz(), headers={"X-Request-Id": "follow5me"}).json()

    from app.store.tables import JobRow

    with database.read() as session:
        assert session.get_one(JobRow, created["job_id"]).request_id == "follow5me"
    work()
    assert "follow5me" in log_file(settings, created["job_id"], 1).read_text()


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_worker_answers_prometheus_and_logs_request_and_job_together(settings, client):
    port = free_port()
    environment = settings.model_copy(
        update={"worker_metrics": f"127.0.0.1:{port}", "log_format": "json", "reconcile_s": 0.5}
    ).environment()
    command = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--pool", "threads"]
    command += ["--concurrency", "1", "-Q", "io,train", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    with (settings.data_dir / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment | _path(), stdout=log, stderr=log)
    try:
        created = client.post("/v1/datasets", content=npz(), headers={"X-Request-Id": "together"}).json()
        wait_until(lambda: client.get(f"/v1/datasets/{created['id']}").json()["state"] == "ready", 60, "the ingest")
        found = figures(httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
    finally:
        worker.terminate()
        worker.wait(40)

    assert found["clusterserve_attempts_total", "ingest", "succeeded"] == 1
    lines = [line for line in (settings.data_dir / "worker.log").read_text().splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    claimed = next(line for line in told if line["event"] == "job_claimed")
    assert (claimed["request_id"], claimed["job_id"]) == ("together", created["job_id"])


def _path() -> dict[str, str]:
    import os

    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
