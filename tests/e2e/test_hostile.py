"""Hostile files at a running service: each gets its stable code in time, and the API stays as it was."""

import json
import os
import re
import time
from pathlib import Path

import psutil
import pytest

from tests import hostile, service
from tests.factories import blobs_of_pixels, picture, zipped

ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"
CODES = set(re.findall(r"^\| `(\w+)` \|", ERRORS.read_text(), re.M))
MOST_S, MOST_MB = 10, 100
EVERY = 1 if "FUZZ_EXAMPLES" in os.environ else 9  # every ninth goes in parts as well; in `make fuzz`, all


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with service.running(
        tmp_path_factory.mktemp("hostile") / "data", CLUSTERSERVE_MAX_QUEUED_JOBS="1000", CLUSTERSERVE_STALL_S="30"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def model(up):
    """A model of images, loaded."""
    model_id = up.small_model()
    assert up.client._http.post(f"/v1/models/{model_id}/assign", content=picture()).status_code == 200
    return model_id


def memory_mb(up) -> float:
    return sum(psutil.Process(pid).memory_info().rss for pid in up.pids("api")) / 2**20


def judged(response, what: str) -> None:
    """An answer that says what is wrong with a documented code, or takes the file."""
    if response.status_code >= 400:
        assert response.status_code < 500, f"{what}: {response.text}"
        assert response.json()["code"] in CODES, f"{what}: {response.text}"


def timed(send, what: str):
    started = time.monotonic()
    response = send()
    assert time.monotonic() - started < MOST_S, what
    judged(response, what)
    return response


def ended(http, dataset_id: str) -> dict:
    until = time.monotonic() + 120
    while (dataset := http.get(f"/v1/datasets/{dataset_id}").json())["state"] == "ingesting":
        assert time.monotonic() < until, dataset
        time.sleep(0.05)
    return dataset


def test_the_corpus_is_large():
    assert len(hostile.archives()) + len(hostile.images()) >= 150


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.thorough)], ids=["every-third", "all"])
def test_hostile_archives_in_one_go_and_in_parts(up, model, share):
    http, files = up.client._http, hostile.archives()
    before, taken = memory_mb(up), {}
    for position, (name, data) in list(enumerate(files.items()))[::share]:
        response = timed(lambda data=data: http.post("/v1/datasets", content=data), name)
        if response.status_code == 201:
            taken[name] = response.json()["id"]
        if position % EVERY:
            continue
        upload = http.post("/v1/uploads", json={"filename": "x", "n_bytes": len(data)}).json()["id"]
        half = len(data) // 2
        for number, part in enumerate((data[:half], data[half:]), 1):
            if part:
                assert http.put(f"/v1/uploads/{upload}/parts/{number}", content=part).status_code == 200
        judged(http.post(f"/v1/uploads/{upload}/complete"), name)
        again = timed(lambda upload=upload: http.post("/v1/datasets", json={"upload_id": upload}), name)
        assert again.status_code == response.status_code, f"{name}: {again.text}"
        if again.status_code == 201:
            taken[f"{name}, in parts"] = again.json()["id"]
    for name, dataset_id in taken.items():
        dataset = ended(http, dataset_id)
        codes = {reject["code"] for reject in up.client.rejects(dataset_id)} if dataset["state"] == "ready" else set()
        codes |= {dataset["error"]["code"]} if dataset["error"] else set()
        assert codes <= CODES, name
        assert codes or dataset["n_images"] > 0, name

    assert memory_mb(up) - before < MOST_MB
    assert up.client.is_ready()


def test_hostile_images_are_turned_away_and_healthy_ones_beside_them_kept(up, model):
    http, files = up.client._http, hostile.images()
    healthy = {f"healthy-{n}.png": picture(image) for n, image in enumerate(blobs_of_pixels(20)[0])}
    archive = zipped({f"{n:03d}.png": data for n, data in enumerate(files.values())} | healthy)
    before = memory_mb(up)

    dataset = ended(http, timed(lambda: http.post("/v1/datasets", content=archive), "all").json()["id"])

    names = {item["name"] for item in up.client._all(f"/v1/datasets/{dataset['id']}/images")}
    rejects = up.client.rejects(dataset["id"])
    assert dataset["state"] == "ready"
    assert set(healthy) <= names
    assert {reject["code"] for reject in rejects} <= CODES
    assert len(names) + len(rejects) == len(files) + len(healthy)
    assert memory_mb(up) - before < MOST_MB


def test_hostile_files_at_assign(up, model):
    http, before = up.client._http, memory_mb(up)
    path, files = f"/v1/models/{model}/assign", {**hostile.images(), **hostile.archives()}
    for name, data in files.items():
        timed(lambda data=data: http.post(path, content=data), name)
        form = [("file", ("good.png", picture())), ("file", ("bad.png", data)), ("file", ("good.png", picture()))]
        if len(data) < 30 << 20:
            answer = timed(lambda form=form: http.post(path, files=form), name)
            items = json.loads(answer.text)["items"]
            assert ["error" in item for item in (items[0], items[2])] == [False, False], name
            assert items[1].get("error", {}).get("code", "not_an_image") in CODES, name

    assert memory_mb(up) - before < MOST_MB
    assert up.client.is_ready()
