"""The adaptive mixture against the paper's gradients, scikit-learn's mixture and its own limits."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from models.base import Run
from models.methods.adaptive_gmm.fast import em_update
from models.methods.adaptive_gmm.method import RBM, AdaptiveGMM, Joint, separation
from models.methods.adaptive_gmm.network import log_joint
from models.worth.metrics import ari
from tests.models.battery import images, make, spec_of, vectors

K, D = 5, 3


@pytest.fixture
def parts():
    """One code and a mixture, in float64, all of which want gradients."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(size, dtype=torch.float64, generator=generator) for size in ((1, D), (K,), (K, D), (K, D))]
    return [part.requires_grad_() for part in found]


def objective(y, logits, mu, log_sigma, eta=0.0):
    """Eq. (5) of one code."""
    return log_joint(y, logits, mu, log_sigma).logsumexp(dim=1).sum() + eta * separation(mu)


def test_the_gradient_by_the_code_is_equation_8(parts):
    y, logits, mu, log_sigma = parts
    objective(*parts).backward()

    p = log_joint(y, logits, mu, log_sigma).softmax(dim=1).detach()
    expected = (p.T * (mu - y).detach() / (2 * log_sigma.detach()).exp()).sum(dim=0)
    torch.testing.assert_close(y.grad[0], expected, rtol=0, atol=1e-10)


def test_the_gradient_by_the_means_is_equation_10(parts):
    y, logits, mu, log_sigma = parts
    objective(*parts, eta=0.3).backward()

    p = log_joint(y, logits, mu, log_sigma).softmax(dim=1).detach()
    fixed = mu.detach()
    expected = p.T * (y.detach() - fixed) / (2 * log_sigma.detach()).exp()
    for k in range(K):
        others = sorted((j for j in range(K) if j != k), key=lambda j: float((fixed[k] - fixed[j]).norm()))
        expected[k] += 2 * 0.3 * sum(fixed[k] - fixed[j] for j in others[: K // 2])
    torch.testing.assert_close(mu.grad, expected, rtol=0, atol=1e-10)


def test_the_gradient_by_log_sigma_is_equation_11_and_by_the_logits_equation_12(parts):
    y, logits, mu, log_sigma = parts
    objective(*parts).backward()

    p = log_joint(y, logits, mu, log_sigma).softmax(dim=1).detach()
    of_sigma = p.T * ((y - mu).square() / (2 * log_sigma).exp() - 1).detach()
    torch.testing.assert_close(log_sigma.grad, of_sigma, rtol=0, atol=1e-10)
    torch.testing.assert_close(logits.grad, p[0] - logits.detach().softmax(dim=0), rtol=0, atol=1e-10)


def test_the_likelihood_is_scikit_learns():
    z = np.random.default_rng(0).normal(size=(200, D)) + np.arange(200)[:, None] % 3 * 4
    other = GaussianMixture(3, covariance_type="diag", random_state=0).fit(z)

    found = log_joint(
        torch.from_numpy(z),
        torch.from_numpy(np.log(other.weights_)),
        torch.from_numpy(other.means_),
        torch.from_numpy(np.log(other.covariances_) / 2),
    )

    assert float(found.logsumexp(dim=1).sum()) == pytest.approx(200 * other.score(z), rel=1e-10)
    np.testing.assert_allclose(found.softmax(dim=1), other.predict_proba(z), atol=1e-10)


def test_scaling_codes_and_mixture_costs_n_d_log_s(parts):
    _, logits, mu, log_sigma = (part.detach() for part in parts)
    y, s = torch.randn(40, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), 3.0

    before = -log_joint(y, logits, mu, log_sigma).logsumexp(dim=1).sum()
    after = -log_joint(s * y, logits, s * mu, log_sigma + math.log(s)).logsumexp(dim=1).sum()

    assert float(after) == pytest.approx(float(before) + 40 * D * math.log(s), rel=1e-12)


def test_a_step_of_em_is_scikit_learns():
    z = np.random.default_rng(0).normal(size=(300, D)) + np.arange(300)[:, None] % 3 * 3
    r = np.random.default_rng(1).dirichlet(np.ones(3), 300)
    other = GaussianMixture(3, covariance_type="diag", reg_covar=0)
    other._initialize(z, r)

    logits, mu, log_sigma = em_update(torch.from_numpy(z), torch.from_numpy(r), 1e-9)

    np.testing.assert_allclose(logits.exp(), other.weights_, rtol=1e-5)
    np.testing.assert_allclose(mu, other.means_, rtol=1e-5)
    np.testing.assert_allclose((2 * log_sigma).exp(), other.covariances_, rtol=1e-5)


def test_separation_counts_the_nearest_half_of_the_other_means_up_to_a_limit():
    mu = torch.tensor([[0.0], [1.0], [3.0], [7.0], [20.0]])

    # Two neighbours each: 1 + 9, 1 + 4, 4 + 9, 16 + 36, 169 + 289.
    assert float(separation(mu)) == 10 + 5 + 13 + 52 + 458
    assert float(separation(mu, limit=50)) == 10 + 5 + 13 + 52 + 100


def test_the_gradient_of_an_rbm_is_contrastive_divergences():
    x, _ = images()
    model: AdaptiveGMM = make("adaptive-gmm", x, dropout=0.0)
    stage = RBM(model, x, Run(), 1)
    with torch.no_grad():
        model.network.encoder[1].weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    batch, weight = torch.from_numpy(x[:10]), model.network.encoder[1].weight
    torch.manual_seed(3)

    stage.loss(batch, torch.arange(10))["free_energy"].backward()

    torch.manual_seed(3)
    with torch.no_grad():
        v = model.network.encode(model.network.flat(stage.scale(batch)), 1)
        away = stage.gibbs_step(v)
        expected = stage.layer(v).sigmoid().T @ v - stage.layer(away).sigmoid().T @ away
    torch.testing.assert_close(weight.grad, -expected / 10, atol=1e-6, rtol=1e-4)


def test_the_unrolled_network_is_the_stacked_mean_field_pass():
    x, _ = images()
    model: AdaptiveGMM = make("adaptive-gmm", x)
    network = model.network
    run = Run()
    model._stack(x, run)
    v = network.flat(torch.from_numpy(x).float() / 255)
    up = v
    machines = [(network.encoder[n], network.decoder[3 - n].bias) for n in range(4)]
    for number, (layer, _) in enumerate(machines):
        up = up @ layer.weight.T + layer.bias
        up = up if number == 3 else 1 / (1 + (-up).exp())
    down = up
    for layer, visible in reversed(machines):
        down = 1 / (1 + (-(down @ layer.weight + visible)).exp())

    torch.testing.assert_close(network.encode(v), up, atol=1e-6, rtol=0)
    torch.testing.assert_close(network.decode(network.encode(v)), down, atol=1e-6, rtol=0)


def test_vectors_are_standardised_and_decoded_without_bounds():
    x, kinds = vectors()
    model: AdaptiveGMM = make("adaptive-gmm", x, "fast").fit(x)

    flat = model.network.flat(torch.from_numpy(x))
    assert float(flat.mean().abs()) < 1e-3
    assert float(flat.std()) == pytest.approx(1, abs=0.01)
    assert float(model.network.decode(model.network.encode(flat)).min()) < 0
    assert ari(kinds, model.predict(x)) == 1.0


def test_shrinking_codes_and_parting_means_hit_their_bounds():
    x, _ = images()
    model: AdaptiveGMM = make("adaptive-gmm", x, variance_floor=0.01)
    with torch.no_grad():
        model.network.log_sigma.fill_(-50)
    y = torch.zeros(4, 10, requires_grad=True)

    log_likelihood = model.network.log_joint(y).logsumexp(dim=1).detach()

    # At the mean of a Gaussian of variance .01: -10/2 log(2 pi .01), and no more below.
    assert float(log_likelihood[0]) == pytest.approx(-5 * math.log(2 * math.pi * 0.01), rel=1e-5)
    mu = torch.tensor([[0.0], [1000.0]], requires_grad=True)
    separation(mu, limit=1e4).backward()
    assert mu.grad.abs().sum() == 0


def test_a_component_that_died_is_born_again_where_codes_fit_worst():
    y = torch.tensor([[0.0], [0.2], [9.0]])
    r = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])

    _, mu, log_sigma = em_update(y, r, 1e-4)

    assert mu[1].item() == 9.0
    assert torch.isfinite(log_sigma).all()


def test_a_variance_under_its_floor_can_grow_again():
    x, _ = images()
    model: AdaptiveGMM = make("adaptive-gmm", x, variance_floor=0.01)
    with torch.no_grad():
        model.network.log_sigma.fill_(-50)

    model.network.log_joint(torch.ones(4, 10)).logsumexp(dim=1).sum().backward()

    assert (model.network.log_sigma.grad > 0).all()


def test_eta_follows_from_the_number_of_clusters_alone_unless_given():
    x = np.zeros((200, 1, 8, 8), np.uint8)
    for k, eta, expected in ((3, None, 0.01), (20, None, 0.01), (21, None, 0.001), (3, 0.0, 0.0)):
        model: AdaptiveGMM = make("adaptive-gmm", x, n_clusters=k, eta=eta)
        assert Joint(model, x, Run()).eta == expected


def test_vectors_of_clusters_thirteen_times_the_smallest_are_told_apart():
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], [520, 200, 40])
    x = (rng.normal(size=(760, 6)) + kinds[:, None] * 9).astype(np.float32)
    order = rng.permutation(760)

    model = make("adaptive-gmm", x, n_rbm_steps=2_000, n_finetune_steps=2_000, n_steps=100, clip=1.0).fit(x[order])

    assert spec_of(x).kind == "vectors"
    assert ari(kinds[order], model.predict(x[order])) > 0.98
