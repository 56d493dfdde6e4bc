"""Scores against numbers worked by hand."""

import math

import numpy as np
import pytest

from models.worth import metrics


def test_accuracy_maps_clusters_to_targets_one_to_one():
    # Cluster 1 is target 0 (2 right), cluster 0 is target 1 (1 right), cluster 2 is target 2 (1 right): 4 of 6.
    assert metrics.acc([0, 0, 0, 1, 1, 2], [1, 1, 0, 0, 2, 2]) == pytest.approx(4 / 6)


def test_accuracy_with_more_clusters_than_targets_leaves_clusters_over():
    assert metrics.acc([0, 0, 1, 1], [0, 1, 2, 3]) == 0.5


def test_accuracy_of_random_labels_is_near_chance_over_all_rows_at_once():
    random = np.random.default_rng(0)

    assert metrics.acc(np.arange(10_000) % 10, random.integers(0, 10, 10_000)) < 0.125


def test_both_normalisations_of_mutual_information():
    # I = ln 2, H(targets) = ln 2, H(clusters) = ln 4.
    targets, clusters = [0, 0, 1, 1], [0, 1, 2, 3]

    assert metrics.nmi(targets, clusters) == pytest.approx(math.log(2) / ((math.log(2) + math.log(4)) / 2))
    assert metrics.nmi_max(targets, clusters) == pytest.approx(0.5)


def test_adjusted_rand_of_a_hand_worked_table():
    # Table [[2, 1], [0, 3]]: pairs together in both 1 + 3 = 4, in targets 3 + 3 = 6, in clusters 1 + 6 = 7, of 15.
    expected = (4 - 6 * 7 / 15) / ((6 + 7) / 2 - 6 * 7 / 15)

    assert metrics.ari([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]) == pytest.approx(expected)


def test_uniformity_is_one_for_equal_sizes_and_counts_empty_clusters():
    assert metrics.uniformity([5, 5, 5]) == pytest.approx(1)
    assert metrics.uniformity([8, 8, 0, 0]) == pytest.approx(0.5)


def test_rows_without_a_target_are_left_out():
    scores = metrics.with_targets(np.array([0, -1, 1]), np.array([1, 1, 0]))

    assert scores == {"acc": 1.0, "nmi": 1.0, "nmi_max": 1.0, "ari": 1.0}
    assert metrics.with_targets(np.array([-1, -1]), np.array([0, 1])) == {}


def test_silhouette_needs_two_clusters():
    embedding = np.array([[0.0], [0.1], [9.0], [9.1]], np.float32)

    assert metrics.silhouette(embedding, np.array([0, 0, 1, 1])) > 0.95
    assert metrics.silhouette(embedding, np.zeros(4, int)) is None
