"""The map of a model's images over HTTP: what lies close looks alike to the model."""

import numpy as np
import pytest

from models.metrics import ari
from tests.app.api.test_training import model_of, train
from tests.factories import blobs_of_pixels, npz


@pytest.fixture
def settings(settings):
    """With maps."""
    return settings.model_copy(update={"max_map_images": 20_000})


def test_a_deep_training_leaves_a_map(client, make_dataset, work):
    _, kinds = blobs_of_pixels(30)
    job = train(client, make_dataset(npz(30))).json()
    work()

    points = client.get(f"/v1/models/{model_of(client, job)['id']}/map").json()

    assert points["index"] == list(range(30))
    assert len(points["x"]) == len(points["y"]) == 30
    assert ari(kinds, points["cluster"]) == 1.0


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_vectors_have_a_map_and_no_pictures(client, make_dataset, work):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    job = train(client, make_dataset(npz(x=x)), method="kmeans", config={"n_clusters": 2}).json()
    work()

    model = model_of(client, job)

    assert {"map.parquet", "history.parquet"} <= model["artifacts"].keys()
    assert not any(name.endswith(".png") for name in model["artifacts"])


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_the_map_of_wide_vectors_keeps_kinds_apart(client, make_dataset, work):
    x = np.random.default_rng(0).normal(size=(1_100, 200)).astype(np.float32)
    x[::2] += 3
    job = train(client, make_dataset(npz(x=x)), method="kmeans", config={"n_clusters": 2}).json()
    work()

    points = client.get(f"/v1/models/{model_of(client, job)['id']}/map").json()

    at = np.array([points["x"], points["y"]]).T
    clusters = np.array(points["cluster"])
    means = np.stack([at[clusters == k].mean(axis=0) for k in (0, 1)])
    nearer = np.linalg.norm(at[:, None] - means, axis=2).argmin(axis=1)
    assert (nearer == clusters).mean() > 0.99


def test_the_map_and_curves_of_an_unknown_model_are_not_found(trained, light_client):
    client, model_id, _ = trained

    assert client.get(f"/v1/models/{model_id}/map").status_code == 200
    assert light_client.get("/v1/models/mdl_none/map").json()["code"] == "model_not_found"
    assert light_client.get("/v1/models/mdl_none/history").json()["code"] == "model_not_found"
