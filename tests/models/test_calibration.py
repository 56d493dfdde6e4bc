"""Distances and confidence of a model against hand-worked numbers and a known truth."""

import numpy as np
import pytest

from models.worth import stability
from models.worth.calibration import Calibration


def test_scores_are_shares_of_training_images_that_lie_nearer():
    distance = np.arange(101, dtype=np.float32)  # knots are exactly 0, 1, ... 100, but for the margin of 1e-5
    calibration = Calibration.of_distances(distance, np.zeros(101, np.int64), 2)

    scores = calibration.outlier_score(np.zeros(4, np.int32), np.array([0.0, 50.5, 99.9, 500.0], np.float32))

    np.testing.assert_allclose(scores, [0.0, 0.505, 0.999, 1.0], atol=1e-4)
    np.testing.assert_allclose(calibration.radii()[0], 99, rtol=1e-4)


def test_a_cluster_without_images_has_no_outliers():
    calibration = Calibration.of_distances(np.ones(5, np.float32), np.zeros(5, np.int64), 2)

    assert calibration.outlier_score(np.ones(1, np.int32), np.array([1e30], np.float32)).tolist() == [0.0]


def test_copies_of_one_image_are_no_outliers_and_other_images_are():
    distance = np.repeat([0.0, 5.0, 7.0], [40, 1, 59]).astype(np.float32)
    distance[41:] += np.linspace(0, 1, 59, dtype=np.float32)
    cluster = np.repeat([0, 1, 2], [40, 1, 59])  # forty copies, one image alone, and a usual cluster
    calibration = Calibration.of_distances(distance, cluster, 3)

    assert calibration.outlier_score(cluster, distance)[:41].max() < 0.99
    rounded = np.array([1e-6, 5.00001], np.float32)
    assert (calibration.outlier_score(np.array([0, 1]), rounded) < 0.99).all()
    assert calibration.outlier_score(np.array([0, 1]), np.array([0.5, 5.5], np.float32)).tolist() == [1.0, 1.0]
    assert (calibration.radii()[:2] > [0.0, 5.0]).all()


def test_of_images_at_one_distance_none_is_nearer():
    distance = np.repeat([0.0, 1.0], [50, 50]).astype(np.float32)
    calibration = Calibration.of_distances(distance, np.zeros(100, np.int64), 1)

    scores = calibration.outlier_score(np.zeros(2, np.int32), np.array([0.0, 1.0], np.float32))

    assert scores[0] == 0.0
    assert 0.4 < scores[1] < 0.6  # half of them lie nearer


def test_no_training_image_at_the_99_percent_knot_is_an_outlier():
    distance = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
    calibration = Calibration.of_distances(distance, np.zeros(1000, np.int64), 1)

    scores = calibration.outlier_score(np.zeros(1000, np.int32), distance)

    assert (scores > 0.99).sum() == 9  # of 1,000 images 9 lie beyond the smallest distance that 99 % do not exceed
    assert (np.argsort(scores, kind="stable") == np.argsort(distance, kind="stable")).all()


def test_a_calibration_is_what_it_was_after_a_file():
    before = Calibration(np.random.default_rng(0).random((3, 101)).astype(np.float32), 0.5, -1.25)

    after = Calibration.from_bytes(before.to_bytes())

    assert (after.slope, after.offset) == (0.5, -1.25)
    np.testing.assert_array_equal(after.knots, before.knots)


def test_platts_scaling_finds_the_truth_it_was_drawn_from():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.4, 0.9999, 200_000)
    truth = 1 / (1 + np.exp(-(0.6 * np.log(p / (1 - p)) - 0.3)))

    slope, offset = stability.fit(p, rng.random(len(p)) < truth)

    assert slope == pytest.approx(0.6, abs=0.01)
    assert offset == pytest.approx(-0.3, abs=0.02)


def test_calibrated_confidence_is_the_chance_to_keep_the_cluster():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0, 1, (400, 8)), rng.normal(0.5, 1, (400, 8))]).astype(np.float32)

    def overconfident(inputs):
        score = 40 * (inputs.sum(axis=1) - 2)
        p = 1 / (1 + np.exp(-np.abs(score).clip(0, 30)))
        return (score > 0).astype(np.int32), p.astype(np.float32)

    slope, offset = stability.fit(*stability.measure(overconfident, x, seed=0))
    raw, kept = stability.measure(overconfident, x, seed=1)
    calibrated = Calibration(np.zeros((2, 101), np.float32), slope, offset).confidence(raw.astype(np.float32))

    assert expected_error(calibrated, kept) < 0.7 * expected_error(raw, kept)
    assert expected_error(calibrated, kept) < 0.03


def expected_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over ten equal groups."""
    order = np.argsort(confidence, kind="stable")
    return float(np.mean([abs(confidence[g].mean() - is_right[g].mean()) for g in np.array_split(order, 10)]))


def test_confidence_keeps_its_order():
    p = np.sort(np.random.default_rng(0).random(1000)).astype(np.float32)

    found = Calibration(np.zeros((1, 101), np.float32), 0.3, 1.0).confidence(p)

    assert (np.diff(found) >= 0).all()
    assert 0 < found[0] < found[-1] < 1
