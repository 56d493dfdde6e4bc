"""DEPICT against the paper's equations, its tables and hand-worked numbers."""

import numpy as np
import pytest
import torch

from models import registry
from models.base import Run
from models.errors import Collapsed, UnknownTargets
from models.methods.depict.fast import Hold
from models.methods.depict.method import (
    DEPICT,
    Clustering,
    Layer,
    Reconstruction,
    clustering_error,
    reconstruction_error,
    target_distribution,
)
from models.methods.depict.network import DEPICTNetwork, shape_of
from models.worth.metrics import acc, ari
from tests.factories import blobs_of_pixels
from tests.models.battery import images, make, spec_of

UNIFORM = torch.full((2,), 0.5, dtype=torch.float64)


def test_targets_are_the_hand_worked_ones():
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], dtype=torch.float64)

    q = target_distribution(p, UNIFORM)

    expected = torch.tensor([[0.83236, 0.16764], [0.68815, 0.31185], [0.45281, 0.54719]], dtype=torch.float64)
    torch.testing.assert_close(q, expected, atol=5e-6, rtol=0)


def objective(p: np.ndarray, q: np.ndarray, u: np.ndarray) -> float:
    """Eq. (4): mean KL(Q || P) + KL(f || u)."""
    f = q.mean(axis=0)
    return float((q * np.log(q / p)).sum(axis=1).mean() + (f * np.log(f / u)).sum())


@pytest.mark.parametrize("k", [2, 10])
def test_the_closed_form_never_raises_the_objective_where_decs_target_mostly_does(k):
    rng = np.random.default_rng(0)
    n_worse = 0
    for _ in range(50):
        p, u = rng.dirichlet(np.ones(k), 200), np.full(k, 1 / k)
        q = target_distribution(torch.from_numpy(p), torch.from_numpy(u)).numpy()
        assert objective(p, q, u) <= objective(p, p, u) + 1e-12
        weight = p**2 / p.sum(axis=0)
        n_worse += objective(p, weight / weight.sum(axis=1, keepdims=True), u) > objective(p, p, u)
    assert n_worse > 25


def test_a_prior_pulls_targets_to_its_sizes():
    p = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(2), 500))

    for u in ([0.9, 0.1], [0.1, 0.9]):
        sizes = target_distribution(p, torch.tensor(u, dtype=torch.float64)).mean(dim=0)
        assert (sizes[0] > 0.55) == (u[0] > 0.5)
        assert objective(p.numpy(), p.numpy(), np.array(u)) > objective(
            p.numpy(), target_distribution(p, torch.tensor(u, dtype=torch.float64)).numpy(), np.array(u)
        )


def test_a_cluster_without_probability_divides_nothing_by_zero():
    q = target_distribution(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]))

    assert q.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_the_clustering_error_is_the_cross_entropy_and_skips_rows_without_target():
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])

    expected = (np.log(1 + np.exp(-2)) + np.log(2)) / 3
    assert float(clustering_error(q, logits)) == pytest.approx(expected, rel=1e-6)


def test_the_reconstruction_error_averages_each_level_by_its_size():
    clean = [torch.zeros(2, 4), torch.zeros(2, 100)]
    again = [torch.full((2, 4), 2.0), torch.full((2, 100), 3.0)]

    assert float(reconstruction_error(clean, again)) == 4 + 9


@pytest.mark.parametrize(
    ("side", "sides", "n_inputs"),
    [(28, (28, 13, 7), 2450), (16, (16, 7, 4), 800), (32, (32, 17, 9), 4050), (55, (55, 28, 13), 8450)],
)
def test_layers_have_the_papers_sizes(side, sides, n_inputs):
    network = DEPICTNetwork(1, side, 10)

    assert shape_of(side).sides == sides
    assert network.encoder[2].in_features == n_inputs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 16, 28, 32, 47, 55, 64, 96, 128])
def test_the_decoder_gives_back_every_levels_shape(side, channels):
    network = DEPICTNetwork(channels, side, 5)
    x = torch.rand(2, channels, side, side)

    levels, z = network.encode(x)

    assert z.shape == (2, 5)
    assert [level.shape for level in network.decode(z)] == [level.shape for level in levels]
    assert 2 <= shape_of(side).sides[2] <= 16


def test_without_dropout_the_noisy_path_is_the_clean_one_and_with_it_is_not():
    network, x = DEPICTNetwork(1, 16, 5), torch.rand(3, 1, 16, 16)
    torch.manual_seed(0)

    assert torch.equal(network.encode(x, dropout=0.0)[1], network.embed(x))
    assert not torch.allclose(network.encode(x, dropout=0.1)[1], network.embed(x))


def test_gradients_flow_into_the_clean_targets():
    """The noisy code is cut off, so what reaches the encoder came through the clean path."""
    x, _ = images(16)
    stage = Reconstruction(make("depict", x), x, Run())
    batch = torch.from_numpy(x)

    stage.joint_error(batch, stage.noisy(batch)[1].detach()).backward()

    assert float(stage.module.encoder[0].weight.grad.abs().sum()) > 0
    assert float(stage.module.encoder[1].weight.grad.abs().sum()) > 0


def test_a_layer_of_the_stack_trains_alone():
    x, _ = images(16)
    for number in range(3):
        stage = Layer(make("depict", x, learning="sda"), x, Run(), number)
        before = {name: value.clone() for name, value in stage.module.state_dict().items()}

        stage.loss(torch.from_numpy(x), torch.arange(len(x)))["reconstruction"].backward()
        stage.optimizer.step()

        moved = {name for name, value in stage.module.state_dict().items() if not torch.equal(value, before[name])}
        kinds = ("encoder", "decoder")
        assert moved == {f"{kind}.{number}.{part}" for kind in kinds for part in ("weight", "bias")}


@pytest.mark.parametrize("learning", ["mda", "rda", "sda"])
def test_every_learning_approach_runs_its_own_phases(learning):
    x, kinds = images(16)
    phases = []
    model = make("depict", x, learning=learning).fit(x, Run(on_step=lambda state: phases.append(state.phase)))

    layers = ["layer 1", "layer 2", "layer 3"]
    before = {"mda": ["pretrain"], "rda": [*layers, "retrain"], "sda": layers}[learning]
    assert list(dict.fromkeys(phases)) == [*before, "initialise", "cluster", "summarise"]
    assert len(model.predict(x)) == len(kinds)


def test_every_row_of_a_set_that_fills_no_last_batch_is_assigned():
    x, kinds = images(16)

    model = make("depict", x, "fast", batch_size=7).fit(x)

    assert ari(kinds, model.predict(x)) == 1.0


def test_targets_of_known_images_stay_one_hot_while_others_move():
    x, _ = images(16)
    model = make("depict", x)
    q = torch.full((len(x), 3), 1 / 3)
    stage = Clustering(model, x, Run(), q, known={4: 2, 7: 0}, u=torch.ones(3))

    stage.end_epoch(0)

    assert stage.q[4].tolist() == [0, 0, 1]
    assert stage.q[7].tolist() == [1, 0, 0]
    assert not torch.allclose(stage.q[5], q[5])


def test_copies_of_one_image_leave_no_center_undefined():
    x = np.repeat(images(16)[0][:3], 20, axis=0)

    model = make("depict", x).fit(x)

    assert np.isfinite(model.assign(x)).all()


def test_no_known_targets_is_the_unsupervised_training_bit_for_bit():
    x, _ = images(16)

    first, second = make("depict", x, "fast").fit(x), make("depict", x, "fast").fit(x, known={})

    assert np.array_equal(first.assign(x), second.assign(x))


def test_known_targets_decide_what_the_images_alone_do_not():
    """Kinds told apart by a dim patch, while a bright one splits each of them: a third of the images is known."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (80, 1, 16, 16)).astype(np.uint8)
    kinds = np.arange(80) % 2
    x[:, :, 3:6, 3:12] += (60 * kinds).astype(np.uint8)[:, None, None, None]
    x[::4, :, 9:15, 2:14] += 150  # what the images are first told apart by
    x[1::4, :, 9:15, 2:14] += 150
    known = {index: int(kinds[index]) * 7 + 3 for index in range(0, 80, 3)}
    spec = registry.get("depict")
    values = {"n_clusters": 2, "batch_size": 20, "n_hold_steps": 100, "n_epochs": 30, "stop_change": 0.0}

    def fit(told):
        config = spec.make_config("fast", {**values, "cluster_learning_rate": 1e-3})
        model: DEPICT = spec.load()(config, spec_of(x))
        return acc(kinds, model.fit(x, known=told).predict(x))

    assert fit(known) > 0.95 > fit({})


def test_more_kinds_of_known_targets_than_clusters_are_refused():
    x, _ = images(16)

    with pytest.raises(UnknownTargets):
        make("depict", x).fit(x, known={0: 1, 1: 2, 2: 3, 3: 4})


@pytest.mark.parametrize("prior", [None, (1.0, 13.0, 4.0)])
def test_a_cluster_thirteen_times_the_smallest_is_found(prior):
    x, kinds = blobs_of_pixels(780, side=8)
    keep = np.concatenate([np.flatnonzero(kinds == k)[:n] for k, n in ((0, 260), (1, 80), (2, 20))])
    x, kinds = x[keep][:, None], kinds[keep]

    model = make("depict", x, cluster_prior=prior, n_pretrain_epochs=5).fit(x)

    found = model.predict(x)
    assert ari(kinds, found) == 1.0
    if prior is not None:
        assert np.bincount(found).tolist() == [20, 260, 80]


def test_a_prior_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 sizes for 3 clusters"):
        registry.get("depict").make_config("paper", {"n_clusters": 3, "cluster_prior": (1.0, 2.0)})


def test_reconstructions_come_near_the_images():
    x, _ = images(16)
    model = make("depict", x, n_pretrain_epochs=60, n_epochs=1).fit(x)

    error = np.abs(model.reconstruct(x).astype(float) - x).mean()
    baseline = np.abs(x - x.mean(axis=0)).mean()
    assert error < baseline


def test_an_alternation_that_strays_is_undone_and_one_that_does_not_is_kept():
    x = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8)
    found = {}
    for max_move in (0.0, 0.05):
        states = []
        model = make("depict", x, "fast", max_move=max_move, cluster_learning_rate=5e-3, n_epochs=3, stop_change=0.0)
        model.fit(x, Run(on_step=lambda state, states=states: states.append(state) if state.is_epoch else None))
        found[max_move] = {state.phase: state.assignments for state in states}  # the last of each phase

    assert "restore" not in found[0.0]
    assert (found[0.0]["cluster"] != found[0.0]["hold"]).mean() > 0.05  # so steep a rate takes images away
    assert np.array_equal(found[0.05]["restore"], found[0.05]["hold"])


def test_one_answer_for_all_is_a_collapse_only_where_targets_follow_it():
    x, _ = images(side=16)
    model = make("depict", x)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
    q = torch.eye(3).repeat(len(x) // 3, 1)

    labels = Hold(model, x, Run(), q, {}).end_epoch(0)

    assert len(set(labels.tolist())) == 1
    with pytest.raises(Collapsed):
        Clustering(model, x, Run(), q, known={}, u=torch.ones(3)).end_epoch(0)


def test_the_corrected_partition_is_learned_whole_from_images_as_they_are():
    x = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8)
    states = []
    config = {"max_move": 1e-9, "cluster_learning_rate": 5e-3, "n_hold_steps": 30, "n_keep_steps": 200}
    config["min_confidence"] = 1.0  # the network is never so sure: nothing is corrected
    model = make("depict", x, "fast", **config)

    model.fit(x, Run(on_step=states.append))

    start = next(state for state in states if state.phase == "graph" and state.is_epoch).assignments
    epochs = [state for state in states if state.is_epoch]
    held = next(state for state in reversed(epochs) if state.phase == "hold")
    assert epochs[-1].phase == "keep"
    assert np.array_equal(model.predict(x), start)  # noise has nothing else to go by
    assert not np.array_equal(held.assignments, start)
    assert [state.progress for state in states] == sorted(state.progress for state in states)
