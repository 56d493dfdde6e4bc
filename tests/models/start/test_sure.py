"""Which images a partition is sure of."""

import numpy as np
import torch

from models.start.sure import sure_rows


def test_sure_rows_are_those_above_the_bound_and_the_surer_half_of_each_cluster():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    confidence = torch.tensor([0.95, 0.7, 0.85, 0.3, 0.2, 0.1])

    assert sure_rows(labels, confidence, 0.8).tolist() == [True, False, True, True, True, False]


def test_sure_rows_are_those_of_a_median_taken_cluster_by_cluster():
    rng = np.random.default_rng(0)
    labels, confidence = (
        rng.integers(0, 7, 500) * 2,
        rng.random(500).astype(np.float32),
    )  # every second cluster is empty

    expected = confidence >= 0.9
    for k in np.unique(labels):
        expected |= (labels == k) & (confidence >= np.median(confidence[labels == k]))
    assert sure_rows(torch.from_numpy(labels), torch.from_numpy(confidence), 0.9).tolist() == expected.tolist()
