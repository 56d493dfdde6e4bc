"""What the service rests on goes away and comes back: nothing accepted is lost, and the API says what is wrong."""

import contextlib
import signal
import time
from threading import Event, Thread

import psycopg
import pytest

from app.settings import Settings
from app.store.blobs import connect
from tests.chaos.jobs import until_running
from tests.factories import client_of
from tests.servers import wait_until

KINDS = ["ingest", "train", "assign"]
TRAIN_IN_CHAOS = [pytest.param(kind, marks=[pytest.mark.thorough] if kind == "train" else []) for kind in KINDS]
# One kind of job for each fault in `make test`, all in `make chaos`.
FAULTS = {500: "ingest", 503: "assign", "slow": "assign", "after": "ingest"}
FAULTS_AND_KINDS = [
    pytest.param(fault, kind, marks=[] if kind == usual else pytest.mark.thorough)
    for fault, usual in FAULTS.items()
    for kind in KINDS
]


pytestmark = pytest.mark.parametrize("service", ["production"], indirect=True)


def test_a_flushed_broker_loses_no_job(service, expected):
    jobs = [expected.submit(service, "assign") for _ in range(5)]  # more than run at a time
    until_running(service, jobs[0])
    assert service.backends.valkey.send("FLUSHALL").startswith(b"+OK")

    for job_id in jobs:
        expected.check(service, "assign", job_id)


@pytest.mark.parametrize(
    "how", ["hole", *(pytest.param(how, marks=pytest.mark.thorough) for how in ("stopped", "cut"))]
)
def test_jobs_are_accepted_without_a_broker_and_run_when_it_is_back(service, expected, how):
    with contextlib.ExitStack() as outage:
        if how == "stopped":
            service.backends.valkey.stop()
            outage.callback(service.backends.valkey.start)
        else:
            outage.enter_context(service.backends.to_valkey.failing(how))
        started = time.monotonic()
        job_id = expected.submit(service, "assign")
        assert time.monotonic() - started < 2  # no request waits for the broker
        assert service.client._http.get("/readyz").status_code == 200
        time.sleep(2)

    expected.check(service, "assign", job_id)


@pytest.mark.parametrize("kind", TRAIN_IN_CHAOS)
def test_a_restart_of_postgres_in_mid_job_loses_nothing(service, expected, kind):
    job_id = expected.submit(service, kind)
    until_running(service, job_id)
    service.backends.postgres.restart(signal.SIGQUIT)  # at once, with recovery at the start

    expected.check(service, kind, job_id)


@pytest.mark.parametrize("kind", TRAIN_IN_CHAOS)
def test_connections_ended_in_mid_transaction_lose_nothing(service, expected, kind):
    """All of them, again and again, from before the job is taken in until it has ended."""
    is_over = Event()

    def strike() -> None:
        statement = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(f"{service.backends.postgres.url}/postgres", autocommit=True) as connection:
            while not is_over.wait(0.3):
                connection.execute(statement, [service.settings.database_url.rpartition("/")[2]])

    job_id = expected.submit(service, kind)
    striker = Thread(target=strike)
    striker.start()
    time.sleep(3)
    is_over.set()
    striker.join()

    expected.check(service, kind, job_id)


def test_without_the_database_the_api_says_so_and_recovers_by_itself(service, expected):
    with service.backends.to_postgres.failing("cut"):
        response = service.client._http.get("/v1/jobs", timeout=30)
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
        assert int(response.headers["Retry-After"]) > 0
        assert service.client._http.get("/readyz", timeout=30).status_code == 503
        assert service.client._http.get("/livez").status_code == 200
        assert "clusterserve_database_up 0.0" in service.client._http.get("/metrics", timeout=30).text

    wait_until(service.client.is_ready, 30, "the database again")
    expected.check(service, "assign", expected.submit(service, "assign"))


@pytest.mark.parametrize(("fault", "kind"), FAULTS_AND_KINDS)
def test_a_storage_that_fails_every_second_time_spoils_nothing(service, expected, kind, fault):
    job_id = expected.submit(service, kind)
    before = service.backends.storage.n_faults
    with service.backends.storage.failing(fault):
        time.sleep(4)

    expected.check(service, kind, job_id)
    assert service.backends.storage.n_faults > before


def test_without_storage_metadata_still_reads_and_a_job_waits_for_it(service, expected):
    storage = service.backends.storage
    with storage.failing(503, every=1):
        job_id = expected.submit(service, "assign")
        assert service.client._http.get(f"/v1/models/{expected.model_id}").status_code == 200
        response = service.client._http.get(f"/v1/datasets/{expected.dataset_id}/images/0", timeout=60)
        assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
        wait_until(
            lambda: (service.client.job(job_id)["error"] or {}).get("code") == "storage_unavailable", 60, "the report"
        )

    assert expected.check(service, "assign", job_id)["attempt"] == 1  # an outage is no failure of the job's


def test_a_backup_of_database_and_bucket_gives_the_same_answers(service, expected, tmp_path):
    """docs/operations.md: dump first, then the bucket; restore both elsewhere."""
    postgres = service.backends.postgres
    dump = postgres.dump(service.settings.database_url.rpartition("/")[2])
    source = connect(service.settings)
    copy = Settings(
        data_dir=tmp_path,
        database_url=f"{postgres.url}/restored",
        storage_url=f"file://{tmp_path}/blobs",
        broker_url=service.settings.broker_url,
    )
    target = connect(copy)
    for key in source.keys("t/"):
        target.put(key, source.get(key))
    with psycopg.connect(f"{postgres.url}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    postgres.restore(dump, "restored")

    with client_of(copy) as restored:
        model = restored.get(f"/v1/models/{expected.model_id}").json()
        assert model == service.client.model(expected.model_id)
        image = restored.get(f"/v1/datasets/{expected.dataset_id}/images/7").content
        answer = restored.post(
            f"/v1/models/{expected.model_id}/assign", content=image, headers={"Content-Type": "image/png"}
        ).json()
    assert answer["items"][0]["cluster"] == expected.clusters[7]
