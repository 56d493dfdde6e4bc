"""Bulk assignment: a whole dataset through a served model. `train` and `assign` share it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.served import ServedModel
from app.store.assignment_files import Assignments, Written
from app.store.results import AssignmentSetFacts, Scores
from workers.inputs import reader
from workers.work import Span, Work


def assign_all(work: Work, served: ServedModel, inputs: Iterable[NDArray[Any]], n: int, span: Span) -> Assignments:
    """Assign `n` inputs that arrive in blocks (m, ...), with the serving graph that also assigns new images."""
    cluster, confidence = np.empty(n, np.int32), np.empty(n, np.float32)
    is_outlier, done = np.empty(n, np.bool_), 0
    for block in inputs:
        assigned, rows = served.assign(block), slice(done, done + len(block))
        cluster[rows], confidence[rows], is_outlier[rows] = assigned.cluster, assigned.confidence, assigned.is_outlier
        done += len(block)
        work.report.step(span.at(done / n))
    return Assignments(cluster, confidence, is_outlier)


def summary(written: Written, scores: Scores) -> AssignmentSetFacts:
    """What the table says of a set whose files are written."""
    n_images = sum(cluster.size for cluster in written.clusters)
    return AssignmentSetFacts(n_images=n_images, n_outliers=written.n_outliers, scores=scores)


def targets(work: Work) -> NDArray[np.int64] | None:
    """The dataset's targets (N,), for scores only: -1 where an image has none, None if the dataset has none."""
    if not work.dataset.has_targets:
        return None
    labels = reader(work).labels()
    labels[[int(index) for index in work.job.known]] = -1  # targets the method was given do not count
    return labels
