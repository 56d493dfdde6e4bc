"""Assignments of a whole dataset by a served model: computed and written. Training and bulk assignment share it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.served import ServedModel
from app.store import assignment_files
from app.store.assignment_files import Assignments
from workers.inputs import Span, reader
from workers.runner import Work

BLOCK = 1024


def assign_all(work: Work, served: ServedModel, inputs: NDArray[Any], span: Span) -> Assignments:
    """The cluster of every input (N, ...), from the same graph that will answer for new images."""
    parts = []
    for start in range(0, len(inputs), BLOCK):
        parts.append(served.assign(inputs[start : start + BLOCK]))
        work.report.step(span.at(start / len(inputs)))
    return Assignments(
        np.concatenate([part.cluster for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.is_outlier for part in parts]),
    )


def write(work: Work, assignments: Assignments, n_clusters: int, scores: dict[str, Any]) -> dict[str, Any]:
    """Write the assignment files; the rows to publish."""
    clusters = assignment_files.write(work.blobs, work.prefix, assignments, n_clusters)
    n_outliers = int(assignments.is_outlier.sum())
    facts = {"n_images": len(assignments.cluster), "n_outliers": n_outliers, "scores": scores}
    return {"assignment_set": facts, "clusters": clusters}


def targets(work: Work) -> NDArray[np.int64] | None:
    """The dataset's targets (N,), -1 where there is none; None where it has none at all. For scores only."""
    if not work.dataset.has_targets:
        return None
    found = reader(work).labels()
    found[[int(index) for index in work.job.known]] = -1  # what a method was told does not score it
    return found
