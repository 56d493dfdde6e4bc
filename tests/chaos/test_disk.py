"""A full disk: writes fail in the middle, and nothing broken is published."""

import resource

import psutil
import pytest

from tests.chaos.jobs import until_running
from tests.servers import wait_until

FULL_AT = 100_000  # bytes a file may reach: less than an image shard, more than a row


pytestmark = [pytest.mark.thorough, pytest.mark.parametrize("service", ["embedded"], indirect=True)]


@pytest.mark.parametrize("kind", ["ingest", "train", "assign"])
def test_a_job_that_finds_the_disk_full_ends_well_once_there_is_room(service, expected, kind):
    """The runner's files stop growing, as they do on a full disk; the next attempt has room."""
    job_id = expected.submit(service, kind)
    until_running(service, job_id)
    wait_until(lambda: service.pids("runner"), 30, "a runner")
    for pid in service.pids("runner"):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_AT, resource.RLIM_INFINITY))

    job = expected.check(service, kind, job_id)

    told = [event["data"].get("error") or {} for event in service.client.follow(job_id)]
    codes = {error.get("code") for error in told} - {None}
    assert codes <= {"disk_full", "storage_unavailable"}
    assert codes or kind == "assign"  # what an assignment writes may fit
    assert job["attempt"] <= 3


def test_an_upload_that_fills_the_disk_is_refused_and_leaves_nothing(service, expected):
    api = psutil.Process(service.pids("api")[0])
    before = service.keys()
    resource.prlimit(api.pid, resource.RLIMIT_FSIZE, (FULL_AT, resource.RLIM_INFINITY))
    try:
        response = service.client._http.post("/v1/datasets", content=expected.file.read_bytes())
    finally:
        resource.prlimit(api.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    # Which of the two meets the limit first depends on how large the database has grown.
    assert response.status_code == 503
    assert response.json()["code"] in ("storage_unavailable", "database_unavailable")
    assert service.keys() == before
    expected.check(service, "ingest", expected.submit(service, "ingest"))
