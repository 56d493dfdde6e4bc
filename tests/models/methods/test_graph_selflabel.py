"""`graph-selflabel`: what teaches, when rounds end, and that wrong labels of the start are corrected."""

import math

import numpy as np
import pytest
import torch

from models.base import Run
from models.methods.graph_selflabel.method import Distil, Hold, Pair, SelfLabelling
from models.methods.graph_selflabel.network import SelfLabelNetwork
from models.start.graph import GraphStart
from models.worth.metrics import acc
from tests.factories import blobs_of_pixels
from tests.models.battery import make


class Kept:
    """A dataset's starts, of which there is one."""

    def __init__(self, labels: np.ndarray, confidence: np.ndarray) -> None:
        self.start = GraphStart(labels, confidence.astype(np.float32), "raw", 1.0)

    def find(self, key: str):
        return self.start.tensors(), self.start.facts()

    def keep(self, *_):
        raise AssertionError("it was found")


@pytest.fixture
def x() -> np.ndarray:
    return blobs_of_pixels(60)[0][:, None]


def learned(x: np.ndarray, labels: np.ndarray, confidence: np.ndarray, **values) -> Hold:
    """The first stage, as it begins; few images make a large flow."""
    model = make("graph-selflabel", x, "fast", **{"max_flow": 1.0, **values})
    return Hold(model, x, Run(), Kept(labels, confidence).start)


def answering(stage, answers: torch.Tensor, confidence: torch.Tensor):
    """A stage whose teacher answers this."""
    stage.answers = lambda: (answers, confidence)
    return stage


def test_wrong_labels_of_the_start_are_corrected_by_what_the_others_show(x):
    kinds = blobs_of_pixels(60)[1]
    labels, confidence = kinds.copy(), np.ones(60)
    labels[:9] = (kinds[:9] + 1) % 3
    confidence[:6] = 0.4  # three wrong ones teach, too

    model = make("graph-selflabel", x, "fast", max_flow=0.5).fit(x, Run(starts=Kept(labels, confidence)))

    assert acc(kinds, labels) == pytest.approx(51 / 60)
    assert acc(kinds, model.predict(x)) == 1.0
    assert (model.predict(x)[9:] == labels[9:]).all()  # clusters keep the numbers of the start


@torch.no_grad()
def test_at_first_the_sure_images_teach_and_what_they_are_taught_is_the_start(x):
    labels, confidence = np.arange(60) % 3, np.linspace(1, 0, 60)
    hold = learned(x, labels, confidence, min_confidence=0.4)
    hold.augment = lambda images: images
    student, inputs = hold.module.student.eval(), torch.from_numpy(x)

    logits = student.logits(student.embed(hold.scale(inputs[:36])))
    by_hand = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[:36]), label_smoothing=0.1)

    assert (hold.teaches.bool().numpy() == (confidence >= 0.4)).all()
    assert float(hold.loss(inputs, torch.arange(60))["labels"]) == pytest.approx(float(by_hand), rel=1e-5)


def test_where_the_teacher_is_unsure_the_starts_label_stays_and_does_not_teach(x):
    labels = np.repeat([0, 1, 2], 20)
    hold = learned(x, labels, np.ones(60), min_confidence=0.7)
    answers, confidence = torch.from_numpy(labels).clone(), torch.full((60,), 0.9)
    answers[:4], confidence[:4] = 1, torch.tensor([0.99, 0.71, 0.69, 0.1])  # two sure ones and two unsure ones

    rounds = SelfLabelling(hold, 1)
    answering(rounds, answers, confidence).relabel()

    assert rounds.labels[:5].tolist() == [1, 1, 0, 0, 0]
    assert rounds.teaches[:5].tolist() == [1, 1, 0, 0, 1]
    distil = Distil(rounds)
    assert distil.labels.tolist() == rounds.labels.tolist()
    assert distil.teaches.min() == 1


@pytest.mark.parametrize(
    ("n_changed", "n_rounds"),
    [
        ([0], 1),  # nothing changed
        ([12, 6, 3, 3], 4),  # as many as before: that corrects nothing
        ([6, 6], 2),
        ([12, 11], 2),  # more than nine tenths
        ([12, 10, 8, 0], 4),
    ],
)
def test_rounds_end_when_labels_settle_or_stop_settling(x, n_changed, n_rounds):
    labels = np.repeat([0, 1, 2], 20)
    rounds = answering(SelfLabelling(learned(x, labels, np.ones(60)), 2), torch.from_numpy(labels), torch.ones(60))
    rounds.relabel()

    n_done, answers = 0, torch.from_numpy(labels).clone()
    for n in n_changed:
        answers = answers.clone()
        answers[:n] = (answers[:n] + 1) % 3
        answering(rounds, answers, torch.ones(60))
        before = rounds.labels.tolist()
        assert rounds.end_epoch(2 * n_done).tolist() == before  # in the middle of a round
        assert not rounds.is_over()
        assert rounds.end_epoch(2 * n_done + 1).tolist() == answers.tolist()
        n_done += 1
        if rounds.is_over():
            break

    assert n_done == n_rounds
    assert rounds.moved[0] == pytest.approx(n_changed[n_rounds - 1] / 60)


def test_the_teacher_is_a_running_mean_of_the_student_batch_norms_figures_included():
    pair = Pair(SelfLabelNetwork(1, 8, 3))
    before = {name: value.clone() for name, value in pair.teacher.state_dict().items()}
    with torch.no_grad():
        for value in pair.student.state_dict().values():
            value += 4 if value.is_floating_point() else 0

    pair.follow(0.75)

    for name, value in pair.teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + (1 if value.is_floating_point() else 0))
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())


@pytest.mark.parametrize(("side", "seen"), [(8, 8), (28, 28), (48, 48), (63, 63), (64, 32), (128, 32), (200, 33)])
def test_long_sides_are_averaged_down_and_short_ones_kept(side, seen):
    network = SelfLabelNetwork(3, side, 5).eval()

    assert network.shrink(torch.zeros(2, 3, side, side)).shape == (2, 3, seen, seen)
    assert network.assign(network.embed(torch.rand(2, 3, side, side))).sum(dim=1).tolist() == pytest.approx([1, 1])


def test_a_round_that_never_came_is_no_reason_to_end(x):
    rounds = SelfLabelling(learned(x, np.repeat([0, 1, 2], 20), np.ones(60)), 5)

    assert rounds.moved.tolist() == [1, math.inf]
    assert not rounds.is_over()


def test_images_with_a_known_target_always_teach_it_whatever_start_and_teacher_say(x):
    labels = np.repeat([0, 1, 2], 20)
    model = make("graph-selflabel", x, "fast", max_flow=1.0)
    model.known = {0: 9, 1: 9, 2: 9, 20: 5, 45: 9}  # target 9 lies mostly in cluster 0, target 5 in cluster 1
    hold = Hold(model, x, Run(), Kept(labels, np.linspace(1, 0, 60)).start)

    assert hold.labels[[0, 20, 45]].tolist() == [0, 1, 0]
    assert hold.teaches[45] == 1
    assert hold.partition.tolist() == hold.labels.tolist()

    rounds = SelfLabelling(hold, 1)
    answering(rounds, torch.full((60,), 2), torch.ones(60)).relabel()

    assert rounds.labels[[0, 20, 45]].tolist() == [0, 1, 0]
    assert rounds.labels[[3, 21, 44]].tolist() == [2, 2, 2]


def test_known_targets_redraw_a_border_that_nothing_else_may(x):
    labels = np.repeat([0, 1, 2], 20)
    model = make("graph-selflabel", x, "fast", max_flow=0.05)
    model.known = {
        40: 1,
        41: 1,
        0: 0,
        1: 0,
        2: 0,
        20: 1,
        21: 1,
        22: 1,
        59: 2,
        58: 2,
        57: 2,
    }  # two of cluster 2 are of 1
    rounds = SelfLabelling(Hold(model, x, Run(), Kept(labels, np.ones(60)).start), 1)
    answers = torch.from_numpy(labels).clone()
    answers[42:46] = 1  # as the known ones do
    answers[3:7] = 1  # a border that no known image speaks of
    answering(rounds, answers, torch.ones(60)).relabel()

    assert rounds.labels[40:46].tolist() == [1] * 6
    assert rounds.labels[3:7].tolist() == [0] * 4


@pytest.mark.parametrize("values", [{"batch_size": 59}, {"batch_size": 1, "n_hold_steps": 2, "n_rounds": 0}])
def test_a_batch_of_one_image_is_learned_like_any_other(x, values):
    model = make("graph-selflabel", x, "fast", **values)
    model.fit(x, Run(starts=Kept(np.arange(60) % 3, np.ones(60))))

    assert np.isfinite(model.assign(x)).all()
