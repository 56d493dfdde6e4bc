"""The dual auto-encoder against linear algebra, hand-worked numbers and the paper's ablations."""

import numpy as np
import pytest
import scipy.sparse
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.neighbors import NearestNeighbors

from models.base import Run
from models.methods.dual_autoencoder.losses import divergence, mutual_information, orthonormaliser, spectral_error
from models.methods.dual_autoencoder.method import (
    DualAutoencoder,
    Joint,
    Pretrain,
)
from models.methods.dual_autoencoder.network import DualAutoencoderNetwork
from models.methods.dual_autoencoder.spec import DualAutoencoderConfig
from models.start.affinity import Edges, Pairs, affinities
from models.start.neighbours import Neighbours
from models.worth.metrics import ari
from tests.models.battery import images, make


def graph_of(n: int, seed: int = 0) -> torch.Tensor:
    """A symmetric affinity matrix of one connected graph."""
    w = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    w = (w + w.T) / 2
    return w.fill_diagonal_(0)


def edges_of(w: torch.Tensor) -> Edges:
    i, j = torch.nonzero(w, as_tuple=True)
    return Edges(i, j, w[i, j])


def near_of(n: int = 200, k: int = 4) -> Neighbours:
    z = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    distance, index = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(z)
    return Neighbours(torch.from_numpy(index.astype(np.int64)), torch.from_numpy(distance.astype(np.float32)))


def test_outputs_become_orthonormal():
    y = torch.randn(300, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5 + 2

    y = y @ orthonormaliser(y)

    torch.testing.assert_close(y.T @ y / 300, torch.eye(7, dtype=torch.float64), atol=1e-5, rtol=0)


def test_columns_that_coincide_stop_nothing():
    y = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 3).requires_grad_()

    found = y.double() @ orthonormaliser(y)
    found.square().sum().backward()

    assert torch.isfinite(found).all()
    assert torch.isfinite(y.grad).all()
    assert torch.isfinite(orthonormaliser(torch.zeros(50, 3))).all()


def test_the_spectral_error_is_twice_the_trace_with_the_laplacian():
    w, y = graph_of(40), torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    laplacian = w.sum(dim=1).diag() - w

    expected = 2 * torch.trace(y.T @ laplacian @ y) / 40**2
    torch.testing.assert_close(spectral_error(edges_of(w), y), expected, atol=0, rtol=1e-10)


def test_the_spectral_network_reaches_the_smallest_eigenvalues():
    """On a fixed connected graph, eq. (16) comes within 5 % of (2 / m) times their sum."""
    m, k = 60, 3
    z = torch.randn(m, 120, generator=torch.Generator().manual_seed(0))
    w = (-torch.cdist(z[:, :2], z[:, :2]).square()).exp().fill_diagonal_(0)
    laplacian = (w.sum(dim=1).diag() - w).double()
    assert scipy.sparse.csgraph.connected_components(w.numpy())[0] == 1
    best = 2 / m * float(torch.linalg.eigvalsh(laplacian)[:k].sum())
    torch.manual_seed(0)
    network = DualAutoencoderNetwork(1, 16, k, is_spectral=True).spectral
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    for _ in range(600):
        raw = network(z)
        error = spectral_error(edges_of(w), (raw.double() @ orthonormaliser(raw)).float())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()

    assert best * 0.999 <= error.item() <= best * 1.05


def symmetric(near: Neighbours) -> np.ndarray:
    """W as eq. (14) writes it down, edge by edge."""
    n = len(near.index)
    scale, w = np.median(near.distance[:, 1:].numpy()), np.zeros((n, n))
    for row, (others, distances) in enumerate(zip(near.index[:, 1:], near.distance[:, 1:].double(), strict=True)):
        for other, distance in zip(others.tolist(), distances.tolist(), strict=True):
            w[row, other] = w[other, row] = np.exp(-(distance**2) / (2 * scale**2))
    return w


def test_directed_edges_add_up_to_the_symmetric_matrix_of_the_paper():
    near = near_of(200, 4)
    y = np.random.default_rng(0).normal(size=(200, 3))
    w = symmetric(near)

    weight, others = affinities(near).double().numpy(), near.index[:, 1:].numpy()

    directed = (weight * np.square(y[:, None] - y[others]).sum(axis=2)).sum()
    both_halves = (w * np.square(y[:, None] - y[None]).sum(axis=2)).sum()
    assert directed == pytest.approx(both_halves, rel=1e-6)


def test_affinities_are_scaled_by_the_median_distance():
    index = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    distance = np.array([[0, 1, 2], [0, 1, 1], [0, 1, 2]], np.float32)  # the median is 1

    weight = affinities(Neighbours(torch.from_numpy(index), torch.from_numpy(distance)))

    near, far = np.exp(-0.5), np.exp(-2)  # every edge has a twin
    np.testing.assert_allclose(weight, [[near, far], [near, near], [near, far]], rtol=1e-6)


def test_an_edge_without_a_twin_counts_twice():
    index = np.array([[0, 1], [1, 2], [2, 1]])
    distance = np.array([[0, 1], [0, 1], [0, 1]], np.float32)

    weight = affinities(Neighbours(torch.from_numpy(index), torch.from_numpy(distance)))

    np.testing.assert_allclose(weight.flatten(), np.exp(-0.5) * np.array([2, 1, 1]), rtol=1e-6)


def pairs_of(near: Neighbours) -> Pairs:
    others = near.index[:, 1:]
    return Pairs(others, affinities(near), torch.full((len(others),), -1))


def test_batches_hold_anchors_and_a_neighbour_of_each():
    near = near_of()
    pairs = pairs_of(near)
    torch.manual_seed(0)

    rows = pairs.with_neighbours(torch.arange(20), 32)

    assert len(rows) == 64
    for anchor, other in zip(rows[:32].tolist(), rows[32:].tolist(), strict=True):
        assert other in near.index[anchor, 1:]
    edges = pairs.among(rows)
    inside = edges.w > 0
    assert all(b in near.index[a, 1:] for a, b in zip(rows[edges.i[inside]], rows[edges.j[inside]], strict=True))
    assert set(range(32)) <= set(edges.i[inside].tolist())  # each anchor has its neighbour in the batch


def test_edges_of_a_batch_are_those_of_the_whole_between_its_rows():
    near = near_of(60, 4)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:25]
    y = torch.randn(25, 2, generator=torch.Generator().manual_seed(2)).double()
    w = torch.from_numpy(symmetric(near))[rows][:, rows]

    pairs = pairs_of(near)
    edges = pairs.among(rows)

    # Edges that leave the batch drop out; one without a twin stands for both halves.
    expected = (w * (y[:, None] - y[None]).square().sum(dim=2)).sum() / 25**2
    assert float(spectral_error(edges, y)) == pytest.approx(float(expected), rel=1e-5)
    assert len(edges.w) == 25 * 3
    again = pairs.among(rows)
    assert torch.equal(again.j, edges.j)
    assert torch.equal(again.w, edges.w)


def test_the_divergence_is_the_hand_worked_one():
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, np.log(4.0)]])

    # (1 + 1 - 1 - 0) / 2 for the first latent, (0 + 4 - 1 - ln 4) / 2 for the second.
    expected = 0.5 + (3 - np.log(4)) / 2
    assert float(divergence(mean, log_variance, torch.zeros(1, 2))) == pytest.approx(expected, rel=1e-6)


def test_mutual_information_rises_as_pairs_are_told_from_shuffled_ones():
    chance, certain = torch.zeros(4), torch.full((4,), 20.0)

    assert float(mutual_information(chance, chance)) == pytest.approx(-2 * np.log(2))
    assert float(mutual_information(certain, -certain)) == pytest.approx(0, abs=1e-6)


def terms_of(model: DualAutoencoder, x: np.ndarray) -> dict[str, torch.Tensor]:
    found = Pretrain(model, x, Run()).loss(torch.from_numpy(x), torch.arange(len(x)))
    return {name: term.detach() for name, term in found.items()}


def test_without_noise_the_relative_reconstruction_is_exactly_nothing():
    x, _ = images(16)

    assert float(terms_of(make("dual-autoencoder", x, noise=0.0), x)["relative_reconstruction"]) == 0
    assert float(terms_of(make("dual-autoencoder", x), x)["relative_reconstruction"]) > 0


def test_the_ablations_leave_their_terms_out():
    x, _ = images(16)

    assert terms_of(make("dual-autoencoder", x), x).keys() == {
        "reconstruction", "relative_reconstruction", "mutual_information", "divergence",
    }  # fmt: skip
    assert "mutual_information" not in terms_of(make("dual-autoencoder", x, mutual_information=False), x)
    assert "relative_reconstruction" not in terms_of(make("dual-autoencoder", x, relative_reconstruction=False), x)


def test_the_discriminators_learn():
    x, _ = images(16)
    stage = Pretrain(make("dual-autoencoder", x), x, Run())
    before = {name: value.clone() for name, value in stage.module.named_parameters()}

    torch.stack(list(stage.loss(torch.from_numpy(x), torch.arange(len(x))).values())).sum().backward()
    stage.optimizer.step()

    for name in ("whole.of_image.weight", "local.of_image.weight", "whole.score.weight", "local.score.weight"):
        assert not torch.equal(stage.module.get_parameter(name), before[name])


def test_encoder_and_discriminators_both_raise_the_mutual_information():
    """No reversal: a step down the loss raises the estimate, whichever part takes it."""
    x, _ = images(16)
    for part in ("encoder", "whole"):
        model = make("dual-autoencoder", x, beta=1.0)
        stage = Pretrain(model, x, Run())
        batch = torch.from_numpy(x)
        own = [value for name, value in stage.module.named_parameters() if name.startswith(part)]

        def loss(stage=stage, batch=batch):
            torch.manual_seed(0)
            return stage.loss(batch, torch.arange(len(batch)))["mutual_information"]

        before = loss()
        for value, gradient in zip(own, torch.autograd.grad(before, own), strict=True):
            value.data -= 1e-3 * gradient / (gradient.norm() + 1e-12)
        assert loss().item() < before.item()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 16, 28, 32, 55, 64, 96, 128])
def test_reconstructions_have_the_images_shape(side, channels):
    network = DualAutoencoderNetwork(channels, side, 4, is_spectral=True)
    x = torch.rand(2, channels, side, side)

    features, mean, log_variance = network.encode(x)

    assert network.decoder(mean).shape == x.shape
    assert mean.shape == log_variance.shape == (2, 120)
    assert [part.shape[0] for part in network.local(features, mean)] == [2, 2]
    assert network.embed(x).shape == (2, 4)


def test_layers_have_the_papers_channels_and_kernels():
    def of(side: int) -> list[tuple[int, ...]]:
        network = DualAutoencoderNetwork(1, side, 4, is_spectral=True)
        return [tuple(layer.weight.shape) for layer in network.encoder if hasattr(layer, "weight")]

    assert of(28) == [(16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3)]
    assert of(16) == [(16, 1, 3, 3), (32, 16, 3, 3)]
    assert [shape[2:] for shape in of(55)] == [(5, 5)] * 4


def test_the_joint_divergence_is_the_hand_worked_one():
    x, _ = images(16)
    model = make("dual-autoencoder", x)
    stage = Joint(model, x, Run(), Pairs.of(torch.rand(60, 3), 3, 0, lambda: None), torch.arange(60) % 3)
    stage.mu = torch.zeros(3, 120)
    stage.mu[1, 0] = 2
    p = torch.tensor([[0.5, 0.5, 0.0]])

    found = stage.joint_divergence(p, torch.zeros(1, 120), torch.zeros(1, 120))

    # log 3 - log 2 for the labels, nothing for the spread, and half of 4 / 2 for the means.
    assert float(found) == pytest.approx(np.log(3 / 2) + 1, rel=1e-5)


def test_without_the_spectral_network_it_is_k_means_on_the_codes():
    x, kinds = images(16)

    model = make("dual-autoencoder", x, "fast", spectral=False).fit(x)

    assert model.embed(x).shape == (60, 120)
    assert ari(kinds, model.predict(x)) == 1.0


def test_more_clusters_than_the_spectral_network_is_wide_are_refused():
    with pytest.raises(ValidationError, match="512"):
        TypeAdapter(DualAutoencoderConfig).validate_json('{"n_clusters": 513}')


def test_copies_of_one_image_leave_no_center_undefined():
    x = np.repeat(images(16)[0][:3], 20, axis=0)

    model = make("dual-autoencoder", x, "fast").fit(x)

    assert np.isfinite(model.assign(x)).all()


def test_an_answer_does_not_depend_on_the_images_beside_it():
    x, _ = images(16)
    model = make("dual-autoencoder", x, "fast").fit(x)

    np.testing.assert_allclose(model.assign(x[:1])[0], model.assign(x)[0], atol=1e-5)
