"""The game of three against hand-worked penalties and its own rules."""

import numpy as np
import pytest
import torch

from models import registry
from models.base import Run
from models.methods.precise_feature.fast import Imitation, components, imitation_error
from models.methods.precise_feature.method import (
    Game,
    PreciseFeatureNetwork,
    trade_off,
)
from models.parts.adversarial import Discriminating, Generator, gradient_penalty, sides_of, strides_of
from models.pixels import InputSpec
from models.worth.metrics import acc, ari
from tests.models.battery import images, make, spec_of, vectors


def test_the_penalty_of_a_linear_critic_of_norm_three_is_four():
    w = torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)
    real, fake = (torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (0, 1))

    assert gradient_penalty(lambda x: x @ w, real, fake).tolist() == pytest.approx([4] * 50, abs=1e-9)


def test_the_penalty_is_taken_between_real_and_generated_inputs():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.sum()

    gradient_penalty(critic, torch.zeros(100, 1, 2, 2), torch.ones(100, 1, 2, 2))

    assert 0 <= seen[0].min() < 0.1
    assert 0.9 < seen[0].max() <= 1
    assert (seen[0].flatten(1).std(dim=1) == 0).all()  # one share for the whole image


def test_the_trade_off_grows_by_whole_powers():
    config = registry.get("precise-feature").make_config("paper", {"n_clusters": 3})

    found = [trade_off(step, config) for step in (0, 29_999, 30_000, 59_999, 60_000, 899_999)]

    assert found == pytest.approx([10, 10, 12, 12, 14.4, 10 * 1.2**29])


@pytest.mark.parametrize(
    ("side", "sides", "strides"),
    [
        (8, [8, 8, 8, 4], [1, 1, 2]),
        (16, [16, 16, 8, 4], [1, 2, 2]),
        (28, [28, 14, 7, 4], [2, 2, 2]),
        (32, [32, 16, 8, 4], [2, 2, 2]),
        (64, [64, 32, 16, 8, 4], [2, 2, 2, 2]),
    ],
)
def test_layers_follow_from_the_side_as_in_the_paper(side, sides, strides):
    assert (sides_of(side), strides_of(side)) == (sides, strides)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 16, 28, 32, 55, 64, 96, 128])
def test_generated_images_have_the_images_shape(side, channels):
    shape = (channels, side, side)

    drawn = Generator(12, shape)(torch.randn(2, 12))

    assert drawn.shape == (2, *shape)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert Discriminating(shape, 5)(drawn).shape == (2, 5)


def test_channels_are_the_papers():
    weights = [layer.weight.shape for layer in Discriminating((1, 28, 28), 1).features if hasattr(layer, "weight")]

    assert [tuple(shape) for shape in weights] == [(64, 1, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5)]


def test_vectors_have_the_papers_layers():
    network = PreciseFeatureNetwork((2,), 8, 2)

    of = {
        name: [tuple(p.shape) for n, p in part.named_parameters() if n.endswith("weight")]
        for name, part in network.named_children()
    }
    assert of["generator"] == [(512, 10), (512, 512), (512, 512), (2, 512)]
    assert of["critic"] == [(512, 2), (512, 512), (512, 512), (1, 512)]
    assert of["classifier"] == [(512, 2), (512, 512), (512, 512), (8, 512)]


X150 = np.zeros((150, 1, 8, 8), np.uint8)


def game(**values: object) -> Game:
    x, _ = images()
    return Game(make("precise-feature", x, **values), x, Run(), torch.ones(3))


def test_each_turn_moves_one_network_alone():
    stage, x = game(), torch.from_numpy(images()[0])
    for expected in ["critic"] * 5 + ["classifier"] * 4 + ["generator"]:
        before = {name: value.clone() for name, value in stage.module.named_parameters()}
        stage.optimizer.zero_grad(set_to_none=True)

        torch.stack(list(stage.loss(x[:20], torch.arange(20)).values())).sum().backward()
        stage.optimizer.step()
        stage.end_step()

        moved = {name.split(".")[0] for name, value in stage.module.named_parameters() if (value != before[name]).any()}
        assert moved == {expected}


def test_the_classifier_sees_no_real_image():
    """Whatever the images are, its error and its gradient are the same."""
    found = []
    for x in (torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.full((20, 1, 8, 8), 255, dtype=torch.uint8)):
        stage = game(n_critic=1, n_classifier=1)
        stage.n_turns = 1
        torch.manual_seed(0)
        terms = stage.loss(x, torch.arange(20))
        terms["cross_entropy"].backward()
        found.append((float(terms["cross_entropy"].detach()), stage.module.classifier.head.weight.grad.clone()))

    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_images_that_are_held_out_never_meet_the_critic():
    x = np.zeros((150, 1, 8, 8), np.uint8)
    stage = Game(make("precise-feature", x), x, Run(), torch.ones(3))
    held = stage.is_held_out.nonzero().flatten()
    index = torch.cat([held, torch.arange(17)])
    black = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    white = black.clone()
    white[:3] = 255  # those held out

    def error_of(x: torch.Tensor, index: torch.Tensor) -> tuple[list[float], torch.Tensor]:
        torch.manual_seed(0)
        stage.optimizer.zero_grad()
        terms = stage.loss(x, index)
        sum(terms.values()).backward()
        return [term.item() for term in terms.values()], stage.module.critic.head.weight.grad.clone()

    assert held.tolist() == [49, 99, 149]
    (first, gradient), (second, same) = error_of(black, index), error_of(white, index)
    assert first == second
    assert torch.equal(gradient, same)
    assert error_of(white, torch.arange(20))[0] != first


def test_a_batch_of_nothing_but_held_out_images_teaches_the_critic_nothing():
    stage = Game(make("precise-feature", X150), X150, Run(), torch.ones(3))

    terms = stage.loss(torch.from_numpy(X150[:3]), torch.tensor([49, 99, 149]))

    assert [term.item() for term in terms.values()] == [0.0, 0.0]


def test_eta_grows_on_the_device_as_the_turns_go_on():
    stage = game(eta_steps=2, n_critic=1, n_classifier=1)  # three turns a step
    for _ in range(12):
        stage.end_step()

    assert stage.eta.item() == pytest.approx(10 * 1.2**2)
    other = game(eta_steps=2, n_critic=1, n_classifier=1)
    other.load_extra_state(stage.extra_state())
    assert other.eta.item() == stage.eta.item()


def test_another_cluster_is_another_image():
    network = make("precise-feature", images()[0]).network
    z = torch.randn(1, network.n_noise, generator=torch.Generator().manual_seed(0))

    drawn = [network.generate(torch.tensor([k]), z) for k in range(3)]

    assert not torch.allclose(drawn[0], drawn[1])
    assert not torch.allclose(drawn[1], drawn[2])


def test_a_resumed_game_goes_on_at_its_turn():
    stage, other = game(), game()
    stage.n_turns = 17

    other.load_extra_state(stage.extra_state())

    assert other.n_turns == 17


def test_noise_to_imitate_with_is_what_differs_within_clusters_standardised():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    x = (rng.normal(size=(400, 3)) * [5, 1, 0.1] + labels[:, None] * 50).astype(np.float32)
    model = make("precise-feature", x, "fast", n_noise=2)
    model.network.standard.fit(x)

    noise = components(Imitation(model, x, Run(), torch.ones(3), torch.from_numpy(labels)), labels).numpy()

    np.testing.assert_allclose(np.cov(noise.T, bias=True), np.eye(2), atol=0.01)
    assert abs(noise[labels == 0].mean(axis=0) - noise[labels == 1].mean(axis=0)).max() < 1e-3


def test_clusters_are_drawn_by_the_prior():
    x, _ = images()
    model = make("precise-feature", x, cluster_prior=(1.0, 2.0, 7.0))
    stage = Game(model, x, Run(), torch.tensor(model.config.cluster_prior))
    torch.manual_seed(0)

    y, z = stage.draw(10_000)

    assert torch.bincount(y).tolist() == pytest.approx([1_000, 2_000, 7_000], abs=150)
    assert z.shape == (10_000, 10)


def test_a_prior_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 sizes for 3 clusters"):
        registry.get("precise-feature").make_config("paper", {"n_clusters": 3, "cluster_prior": (1.0, 2.0)})


@pytest.mark.thorough
def test_each_cluster_is_drawn_as_its_images_look():
    x, kinds = images()
    model = make("precise-feature", x, "fast", n_imitation_steps=120).fit(x)

    drawn = model.generate(4)

    assert drawn.shape == (3, 4, 1, 8, 8)
    assert drawn.dtype == np.uint8
    assert ari(np.repeat(np.arange(3), 4), model.predict(drawn.reshape(12, 1, 8, 8))) == 1.0
    clusters = model.predict(x)
    means = np.array([x[clusters == k].mean() for k in range(3)])
    assert abs(drawn.mean(axis=(1, 2, 3, 4))[:, None] - means).argmin(axis=1).tolist() == [0, 1, 2]
    assert ari(kinds, clusters) == 1.0


def test_noise_is_ten_variables_for_images_and_two_for_vectors_unless_given():
    assert make("precise-feature", images()[0]).network.n_noise == 10
    assert make("precise-feature", images()[0], "fast").network.n_noise == 24
    assert make("precise-feature", vectors()[0]).network.n_noise == 2
    assert make("precise-feature", vectors()[0], n_noise=0).network.n_noise == 0
    assert InputSpec("vectors", n_features=4).shape == (4,)


def test_a_generator_that_has_gone_black_still_learns_to_draw_white():
    """The gradient of the cross-entropy with respect to a pixel's logit is p - t, here nearly -1."""
    logits = torch.full((1, 1, 1, 2), -12.0, requires_grad=True)
    white = torch.ones(1, 1, 1, 2)

    imitation_error(logits.sigmoid(), white, is_image=True).backward()

    torch.testing.assert_close(logits.grad, torch.full_like(logits, -1), atol=1e-4, rtol=0)


def test_vectors_are_imitated_by_squared_error():
    found = imitation_error(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.zeros(2, 2), is_image=False)

    assert found == (4 + 2) / 2


@pytest.mark.thorough
def test_the_game_of_three_finds_the_papers_eight_blobs():
    """Section IV-B: eight Gaussians on a circle, deviation .014, and two variables of noise."""
    r = 2**0.5
    centers = [(r, 0), (-r, 0), (0, r), (0, -r), (1, 1), (-1, 1), (-1, -1), (1, -1)]
    kinds = np.arange(4_000) % 8
    noise = np.random.default_rng(0).normal(scale=0.014, size=(4_000, 2))
    x = (np.array(centers)[kinds] + noise).astype(np.float32)
    spec = registry.get("precise-feature")
    model = spec.load()(spec.make_config("paper", {"n_clusters": 8, "n_steps": 200}), spec_of(x))

    model.fit(x, Run(seed=0))

    assert acc(kinds, model.predict(x)) > 0.99
