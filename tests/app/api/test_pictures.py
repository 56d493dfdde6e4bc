"""What a training leaves to look at over HTTP: curves, sheets of images, and a map with like beside like."""

import io

import numpy as np
import pytest
from PIL import Image

from models.worth.metrics import ari
from tests.app.api.test_training import artifact, model_of, train
from tests.factories import blobs_of_pixels, npz
from tests.marks import production_first


@pytest.fixture
def settings(settings):
    """With maps."""
    return settings.model_copy(update={"max_map_images": 20_000})


@production_first
def test_a_deep_training_leaves_curves_pictures_and_a_map(client, make_dataset, work):
    _, kinds = blobs_of_pixels(30)
    job = train(client, make_dataset(npz(30))).json()
    assert job["profile"] == "fast"
    work()

    model = model_of(client, job)
    epochs = client.get(f"/v1/models/{model['id']}/history").json()["epochs"]
    points = client.get(f"/v1/models/{model['id']}/map").json()

    assert (model["scores"]["acc"], model["scores"]["start_acc"]) == (1.0, 1.0)
    assert [epoch["phase"] for epoch in epochs] == ["graph", *["hold"] * (len(epochs) - 3), "cluster", "cluster"]
    assert epochs[0]["scores"]["acc"] == 1.0
    assert epochs[0]["losses"].keys() >= {"agreement", "modularity_hog"}
    assert all(epoch["losses"].keys() == {"reconstruction", "clustering"} for epoch in epochs[1:])
    assert all(sum(epoch["cluster_sizes"]) == 30 for epoch in epochs)
    sheets = {"nearest.png": 3, "farthest.png": 3, "reconstructions.png": 6, "generated.png": 3}
    for name, n_rows in sheets.items():
        picture = Image.open(io.BytesIO(artifact(client, model, name)))
        assert picture.height == n_rows * 34 + 2  # 8 pixels, four times as large, and a gap
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
