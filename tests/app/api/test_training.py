"""What a deep training leaves over HTTP: pictures, checkpoints, and the start for the next job."""

import io

import numpy as np
import pytest
from PIL import Image

from app.store.blobs import connect
from models.worth.metrics import ari
from tests.factories import blobs_of_pixels, npz

# Enough for three clear kinds of images; the schedule of real ones takes minutes.
SHORT = {"n_clusters": 3, "n_hold_steps": 60, "batch_size": 10, "n_epochs": 2, "stop_change": 0.0}


def train(client, dataset, **more):
    body = {"kind": "train", "dataset_id": dataset["id"], "method": "dcae", "config": SHORT, **more}
    return client.post("/v1/jobs", json=body)


def model_of(client, job: dict) -> dict:
    job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job["error"]
    return client.get(f"/v1/models/{job['model_id']}").json()


def artifact(client, model: dict, name: str) -> bytes:
    return client.get(f"/v1/models/{model['id']}/artifacts/{name}").content


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_the_nearest_images_lie_closer_than_the_farthest(client, make_dataset, work):
    x = np.zeros((20, 8, 8), np.uint8)
    x[:10] = np.arange(10)[:, None, None]  # the mean of 0...9: 4 and 5 are nearest, 0 and 9 farthest
    x[10:] = 200
    job = train(client, make_dataset(npz(x=x)), method="kmeans", config={"n_clusters": 2}).json()
    work()

    model = model_of(client, job)
    near, far = (Image.open(io.BytesIO(artifact(client, model, name))) for name in ("nearest.png", "farthest.png"))
    first = [{sheet.getpixel((10, 10))[0], sheet.getpixel((10, 44))[0]} for sheet in (near, far)]

    assert first[0] <= {4, 5, 200}
    assert first[1] <= {0, 9, 200}
    assert "reconstructions.png" not in model["artifacts"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_the_second_training_on_a_dataset_takes_up_the_first_ones_start(client, make_dataset, work, settings):
    dataset = make_dataset(npz(30))
    first = train(client, dataset).json()
    work()
    second = train(client, dataset, config={**SHORT, "n_epochs": 1}).json()
    other = train(client, dataset, seed=1).json()
    work()

    found = {
        job["id"]: sum(key.split("/")[2:4] == ["start", job["id"]] for key in connect(settings).keys("t/"))
        for job in (first, second, other)
    }

    assert list(found.values()) == [2, 0, 2]  # tensors and facts; another seed is another start
    histories = [
        client.get(f"/v1/models/{model_of(client, job)['id']}/history").json()["epochs"][0] for job in (first, second)
    ]
    assert histories[0]["losses"] == histories[1]["losses"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_semi_supervised_training_gives_known_images_their_clusters(client, make_dataset, work):
    _, kinds = blobs_of_pixels(30)
    known = {str(index): int(kinds[index]) for index in range(9)}
    config = {**SHORT, "cluster_prior": [1, 1, 1]}
    job = train(client, make_dataset(npz(30)), method="depict", config=config, known=known).json()
    work()

    model = model_of(client, job)
    assignments = client.get(f"/v1/assignment-sets/{model['assignment_set_id']}/assignments").json()["items"]

    assert model["known"] == known
    assert model["config"]["cluster_prior"] == [1, 1, 1]
    assert model["scores"]["acc"] == 1.0
    assert ari(kinds, [one["cluster"] for one in assignments]) == 1.0


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_prior_that_is_not_one_size_a_cluster_is_refused(client, make_dataset, work):
    answer = train(client, make_dataset(npz(30)), method="depict", config={"n_clusters": 3, "cluster_prior": [1, 2]})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_config")
    assert "2 sizes for 3 clusters" in answer.json()["errors"][0]["detail"]
    assert work() == 0


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_known_targets_are_refused_where_a_method_takes_none(client, make_dataset, work):
    dataset = make_dataset(npz(30))

    answer = train(client, dataset, known={"0": 1})

    assert (answer.status_code, answer.json()["code"]) == (422, "known_not_supported")
    assert work() == 0


@pytest.mark.parametrize(
    "known", [{"-1": 0}, {"0": -1}, {"x": 0}, {"0": "a"}, [1], {"0": 1.5}, {"0": True}, {"0": "1"}]
)
def test_malformed_known_targets_are_refused(trained, known):
    client, *_ = trained
    dataset = client.get("/v1/datasets").json()["items"][0]

    assert train(client, dataset, known=known).status_code == 422


def test_dcae_does_not_take_vectors(trained):
    client, *_ = trained
    vectors = next(d for d in client.get("/v1/datasets").json()["items"] if d["kind"] == "vectors")

    answer = train(client, vectors)

    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_data")
