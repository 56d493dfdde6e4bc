"""What a user knows beforehand, matched to the clusters of a start."""

import numpy as np

from models.parts.known import match_known, match_prior


def test_known_targets_take_the_clusters_they_mostly_lie_in():
    labels = np.array([2, 2, 2, 0, 0, 1])

    # Target 9 lies twice in cluster 2 and once in 0, target 5 once in 0.
    assert match_known(labels, {0: 9, 1: 9, 3: 9, 4: 5}, 3) == {0: 2, 1: 2, 3: 2, 4: 0}
    assert match_known(labels, {}, 3) == {}


def test_two_targets_in_one_cluster_still_get_two():
    found = match_known(np.zeros(4, np.int64), {0: 1, 1: 1, 2: 8}, 2)

    assert found == {0: 0, 1: 0, 2: 1}


def test_clusters_take_the_numbers_of_the_prior_by_size():
    labels = np.array([0, 0, 0, 1, 2, 2])

    assert match_prior(labels, np.array([0.1, 0.2, 0.7])).tolist() == [2, 2, 2, 0, 1, 1]
