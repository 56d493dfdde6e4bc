"""Assign: a model over another dataset, through the same graph and image rule as single requests.

A small dataset is one job. A large one is split: each child job assigns a part, and the parent job merges the parts.
"""

from app.errors import Invalid
from app.inference.served import ServedModel, n_cores
from app.store import assignment_files
from app.store.assignment_files import BY_IMAGE, Assignments, Written
from app.store.model_files import CALIBRATION_NAME
from app.store.models import mismatch
from app.store.parquet import ParquetFiles
from app.store.results import AssignResult, PartResult, Scores
from workers import bulk, inputs
from workers.work import Span, Work

ASSIGN, MERGE_FROM = Span(0.0, 0.95), 0.95


def run(work: Work) -> AssignResult | PartResult:
    """Assign all images or those of one part, or merge the parts into one set."""
    model, config = work.model, work.job.config
    assert model is not None
    if reason := mismatch(model.input_spec, work.dataset):  # an upload was not read yet when the job was created
        raise Invalid(reason, code="wrong_data")
    if work.part_prefixes:
        work.report.phase("merge", MERGE_FROM)
        written = assignment_files.merge(work.blobs, work.prefix, work.part_prefixes, model.n_clusters)
        return _result(work, written)
    start, stop = config.get("start", 0), config.get("stop", work.dataset.n_images)
    is_part = "stop" in config
    work.report.phase("assign", ASSIGN.start)
    served = _served(work, work.settings.runner_threads or (1 if is_part else n_cores()))
    blocks = inputs.blocks(work, served.spec, start, stop)
    assignments = bulk.assign_all(work, served, blocks, stop - start, ASSIGN)
    work.report.phase("publish", ASSIGN.stop)
    if is_part:
        part = Assignments(assignments.cluster, assignments.confidence, assignments.is_outlier, first=start)
        assignment_files.write_part(work.blobs, work.prefix, part)
        return PartResult()
    written = assignment_files.write(work.blobs, work.prefix, assignments, model.n_clusters)
    return _result(work, written)


def _served(work: Work, n_threads: int) -> ServedModel:
    model = work.model
    assert model is not None
    calibration = work.blobs.get(f"{model.prefix}/{CALIBRATION_NAME}") if CALIBRATION_NAME in model.artifacts else None
    return ServedModel.load(work.blobs.get(f"{model.prefix}/model.onnx"), model.input_spec, n_threads, calibration)


def _result(work: Work, written: Written) -> AssignResult:
    return AssignResult(assignment_set=bulk.summary(written, _scores(work)), clusters=written.clusters)


def _scores(work: Work) -> Scores:
    """Scores against the dataset's targets, from the file just written; empty if it has no targets."""
    targets = bulk.targets(work)
    if targets is None:
        return {}
    from models.worth import metrics  # slow to import, and a part of a job does not need it

    rows = ParquetFiles(work.blobs).rows(f"{work.prefix}/{BY_IMAGE}", 0, len(targets), ["cluster"])
    return {**metrics.with_targets(targets, rows["cluster"].to_numpy())}
