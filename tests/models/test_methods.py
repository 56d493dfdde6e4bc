"""k-means and the mixture against scikit-learn, the second implementation."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from models.base import Run
from models.worth.metrics import acc, ari
from tests.models.battery import K, images, make

DIGITS = (load_digits().images * (255 / 16)).astype(np.uint8)[:, None]


def test_kmeans_is_scikit_learns_on_the_same_pixels_and_seed():
    flat = DIGITS.reshape(len(DIGITS), -1).astype(np.float32) / 255
    expected = KMeans(10, random_state=3, n_init=1).fit_predict(flat)

    found = make("kmeans", DIGITS, n_clusters=10).fit(DIGITS, Run(seed=3)).predict(DIGITS)

    assert ari(expected, found) > 0.9999


def test_more_starts_never_give_a_larger_inertia():
    def inertia(n_init: int) -> float:
        states = []
        make("kmeans", DIGITS, n_clusters=10, n_init=n_init).fit(DIGITS, Run(on_step=states.append))
        return next(state.losses["inertia"] for state in states if "inertia" in state.losses)

    assert inertia(5) <= inertia(1)


def test_kmeans_confidence_is_the_hand_worked_softmax():
    # Centers 0 and 4, each with members one away: sigma^2 = 1, so p = softmax(-d^2 / 2).
    x = np.array([[-1], [1], [3], [5]], np.float32)

    p = make("kmeans", x, n_clusters=2).fit(x).assign(x)

    near, far = np.exp(-0.5), np.exp(-12.5)
    assert p[0].max() == pytest.approx(near / (near + far), rel=1e-5)
    assert p[1].min() == pytest.approx(np.exp(-4.5) / (near + np.exp(-4.5)), rel=1e-4)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_responsibilities_are_scikit_learns(kind):
    x = np.concatenate([np.random.default_rng(n).normal(n * 3, 1, (50, 4)) for n in range(3)]).astype(np.float32)
    mixture = GaussianMixture(3, covariance_type=kind, reg_covar=1e-3, random_state=2).fit(x.astype(np.float64))

    found = make("gmm", x, covariance_type=kind).fit(x, Run(seed=2)).assign(x)

    np.testing.assert_allclose(found, mixture.predict_proba(x.astype(np.float64)), atol=1e-6)


def test_the_mixtures_log_likelihood_is_scikit_learns_score():
    import torch

    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    mixture = GaussianMixture(3, covariance_type="full", reg_covar=1e-3, random_state=0).fit(x.astype(np.float64))
    model = make("gmm", x, covariance_type="full")
    model._take(mixture)

    log_p = model.network.head.log_joint(torch.from_numpy(x)).logsumexp(dim=1)

    assert float(log_p.mean()) == pytest.approx(mixture.score(x.astype(np.float64)), rel=1e-9)


@pytest.mark.parametrize("method", ["depict", "adaptive-gmm", "dual-autoencoder"])
def test_a_papers_recipe_reports_the_partition_its_clustering_begins_with(method):
    x, kinds = images()
    states = []

    make(method, x).fit(x, Run(on_step=lambda state: states.append(state) if state.is_epoch else None))

    start = next(state for state in states if state.step == 0)
    assert sorted(start.cluster_sizes) == sorted(np.bincount(start.assignments, minlength=K).tolist())
    first = next(state for state in states if state.phase == "cluster")
    assert states.index(start) == states.index(first) - 1
    assert acc(kinds, start.assignments) > 0.6
