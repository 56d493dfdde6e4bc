"""What a tenant may keep: no more, however it comes, and again once something is deleted."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.factories import attempt, claim, client_of, npz, run_jobs
from workers.supervisor import record


def upload(client, n: int = 12, seed: int = 0):
    return client.post("/v1/datasets", content=npz(n, seed))


def dataset(client, made) -> dict:
    return client.get(f"/v1/datasets/{made.json()['id']}").json()


def test_images_beyond_the_quota_are_not_ingested(settings, database):
    settings = settings.model_copy(update={"max_tenant_images": 20})
    with client_of(settings) as client:
        first, second = upload(client), upload(client, seed=1)
        run_jobs(settings, database)
        states = sorted((dataset(client, made)["state"], dataset(client, made)["n_images"]) for made in (first, second))
        assert states == [("failed", 0), ("ready", 12)]
        failed = next(made for made in (first, second) if dataset(client, made)["state"] == "failed")
        assert dataset(client, failed)["error"]["code"] == "quota_exceeded"

        eight = upload(client, 8)
        run_jobs(settings, database)
        assert dataset(client, eight)["state"] == "ready"
        full = upload(client, 1)
        assert (full.status_code, full.json()["code"]) == (403, "quota_exceeded")

        client.delete(f"/v1/datasets/{eight.json()['id']}")
        assert upload(client, 1).status_code == 201


def test_two_ingests_that_end_beside_each_other_do_not_share_one_room(settings, database):
    settings = settings.model_copy(update={"max_tenant_images": 20})
    with client_of(settings) as client:
        both = upload(client), upload(client, seed=1)
        held = [claim(database, "io") for _ in both]
        ended = [(one, attempt(settings, database, one)) for one in held]
        assert [outcome.verdict for _, outcome in ended] == ["succeeded"] * 2
        for one, outcome in ended:
            record(database, one, outcome, settings)

        assert sorted(dataset(client, made)["state"] for made in both) == ["failed", "ready"]


def test_bytes_beyond_the_quota_are_not_taken(settings, database):
    settings = settings.model_copy(update={"max_tenant_bytes": 2500})
    with client_of(settings) as client:
        made = client.post("/v1/uploads", json={"filename": "x"}).json()
        part = f"/v1/uploads/{made['id']}/parts"
        assert client.put(f"{part}/1", content=b"x" * 2000).status_code == 200
        assert client.put(f"{part}/1", content=b"x" * 2100).status_code == 200  # in its place, not beside it
        refused = client.put(f"{part}/2", content=b"x" * 401)
        announced = client.post("/v1/uploads", json={"filename": "y", "n_bytes": 401})
        whole = client.post("/v1/datasets", content=npz(30))

        for response in (refused, announced, whole):
            assert (response.status_code, response.json()["code"]) == (403, "quota_exceeded")
        client.delete(f"/v1/uploads/{made['id']}")
        assert client.post("/v1/datasets", content=npz(12)).status_code == 201
        run_jobs(settings, database)
        assert client.get("/v1/datasets").json()["items"][0]["state"] == "ready"


@pytest.mark.parametrize("settings", ["production"], indirect=True)
def test_parts_that_come_at_once_do_not_share_one_room(settings):
    settings = settings.model_copy(update={"max_tenant_bytes": 3500})
    with client_of(settings) as client:
        uploads = [client.post("/v1/uploads", json={"filename": "x"}).json()["id"] for _ in range(8)]

        def put(upload_id: str) -> int:
            return client.put(f"/v1/uploads/{upload_id}/parts/1", content=b"x" * 1000).status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(put, uploads))

    assert sorted(statuses) == [200] * 3 + [403] * 5
