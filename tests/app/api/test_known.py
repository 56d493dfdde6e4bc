"""Known targets of a semi-supervised job, with a method that another package brings."""

import os

import numpy as np
import pytest

from models import registry
from models.base import Run
from models.errors import UnknownTargets
from tests.factories import blobs_of_pixels, npz
from tests.models.battery import K, N, images, spec_of

PLUGIN = '''
from models.classical.kmeans.spec import KMeansConfig
from models.classical.kmeans.method import KMeans
from models.registry import MethodSpec


class Told(KMeans):
    """k-means that would listen."""

    name = "told"
    takes_known = True


SPEC = MethodSpec("told", "Told k-means", "a test", KMeansConfig, "told_plugin:Told", takes_known=True)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with an entry point, as pip would leave it, for this process and for runners."""
    folder = tmp_path / "plugin"
    info = folder / "told_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "told_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: told-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clusterserve.methods]\ntold = told_plugin:SPEC\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    registry.methods.cache_clear()
    yield
    registry.methods.cache_clear()


def told(client, dataset, known):
    body = {"kind": "train", "dataset_id": dataset["id"], "method": "told", "config": {"n_clusters": 3}, "known": known}
    return client.post("/v1/jobs", json=body)


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_known_targets_reach_the_model_and_stay_out_of_its_scores(plugin, client, make_dataset, work):
    x, y = blobs_of_pixels(30)
    y[:2] = (y[:2] + 1) % 3  # two targets are wrong: whoever scores them cannot reach 1
    dataset = make_dataset(npz(x=x, y=y))
    job = told(client, dataset, {"0": int(y[0]), "1": int(y[1])}).json()
    work()

    model_id = client.get(f"/v1/jobs/{job['id']}").json()["model_id"]
    model = client.get(f"/v1/models/{model_id}").json()

    assert model["known"] == {"0": int(y[0]), "1": int(y[1])}
    assert model["scores"]["acc"] == 1.0
    assert client.get(f"/v1/models/{model_id}/artifacts/model.json").json()["known"] == model["known"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_known_targets_that_do_not_fit_the_dataset_queue_nothing(plugin, client, make_dataset, work):
    dataset = make_dataset(npz(12))

    for known in ({"12": 0}, {"0": 0, "1": 1, "2": 2, "3": 3}):
        answer = told(client, dataset, known)
        assert (answer.status_code, answer.json()["code"]) == (422, "known_out_of_range")

    assert work() == 0


def test_the_library_refuses_known_targets_that_do_not_fit(plugin):
    x, _ = images()
    spec = registry.get("told")
    model = spec.load()(spec.make_config("paper", {"n_clusters": K}), spec_of(x))

    assert model.fit(x, Run(), {0: 7, 5: 7}).known == {0: 7, 5: 7}
    for known in ({N: 0}, {-1: 0}, dict(enumerate(range(K + 1)))):
        with pytest.raises(UnknownTargets):
            model.fit(x, Run(), known)
    plain = registry.get("kmeans")
    with pytest.raises(UnknownTargets):
        plain.load()(plain.make_config("paper", {"n_clusters": K}), spec_of(x)).fit(x, Run(), {0: np.int64(1)})
