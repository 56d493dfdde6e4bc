"""Inputs on their way to the device."""

import numpy as np
import torch

from models.parts.inputs import BATCHES_AHEAD, Inputs

X = np.arange(200, dtype=np.float32).reshape(100, 2)


def test_prefetched_batches_are_those_asked_for_in_their_order():
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    indexes = list(order.split(3))  # more batches than one block holds, the last of them short
    inputs = Inputs(X, "cpu")

    batches = list(inputs._prefetched(indexes))

    assert len(indexes) > 2 * BATCHES_AHEAD
    for (x, index), expected in zip(batches, indexes, strict=True):
        assert torch.equal(index, expected)
        assert torch.equal(x, torch.from_numpy(X)[expected])


def test_rows_and_slices_are_copies_of_the_stored_ones():
    inputs = Inputs(X, "cpu")

    rows, part = inputs.rows(torch.tensor([7, 7, 2])), inputs.slice(90, 120)
    rows[0], part[0] = -1, -1

    assert rows[1:].tolist() == [[14, 15], [4, 5]]
    assert part[1:].tolist() == X[91:].tolist()
    assert (X >= 0).all()
    assert len(inputs) == 100
