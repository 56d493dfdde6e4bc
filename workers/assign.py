"""Assign: a model over another dataset, through the same graph and image rule as single requests."""

import os
from typing import Any

from app.inference.served import ServedModel
from app.store.model_files import CALIBRATION_NAME
from models import metrics
from workers import inputs, outcome
from workers.inputs import Span
from workers.runner import Work

LOAD, ASSIGN = Span(0.0, 0.5), Span(0.5, 0.98)


def run(work: Work) -> dict[str, Any]:
    """Assign every image; the rows to publish."""
    model = work.model
    assert model is not None
    threads = work.settings.runner_threads or os.cpu_count() or 1
    calibration = work.blobs.get(f"{model.prefix}/{CALIBRATION_NAME}") if CALIBRATION_NAME in model.artifacts else None
    served = ServedModel.load(work.blobs.get(f"{model.prefix}/model.onnx"), model.input_spec, threads, calibration)
    work.report.phase("load", LOAD.start)
    x = inputs.load(work, served.spec, LOAD)
    work.report.phase("assign", ASSIGN.start)
    assignments = outcome.assign_all(work, served, x, ASSIGN)
    work.report.phase("publish", ASSIGN.stop)
    known = outcome.targets(work)
    scores = {} if known is None else metrics.with_targets(known, assignments.cluster)
    return outcome.write(work, assignments, model.n_clusters, scores)
