"""Many jobs, many clients, a long time: what stays flat must stay flat."""

import asyncio
import gc
import statistics
import time
from dataclasses import replace
from datetime import timedelta
from threading import Event

import httpx2
import psutil
import pytest
from sqlalchemy import func, select

from app.store import Database, claims
from app.store.claims import Outcome
from app.store.retention import collect
from app.store.tables import IdempotencyRow, JobEventRow, JobRow, UploadRow
from tests import production
from tests.app.store.test_claims import finish
from tests.factories import LIMITS, add_job, claim, client_of, npz
from tests.servers import wait_until
from workers.supervisor import Supervisor, record

STUB = (
    "sh",
    "-c",
    """echo '{"type": "phase", "phase": "work", "progress": 0.5}'; echo '{"type": "result", "result": {}}'""",
)


def key_of(service) -> dict[str, str]:
    return {"Authorization": service.client._http.headers["Authorization"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with (
        production.backends() as found,
        production.running(
            tmp_path_factory.mktemp("load") / "data", found, CLUSTERSERVE_MAX_QUEUED_JOBS="5000",
            CLUSTERSERVE_MAX_RUNNING_JOBS="100", CLUSTERSERVE_SWEEP_S="300",
        ) as running,
    ):  # fmt: skip
        yield running


def test_the_cost_of_a_claim_does_not_grow_with_the_jobs_that_were(database):
    """1,000 queued at once: the last 100 claims take no more than twice what the first 100 took."""
    for _ in range(1_000):
        add_job(database)
    seconds = []
    for _ in range(1_000):
        started = time.perf_counter()
        with database.write() as session:
            held = claims.claim_next(session, "io", "test", LIMITS)
        seconds.append(time.perf_counter() - started)
        finish(database, held, Outcome("failed", error={"code": "stub", "message": ""}))

    first, last = statistics.median(seconds[:100]), statistics.median(seconds[-100:])
    print(f"claims: p50 of the first 100 {first * 1e3:.2f} ms, of the last {last * 1e3:.2f} ms")
    assert claim(database) is None
    assert last <= 2 * first


def test_a_thousand_tiny_ingests_by_two_workers_each_run_once(service):
    """One file, a thousand datasets; a second `io` worker beside the composed one."""
    container = next(one for one in service.containers if one.service == "worker-io")
    command = [part.replace("io@", "io2@") for part in container.command]
    more = production.Container("worker-io", command, container.environment, service.folder / "io2")
    more.environment = {**more.environment, "CLUSTERSERVE_WORKER_METRICS": ""}
    data, url = npz(4), str(service.client._http.base_url)
    started = time.monotonic()

    async def submit() -> list[str]:
        async with httpx2.AsyncClient(base_url=url, headers=key_of(service), timeout=120) as client:
            gate = asyncio.Semaphore(16)

            async def one() -> str:
                async with gate:
                    response = await client.post("/v1/datasets", content=data)
                    assert response.status_code == 201, response.text
                    return response.json()["job_id"]

            return await asyncio.gather(*(one() for _ in range(1_000)))

    jobs = asyncio.run(submit())
    submitted = time.monotonic()
    service.containers.append(more)
    more.start()
    wait_until(lambda: not _unfinished(service), 3_000, "the end of all")
    print(f"submitted in {submitted - started:.0f} s, all ended {time.monotonic() - submitted:.0f} s later")

    found = {job["id"]: job for job in service.client._all("/v1/jobs")}
    assert {(found[job]["state"], found[job]["attempt"]) for job in jobs} == {("succeeded", 1)}


def _unfinished(service) -> bool:
    states = ("queued", "running")
    get = service.client._http.get
    return any(get("/v1/jobs", params={"state": state, "limit": 1}).json()["items"] for state in states)


def test_a_hundred_clients_polling_a_thousand_jobs_are_served_evenly(service):
    """On Postgres: no 5xx, 304 where nothing changed, p99 at most ten times p50."""
    database = Database(service.containers[0].environment["CLUSTERSERVE_DATABASE_URL"])
    jobs = [add_job(database, queue="nobody listens") for _ in range(1_000)]
    database.close()
    seconds: list[float] = []
    statuses: list[int] = []

    async def poll(number: int, client: httpx2.AsyncClient, until: float) -> None:
        etags: dict[str, str] = {}
        at = number * 10
        await asyncio.sleep(number * 0.005)  # people do not all begin in one moment
        while time.monotonic() < until:
            job_id = jobs[(at := at + 1) % 1_000] if at % 2 else jobs[number * 10]
            headers = {"If-None-Match": etags[job_id]} if job_id in etags else {}
            started = time.perf_counter()
            response = await client.get(f"/v1/jobs/{job_id}", headers=headers)
            seconds.append(time.perf_counter() - started)
            statuses.append(response.status_code)
            assert response.status_code == (304 if headers else 200)
            etags[job_id] = response.headers["ETag"]
            await asyncio.sleep(0.5)

    async def run() -> None:
        limits = httpx2.Limits(max_connections=100)
        facts = {"base_url": service.client._http.base_url, "headers": key_of(service)}
        async with httpx2.AsyncClient(**facts, timeout=30, limits=limits) as client:
            until = time.monotonic() + 30
            await asyncio.gather(*(poll(number, client, until) for number in range(100)))

    asyncio.run(run())
    p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
    print(f"{len(seconds)} polls, p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, 304s {statuses.count(304)}")
    assert p99 <= 10 * p50


def test_a_week_of_ten_thousand_jobs_leaves_tables_and_memory_as_they_were(settings, database, blobs):
    """Stub runners and a clock that runs ahead by a minute a job; retention of a day."""
    kept = settings.model_copy(
        update={
            "keep_events_s": 86_400, "keep_jobs_s": 86_400, "idempotency_s": 86_400, "max_queued_jobs": 10,
            "abandoned_upload_s": 86_400,
        }
    )  # fmt: skip
    own, sizes, memory = psutil.Process(), [], []
    with client_of(kept) as client:
        for number in range(10_000):
            database.clock_offset += timedelta(seconds=60)
            client.app.state.service.database.clock_offset = database.clock_offset
            client.post("/v1/uploads", json={"filename": "x"}, headers={"Idempotency-Key": f"key {number}"})
            job_id = add_job(database)
            held = claim(database)
            outcome = Supervisor(kept, database, held, Event(), command=STUB).run()
            record(database, held, replace(outcome, verdict="cancelled"), kept)  # a stub leaves nothing to publish
            client.get(f"/v1/jobs/{job_id}")
            if number % 500 == 499:
                collect(database, blobs, kept)
                gc.collect()
                sizes.append(_rows(database))
                memory.append(own.memory_info().rss / 1e6)
    print("rows of jobs, events, keys, uploads:", sizes)
    print("MB:", [round(one) for one in memory])

    settled = sizes[4:]
    assert max(jobs for jobs, *_ in settled) <= 2_000  # a day's 1,440 and what came since the last collection
    assert max(events for _, events, *_ in settled) <= 5 * 2_000
    assert max(max(keys, uploads) for *_, keys, uploads in settled) <= 2_000
    # API and worker in one process here: the second half of the week needs no more than the first, within noise.
    assert statistics.mean(memory[-5:]) <= statistics.mean(memory[5:10]) + 5


def _rows(database) -> tuple[int, ...]:
    with database.read() as session:
        tables = (JobRow, JobEventRow, IdempotencyRow, UploadRow)
        return tuple(session.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
