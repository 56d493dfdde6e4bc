"""Graphs of our own making behind a served model."""

import numpy as np
import pytest

from app.inference.served import ServedModel
from models.pixels import InputSpec
from models.worth.calibration import Calibration
from tests.factories import tiny_graph

SPEC = InputSpec("vectors", n_features=2)
X = np.array([[1, 3], [0, 0], [2, 2]], np.float32)


def test_an_input_without_finite_probabilities_belongs_nowhere():
    calibration = Calibration.of_distances(np.arange(101, dtype=np.float32), np.zeros(101, np.int64), 2)

    found = ServedModel(tiny_graph(), SPEC, calibration=calibration).assign(X, with_embedding=True)

    assert found.cluster.tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.confidence, [0.75, 0.0, 0.5])
    assert found.is_outlier.tolist() == [False, True, False]
    assert found.outlier_score[1] == 1.0
    np.testing.assert_array_equal(found.embedding, X)


def test_a_model_of_an_early_release_has_flags_and_no_embedding():
    model = ServedModel(tiny_graph(has_distance=False), SPEC)

    found = model.assign(X, with_embedding=True)

    assert not model.has_embedding
    assert found.embedding is None
    assert found.is_outlier.tolist() == [True, True, False]
    assert found.outlier_score.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_chunks_give_what_rows_give(n):
    x = np.random.default_rng(0).random((n, 2), np.float32)

    found = ServedModel(tiny_graph(), SPEC).assign(x)

    np.testing.assert_array_equal(found.cluster, x.argmax(axis=1))
    np.testing.assert_allclose(found.confidence, (x / x.sum(axis=1, keepdims=True)).max(axis=1), rtol=1e-6)
