"""DCAE against the paper's equations, a second implementation and its own limits."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from models import registry
from models.base import Run
from models.errors import Collapsed
from models.methods.dcae.method import (
    DCAE,
    Alternation,
    DCAENetwork,
    clustering_error,
    reconstruction_error,
)
from models.parts.losses import cluster_centers, cluster_means, nearest
from models.worth.metrics import ari
from tests.models.battery import images, spec_of

DIGITS = (load_digits().images[:300] * (255 / 16)).astype(np.uint8)[:, None]


def make(x: np.ndarray, profile: str = "paper", **values: object) -> DCAE:
    spec = registry.get("dcae")
    model: DCAE = spec.load()(spec.make_config(profile, {"n_clusters": 3, **values}), spec_of(x))
    return model


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3), (64, 1), (96, 3)])
def test_the_reconstruction_has_the_images_shape(side, channels):
    network = DCAENetwork(channels, side, 10)
    x = torch.rand(2, channels, side, side)

    h = network.embed(x)

    assert h.shape == (2, 10)
    assert network.decoder(h).shape == x.shape


def test_the_networks_layers_are_the_papers_on_28_pixels():
    weights = [tuple(p.shape) for p in DCAENetwork(1, 28, 10).parameters() if p.ndim > 1]

    assert weights == [(8, 1, 9, 9), (4, 8, 9, 9), (250, 576), (10, 250), (250, 10), (250, 4, 12, 12), (4, 1, 17, 17)]


def test_small_images_are_enlarged_to_28():
    assert DCAENetwork(1, 16, 10).embed(torch.rand(2, 1, 16, 16)).shape == (2, 10)


def test_reconstruction_error_is_the_hand_worked_cross_entropy():
    # One pixel each: y = 1 at logit 0 costs ln 2; y = 0 at logit ln 3 (a pixel of 3/4) costs ln 4.
    logits, x = torch.tensor([[[[0.0]]], [[[3.0]]]]), torch.tensor([[[[1.0]]], [[[0.0]]]])
    logits[1] = np.log(3)

    expected = (np.log(2) + np.log(4)) / 2
    assert float(reconstruction_error(logits, x, "mean")) == pytest.approx(expected, rel=1e-6)
    wide = torch.cat([logits, logits], dim=3), torch.cat([x, x], dim=3)
    assert float(reconstruction_error(*wide, "sum")) == pytest.approx(2 * expected, rel=1e-6)
    assert float(reconstruction_error(*wide, "mean")) == pytest.approx(expected, rel=1e-6)


def test_the_clustering_errors_gradient_is_weight_times_h_minus_c_over_n():
    h = torch.rand(7, 4, dtype=torch.float64, requires_grad=True)
    c = torch.rand(7, 4, dtype=torch.float64)

    clustering_error(h, c, 0.2).backward()

    torch.testing.assert_close(h.grad, 0.2 * (h.detach() - c) / 7, rtol=1e-12, atol=0)


def test_centers_are_the_means_of_their_members():
    z, labels = torch.rand(60, 5), torch.arange(60) % 4

    centers = cluster_centers(z, labels, 4)

    for k in range(4):
        np.testing.assert_allclose(centers[k], z[labels == k].numpy().astype(np.float64).mean(axis=0), atol=1e-6)


def test_with_a_frozen_network_the_alternation_is_lloyds_algorithm():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    start = z[:4]
    expected = KMeans(4, init=start.numpy(), n_init=1, max_iter=300, tol=0).fit(z.numpy())

    centers, objective = start, []
    for _ in range(100):
        labels = nearest(z, centers)
        objective.append(float((z - centers[labels]).double().square().sum()))
        centers = cluster_centers(z, labels, 4)

    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(objective))
    assert objective[-1] == pytest.approx(expected.inertia_, rel=1e-5)
    assert ari(expected.labels_, nearest(z, centers).numpy()) == 1.0


def test_an_empty_cluster_takes_the_farthest_code():
    z = torch.tensor([[0.0], [0.1], [0.2], [5.0]])

    centers = cluster_centers(z, torch.tensor([0, 0, 0, 0]), 2)

    assert centers[1].item() == 5.0


def test_without_a_clustering_weight_it_is_a_plain_auto_encoder_bit_for_bit():
    x, _ = images(28)
    model = make(x, cluster_weight=0.0, n_epochs=3, batch_size=20)

    model.fit(x)

    plain = make(x)
    run = Run()
    plain.serving_graph = plain._new_serving_graph(run.generator("network").initial_seed())
    from models.parts.encoders import xavier

    xavier(plain.network, run.generator("dcae", "weights"))
    optimizer = torch.optim.SGD(
        [*plain.network.encoder.parameters(), *plain.network.decoder.parameters()], 0.006, 0.9, weight_decay=5e-4
    )
    for epoch in range(3):
        order = torch.randperm(len(x), generator=run.generator("cluster", "order", epoch))
        for start in range(0, len(x), 20):
            batch = torch.from_numpy(x[order[start : start + 20].numpy()]).float() / 255
            logits = plain.network.decoder(plain.network.encoder(batch))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="none")
            optimizer.zero_grad()
            loss.flatten(1).mean(dim=1).mean().backward()
            optimizer.step()
    for ours, theirs in zip(model.network.encoder.parameters(), plain.network.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_clustering_weight_of_a_hundred_is_a_collapse_and_never_nan():
    schedule = {"n_clusters": 10, "n_epochs": 3, "batch_size": 20, "learning_rate": 0.06}

    make(DIGITS, cluster_weight=0.2, **schedule).fit(DIGITS)
    with pytest.raises(Collapsed, match="cluster sizes"):
        make(DIGITS, cluster_weight=100.0, **schedule).fit(DIGITS)


def test_fast_goes_on_from_the_graphs_partition_and_learns_it():
    x, kinds = images(28)
    states = []
    model = make(x, "fast", n_epochs=1, n_hold_steps=180, batch_size=10)

    model.fit(x, Run(on_step=states.append))

    start = next(state for state in states if state.phase == "graph" and state.is_epoch)
    assert ari(kinds, start.assignments) == 1.0
    held = [state for state in states if state.phase == "hold" and state.is_epoch]
    assert (held[-1].assignments == start.assignments).mean() >= 0.95


def test_the_first_centers_are_codes_of_distinct_images():
    x, _ = images(28)
    model = make(x)

    stage = Alternation(model, x, Run(), None)

    distance = torch.cdist(stage.centers, stage.codes())
    assert distance.min(dim=1).values.max() == 0
    assert len(distance.argmin(dim=1).unique()) == 3


def test_means_in_double_precision_survive_many_rows():
    z = torch.full((1_000_000, 1), 0.1)

    assert cluster_means(z, torch.zeros(1_000_000, dtype=torch.long), 1).item() == pytest.approx(0.1, rel=1e-7)
