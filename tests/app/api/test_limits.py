"""What a caller may send is set by the operator; a file is refused by its first limit, with that limit's code."""

import numpy as np
import pytest

from app.settings import Settings
from tests.factories import client_of, npy, npz, picture, run_jobs, tarred, zipped
from workers.supervisor import RUNNER

WIDE = picture(np.zeros((4, 20), np.uint8))
FOUR = {f"{n}.png": picture() for n in range(4)}
BLANK = zipped({"x.npy": npy(np.zeros((40_000, 32, 32), np.uint8))})


def test_the_defaults_are_those_that_are_promised():
    found = Settings().model_dump()
    promised = {
        "max_json_bytes": 1 << 20, "max_image_bytes": 32 << 20, "max_request_bytes": 64 << 20,
        "max_part_bytes": 64 << 20, "max_upload_bytes": 200 * 10**9,
        "max_archive_entries": 2_000_000, "max_unpacked_ratio": 10,
        "max_entry_ratio": 200, "max_dataset_pixels": 50_000_000, "max_image_side": 16_384,
        "max_assign_pixels": 50_000_000, "max_requests_per_minute": 600, "max_new_jobs_per_minute": 20,
        "max_queued_jobs": 100, "max_running_jobs": 4,
    }  # fmt: skip

    assert {name: found[name] for name in promised} == promised


@pytest.mark.parametrize(
    ("limit", "body", "status", "code"),
    [
        ({"max_archive_entries": 3}, zipped(FOUR), 422, "too_many_entries"),
        ({"max_archive_entries": 3}, tarred({**{f"{n}.txt": b"x" for n in range(4)}}), 422, "too_many_entries"),
        ({"max_image_bytes": 60}, picture(), 413, "too_large"),
        ({"max_image_bytes": 60}, zipped({"a.png": picture()}), 422, "too_large"),
        ({"max_dataset_pixels": 79}, WIDE, 422, "too_many_pixels"),
        ({"max_dataset_pixels": 79}, npz(x=np.zeros((3, 4, 20), np.uint8)), 422, "too_many_pixels"),
        ({"max_image_side": 19}, npz(x=np.zeros((3, 4, 20), np.uint8)), 422, "too_many_pixels"),
        ({"max_image_side": 19}, zipped({"a.png": WIDE}), 422, "side_too_long"),
        ({"max_entry_ratio": 2}, BLANK, 422, "suspicious_compression"),
    ],
)
def test_an_upload_beyond_a_limit_is_refused(embedded_settings, limit, body, status, code):
    with client_of(embedded_settings.model_copy(update=limit)) as client:
        response = client.post("/v1/datasets", content=body)

    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("limit", "code"),
    [({"max_image_bytes": 110}, "too_large"), ({"max_dataset_pixels": 79}, "too_many_pixels")],
)
def test_a_file_beyond_a_limit_is_turned_away_and_those_beside_it_kept(settings, database, limit, code):
    settings = settings.model_copy(update=limit)
    large = picture(np.random.default_rng(0).integers(0, 255, (4, 20), np.uint8))
    with client_of(settings) as client:
        made = client.post(
            "/v1/datasets", content=zipped({"a.png": picture(), "b.png": large, "c.png": picture()})
        ).json()
        run_jobs(settings, database)
        rejects = client.get(f"/v1/datasets/{made['id']}/rejects").json()["items"]

        assert [(reject["name"], reject["code"]) for reject in rejects] == [("b.png", code)]
        assert client.get(f"/v1/datasets/{made['id']}").json()["n_images"] == 2


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_an_ingest_that_wants_more_memory_than_it_may_have_fails_alone(settings, database):
    """A file of 140 KB that unpacks to 150 MB."""
    tight = settings.model_copy(update={"max_ingest_memory_bytes": 300 << 20, "max_attempts": 1})
    large = picture(np.zeros((7_000, 7_000, 3), np.uint8))
    with client_of(tight) as client:
        made = [client.post("/v1/datasets", content=body).json()["id"] for body in (large, picture())]
        run_jobs(tight, database, RUNNER)
        found = [client.get(f"/v1/datasets/{dataset_id}").json() for dataset_id in made]

    assert [dataset["state"] for dataset in found] == ["failed", "ready"]
    assert found[0]["error"]["code"] == "out_of_memory"
