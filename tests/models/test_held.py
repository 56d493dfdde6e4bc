"""A method's own clustering that strays from the partition its network had learned is undone."""

import numpy as np
import pytest

from models.base import Run
from models.metrics import ari
from tests.models.battery import images, make

WILD = {
    "adaptive-gmm": {"learning_rate": 0.001, "n_steps": 20, "stop_change": 0.0},
    "dual-autoencoder": {"cluster_learning_rate": 1.0, "n_epochs": 1},
    "precise-feature": {"learning_rate": 0.05, "n_hold_steps": 60, "n_imitation_steps": 20, "n_steps": 6},
}


@pytest.mark.parametrize("method", WILD)
def test_clustering_that_strays_is_undone_and_the_partition_kept(method):
    x, kinds = images(side=16)
    states = []
    model = make(method, x, "fast", max_move=1e-9, **WILD[method])

    model.fit(x, Run(on_step=states.append))

    epochs = [state for state in states if state.is_epoch]
    assert epochs[-1].phase == "restore"
    assert ari(epochs[-1].assignments, model.predict(x)) == 1.0
    assert ari(epochs[-2].assignments, model.predict(x)) < 1.0
    assert ari(kinds, model.predict(x)) > 0.9


@pytest.mark.parametrize("method", WILD)
def test_clustering_that_keeps_to_it_is_kept(method):
    x, _ = images(side=16)
    states = []

    make(method, x, "fast", max_move=1.0, **WILD[method]).fit(x, Run(on_step=states.append))

    assert "restore" not in [state.phase for state in states]


def test_a_game_that_strays_gives_back_the_classifier_that_had_seen_real_images_alone():
    x = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), np.uint8)
    states = []
    model = make("precise-feature", x, "fast", max_move=1e-9, **WILD["precise-feature"])

    model.fit(x, Run(on_step=states.append))

    last = {state.phase: state.assignments for state in states if state.is_epoch}
    assert not np.array_equal(last["imitate"], last["hold"])  # noise: every step moves some
    assert np.array_equal(last["restore"], last["hold"])
    assert np.array_equal(model.predict(x), last["hold"])
