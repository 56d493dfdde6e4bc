"""What a training says of itself."""

import warnings

from sklearn.exceptions import ConvergenceWarning

from app.store.results import ClusterSummary
from app.store.tables import DatasetRow
from workers import remarks


class Fitted:
    """A model with nothing to say."""

    warnings = ()


def cluster(number: int, size: int) -> ClusterSummary:
    return ClusterSummary(
        cluster=number, size=size, first_row=0, confidence=0.9, n_outliers=0, exemplars=[], least_certain=[]
    )


def test_empty_clusters_and_a_library_that_did_not_converge_are_told():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("Best performing initialization did not converge. Try others.", ConvergenceWarning, stacklevel=1)
        warnings.warn("of no matter", UserWarning, stacklevel=1)

    found = remarks.of(DatasetRow(n_images=10, facts={}), Fitted(), [cluster(0, 10), cluster(1, 0)], caught)

    assert [(one.code, one.message) for one in found] == [
        ("empty_clusters", "1 of 2 clusters hold no image."),
        ("convergence", "Best performing initialization did not converge."),
    ]
    assert found[0].examples == ["1"]


def test_a_plain_training_has_nothing_to_say():
    assert remarks.of(DatasetRow(n_images=10, facts={"n_one_colour": 8}), Fitted(), [cluster(0, 10)], []) == []
