"""Publishing results: the rows of a job that has succeeded, written in the transaction that ends it.

The files were written before, under the attempt's own prefix. They become visible once a row names that prefix.
"""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy.orm import Session

from app.store import uploads, webhooks
from app.store.blobs import prefix
from app.store.ids import new_id
from app.store.results import AssignResult, IngestResult, PartResult, Result, TrainResult
from app.store.session import now
from app.store.tables import AssignmentSetRow, ClusterRow, DatasetRow, JobRow, ModelRow


def publish(session: Session, job: JobRow, result: Result | None) -> None:
    """Write the rows of a job that has just succeeded."""
    moment = now(session)
    match job.kind, result:
        case "ingest", IngestResult():
            _publish_dataset(session, job, result, moment)
        case "train", TrainResult():
            _publish_model(session, job, result, moment)
        case "assign", AssignResult():
            assert job.model_id is not None
            _publish_set(session, job, job.model_id, result, moment)
        case "assign", PartResult():
            pass  # the parent publishes one set made of all parts
        case _:
            raise ValueError(f"a job of kind {job.kind} cannot end with {type(result).__name__}")
    webhooks.tell_end(session, job, moment)


def _publish_dataset(session: Session, job: JobRow, result: IngestResult, moment: datetime) -> None:
    dataset = session.get_one(DatasetRow, job.dataset_id)
    for name, value in vars(result).items():
        setattr(dataset, name, value)
    dataset.state, dataset.prefix, dataset.updated_at = "ready", _prefix(job), moment
    upload_id, dataset.upload_id = dataset.upload_id, None
    session.flush()
    if upload_id is not None:
        uploads.delete_upload(session, upload_id)


def _publish_model(session: Session, job: JobRow, result: TrainResult, moment: datetime) -> None:
    model = ModelRow(
        id=new_id("mdl"),
        tenant_id=job.tenant_id,
        name=job.name or f"{job.method} of {job.dataset_id}",
        job_id=job.id,
        dataset_id=job.dataset_id,
        method=job.method,
        profile=job.profile,
        seed=job.seed,
        prefix=_prefix(job),
        created_at=moment,
        updated_at=moment,
        **asdict(result.model),
    )
    model.assignment_set_id = _publish_set(session, job, model.id, result, moment)
    session.add(model)
    job.model_id, job.warnings = model.id, result.warnings


def _publish_set(
    session: Session, job: JobRow, model_id: str, result: TrainResult | AssignResult, moment: datetime
) -> str:
    row = AssignmentSetRow(
        id=new_id("aset"),
        tenant_id=job.tenant_id,
        model_id=model_id,
        dataset_id=job.dataset_id,
        job_id=job.id,
        prefix=_prefix(job),
        created_at=moment,
        **vars(result.assignment_set),
    )
    session.add(row)
    session.flush()
    session.add_all(
        ClusterRow(assignment_set_id=row.id, tenant_id=job.tenant_id, **vars(cluster)) for cluster in result.clusters
    )
    job.assignment_set_id = row.id
    return row.id


def _prefix(job: JobRow) -> str:
    """Where the attempt that succeeded has put its files."""
    return prefix(job.tenant_id, job.kind, job.id, job.fence)
