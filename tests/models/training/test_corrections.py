"""What may change of a partition that a network has learned."""

import torch

from models.training.corrections import CorrectionRule, corrected, redrawn

BEFORE = torch.tensor([0] * 40 + [1] * 20 + [2] * 20)


def test_single_images_may_change_cluster_and_borders_may_not():
    before = torch.tensor([0] * 40 + [1] * 20 + [2] * 2)
    after = before.clone()
    after[:2] = 1  # two of 40 to a cluster of 20: a tenth of the smaller
    after[2] = 2  # one alone, to a cluster of two
    after[40:43] = 0  # three of 20

    found = [redrawn(before, after, 3, most).nonzero().flatten().tolist() for most in (0.05, 0.1, 0.15, 1.0)]

    assert found == [[0, 1, 40, 41, 42], [40, 41, 42], [], []]


def test_only_sure_answers_correct_and_many_together_do_not():
    answers, is_sure = BEFORE.clone(), torch.ones(80, dtype=torch.bool)
    answers[0] = answers[1] = 1  # one sure of it, one not
    is_sure[1] = False
    answers[40:43] = 2  # three of twenty redraw a border

    found = corrected(BEFORE, answers, is_sure, CorrectionRule(3, 0.05))

    assert torch.nonzero(found != BEFORE).flatten().tolist() == [0]
    assert found[0] == 1


def test_images_with_known_targets_have_them_and_others_may_cross_the_borders_that_they_cross():
    answers = BEFORE.clone()
    answers[40:43] = 2
    answers[60:63] = 0
    known = {45: 2, 79: 1}

    found = corrected(BEFORE, answers, torch.ones(80, dtype=torch.bool), CorrectionRule(3, 0.05, known))

    assert torch.nonzero(found != BEFORE).flatten().tolist() == [40, 41, 42, 45, 79]
    assert found[[45, 79]].tolist() == [2, 1]


def test_a_partition_that_all_answers_repeat_stays_as_it_is():
    is_sure = torch.ones(80, dtype=torch.bool)

    assert corrected(BEFORE, BEFORE, is_sure, CorrectionRule(3, 0.0)).equal(BEFORE)
