"""Places to learn a partition towards."""

import pytest
import torch

from models.parts.anchors import balanced_corners


@pytest.mark.parametrize(("k", "d"), [(3, 10), (10, 10), (40, 40), (40, 10), (200, 128)])
def test_anchors_are_distinct_corners_and_balanced(k, d):
    corners = balanced_corners(k, d, torch.Generator().manual_seed(0))

    assert set(corners.unique().tolist()) == {0.0, 1.0}
    assert len(corners.unique(dim=0)) == k
    assert float((corners.mean(dim=0) - 0.5).abs().max()) <= 0.5 / k + 1e-6


def test_more_clusters_than_corners_get_distinct_places():
    places = balanced_corners(2_000, 10, torch.Generator().manual_seed(0))

    assert len(places.unique(dim=0)) == 2_000
    assert 0 <= places.min() < places.max() <= 1
