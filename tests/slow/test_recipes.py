"""Recipes on real images, where only minutes of training show anything."""

import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.datasets import load_digits

from models import registry
from models.base import Run
from models.configs import GraphStartConfig
from models.start.graph import graph_start
from models.worth.metrics import acc
from tests.models.battery import spec_of

DIGITS = load_digits()
X = (DIGITS.images * (255 / 16)).astype(np.uint8)[:, None]


@pytest.fixture(scope="module")
def spectral():
    """Scikit-learn's own clustering of a graph of ten neighbours."""
    return SpectralClustering(10, affinity="nearest_neighbors", random_state=0).fit_predict(DIGITS.data)


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_start_of_real_digits_is_well_above_spectral_clustering_for_every_seed(seed, spectral):
    start = graph_start(X, spec_of(X), GraphStartConfig(n_clusters=10), Run(seed=seed), (0, 1))

    assert acc(DIGITS.target, start.labels) > acc(DIGITS.target, spectral) + 0.05


def test_fast_dcae_keeps_what_the_start_found_on_real_digits():
    states = []
    spec = registry.get("dcae")
    model = spec.load()(spec.make_config("fast", {"n_clusters": 10}), spec_of(X))

    model.fit(X, Run(on_step=states.append))

    start = next(state for state in states if state.phase == "graph" and state.is_epoch)
    assert acc(DIGITS.target, model.predict(X)) >= acc(DIGITS.target, start.assignments) - 0.01


def test_the_papers_alternation_makes_codes_compact_and_images_clearer():
    states = []
    spec = registry.get("dcae")
    model = spec.load()(spec.make_config("paper", {"n_clusters": 10, "n_epochs": 60, "batch_size": 20}), spec_of(X))

    model.fit(X, Run(on_step=lambda state: states.append(state) if state.is_epoch else None))

    pixels = X / 255
    mean = pixels.mean(axis=0).clip(1e-6, 1 - 1e-6)
    of_the_mean_image = -(pixels * np.log(mean) + (1 - pixels) * np.log(1 - mean)).mean()
    assert states[-1].losses["reconstruction"] < states[0].losses["reconstruction"]
    assert states[-1].losses["reconstruction"] < of_the_mean_image * 1.1
