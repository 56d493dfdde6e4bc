"""A method's own clustering that strays from the partition its network had learned is undone."""

import numpy as np
import pytest
import torch

from models.base import Run
from models.errors import Collapsed
from models.methods.adaptive_gmm.method import Joint
from models.methods.depict.method import Clustering
from tests.models.battery import make

# Of noise: every step moves some of it.
X = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), np.uint8)
WILD = {
    "adaptive-gmm": {"learning_rate": 0.004, "n_steps": 6, "stop_change": 0.0},
    "dual-autoencoder": {"cluster_learning_rate": 0.1, "n_epochs": 1},
    "precise-feature": {"learning_rate": 0.05},
}


def fit(method: str, max_move: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The assignments at the end of each phase, and the model's."""
    states = []
    model = make(method, X, "fast", max_move=max_move, **WILD[method])
    model.fit(X, Run(on_step=states.append))
    return {state.phase: state.assignments for state in states if state.is_epoch}, model.predict(X)


@pytest.mark.parametrize("method", WILD)
def test_clustering_that_strays_is_undone_and_the_partition_kept(method):
    last, found = fit(method, max_move=1e-9)

    assert not np.array_equal(last["cluster"], last["restore"])
    if "keep" in last:  # the corrected partition is learned after it
        assert list(last)[-2:] == ["restore", "keep"]
    else:
        assert np.array_equal(last["restore"], found)


@pytest.mark.parametrize("method", WILD)
def test_clustering_that_keeps_to_it_is_kept(method):
    last, found = fit(method, max_move=1.0)

    assert "restore" not in last
    assert np.array_equal(found, fit(method, max_move=0.0)[1])  # as if nothing could be undone


def test_a_game_that_strays_gives_back_the_classifier_that_had_seen_real_images_alone():
    last, _ = fit("precise-feature", max_move=1e-9)

    assert not np.array_equal(last["imitate"], last["hold"])
    assert np.array_equal(last["restore"], last["hold"])


@pytest.mark.parametrize(("method", "stage"), [("adaptive-gmm", Joint), ("depict", Clustering)])
def test_clustering_that_collapses_is_undone_and_fails_only_where_that_is_off(monkeypatch, method, stage):
    monkeypatch.setattr(stage, "recluster", lambda self, epoch: torch.zeros(len(X), dtype=torch.long))
    states = []
    model = make(method, X, "fast", max_move=0.02).fit(X, Run(on_step=states.append))

    assert any(state.phase == "restore" for state in states)
    assert len(set(model.predict(X).tolist())) > 1
    with pytest.raises(Collapsed):
        make(method, X, "fast", max_move=0.0).fit(X)
