"""Mixtures against scikit-learn's, and what they do where there is none."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from models.start import mixture as mixtures
from models.start.mixture import Mixture, distinct, kmeans, mixture, refine
from models.worth.metrics import acc
from tests.models.start.makers import BLOBS, KINDS, generator, on_threads, quiet


def test_the_likeliest_mixture_is_scikit_learns():
    model = GaussianMixture(4, random_state=0, n_init=5, tol=1e-6).fit(BLOBS.double())

    found = max((mixture(BLOBS, 4, generator(seed), quiet) for seed in range(5)), key=lambda one: one.log_likelihood)

    assert found.log_likelihood == pytest.approx(model.score(BLOBS.double()), abs=1e-2)
    assert acc(model.predict(BLOBS.double()), found.labels) == 1.0


def test_refining_the_best_partition_gives_scikit_learns_likelihood():
    model = GaussianMixture(4, random_state=0, n_init=5, tol=1e-6).fit(BLOBS.double())

    found = refine([BLOBS], torch.from_numpy(model.predict(BLOBS.double())), 4, quiet)

    assert found.log_likelihood == pytest.approx(model.score(BLOBS.double()), abs=1e-3)
    assert acc(KINDS, found.labels) > 0.99
    assert found.confidence.min() >= 0.25


def test_two_views_are_one_mixture_with_covariances_of_blocks():
    """Scikit-learn knows no such covariance, but diagonal ones of single columns are just that."""
    model = GaussianMixture(4, covariance_type="diag", random_state=0, n_init=5, tol=1e-7, max_iter=1_000)
    model.fit(BLOBS.double())

    found = refine(BLOBS.split(1, dim=1), torch.from_numpy(model.predict(BLOBS.double())), 4, quiet)

    p = model.predict_proba(BLOBS.double())
    assert found.log_likelihood == pytest.approx(model.score(BLOBS.double()), abs=1e-3)
    np.testing.assert_array_equal(found.labels, p.argmax(axis=1))
    np.testing.assert_allclose(found.confidence, p.max(axis=1), atol=0.01)


def test_what_one_view_cannot_tell_apart_the_other_does():
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1], 200)
    blind = torch.from_numpy(rng.normal(size=(400, 2))).float()
    seeing = torch.from_numpy(rng.normal(size=(400, 2)) + 8 * kinds[:, None]).float()
    begun = torch.from_numpy(np.where(rng.random(400) < 0.3, 1 - kinds, kinds))  # as a blind partition might be

    assert acc(kinds, refine([blind], begun, 2, quiet).labels) < 0.8
    assert acc(kinds, refine([blind, seeing], begun, 2, quiet).labels) == 1.0


def test_a_partition_with_an_empty_cluster_is_never_the_likeliest_and_comes_back_as_it_is():
    begun = torch.arange(300) % 3

    found = refine([BLOBS], begun, 4, quiet)

    assert found.log_likelihood == -math.inf
    assert torch.equal(found.labels, begun)


@pytest.mark.parametrize("x", [torch.zeros(30, 3), torch.randn(5, 10, generator=generator()), torch.zeros(4, 1)])
def test_a_mixture_of_hardly_any_rows_is_k_means_or_finite(x):
    found = mixture(x, 4, generator(), quiet)

    assert found.labels.shape == found.confidence.shape == (len(x),)
    assert found.confidence.isfinite().all()
    assert not math.isnan(found.log_likelihood)


def test_blocks_of_rows_change_nothing(monkeypatch):
    whole = mixture(BLOBS, 4, generator(), quiet)
    monkeypatch.setattr(mixtures, "BLOCK_ENTRIES", 1_000)

    blocks = mixture(BLOBS, 4, generator(), quiet)

    assert torch.equal(whole.labels, blocks.labels)
    assert blocks.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)


def test_rows_far_from_the_origin_are_told_apart():
    found = mixture(BLOBS + 1e4, 4, generator(), quiet)

    assert acc(KINDS, found.labels) > 0.99


def test_k_means_starts_are_spread():
    x = torch.tensor([0.0, 0.1, 10.0, 10.1, 20.0, 20.1], dtype=torch.float64)[:, None]

    for seed in range(20):
        assert acc([0, 0, 1, 1, 2, 2], kmeans(x, 3, generator(seed), quiet)) == 1.0


def test_a_seed_gives_one_mixture_on_any_number_of_threads():
    x = torch.randn(20_000, 10, generator=generator())
    tasks = [(x, 10, generator(0), quiet)]

    found = [on_threads(n, mixture, [(x, 10, generator(0), quiet)])[0] for n in (1, 2, 4)]

    assert len(tasks) == 1
    for one in found[1:]:
        assert one.log_likelihood == found[0].log_likelihood
        assert torch.equal(one.labels, found[0].labels)
        assert torch.equal(one.confidence, found[0].confidence)


def test_of_partitions_that_differ_in_names_only_one_is_kept():
    labels = [[0, 0, 1, 2], [2, 2, 0, 1], [0, 1, 1, 2], [1, 1, 0, 2]]

    kept = distinct([Mixture(float(i), torch.tensor(one), torch.ones(4)) for i, one in enumerate(labels)])

    assert [one.log_likelihood for one in kept] == [0.0, 2.0]
