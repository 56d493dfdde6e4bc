"""Making results visible: the rows an ended job leaves, in the transaction that ends it.

Files are written first, under the attempt's own prefix; a row that names the prefix is what publishes them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.store import uploads, webhooks
from app.store.blobs import prefix
from app.store.ids import new_id
from app.store.session import now
from app.store.tables import AssignmentSetRow, ClusterRow, DatasetRow, JobRow, ModelRow


def publish(session: Session, job: JobRow, result: dict[str, Any]) -> None:
    """Write the rows of a job that has just succeeded."""
    published = prefix(job.tenant_id, job.kind, job.id, job.fence)
    moment = now(session)
    if job.kind == "ingest":
        _publish_dataset(session, job, published, result, moment)
    elif job.kind == "train":
        _publish_model(session, job, published, result, moment)
    elif job.parent_id is None:  # parts of one publish nothing: their job makes one set of them
        assert job.model_id is not None
        _publish_set(session, job, job.model_id, result, moment)
    webhooks.tell_end(session, job, moment)


def _publish_dataset(session: Session, job: JobRow, published: str, result: dict[str, Any], moment: datetime) -> None:
    dataset = session.get_one(DatasetRow, job.dataset_id)
    for name, value in result.items():
        setattr(dataset, name, value)
    dataset.state, dataset.prefix, dataset.updated_at = "ready", published, moment
    upload_id, dataset.upload_id = dataset.upload_id, None
    session.flush()
    if upload_id is not None:
        uploads.delete_upload(session, upload_id)


def _publish_model(session: Session, job: JobRow, published: str, result: dict[str, Any], moment: datetime) -> None:
    model = ModelRow(
        id=new_id("mdl"),
        tenant_id=job.tenant_id,
        name=job.name or f"{job.method} of {job.dataset_id}",
        job_id=job.id,
        dataset_id=job.dataset_id,
        method=job.method,
        profile=job.profile,
        seed=job.seed,
        prefix=published,
        created_at=moment,
        updated_at=moment,
        **result["model"],
    )
    model.assignment_set_id = _publish_set(session, job, model.id, result, moment)
    session.add(model)
    job.model_id = model.id


def _publish_set(session: Session, job: JobRow, model_id: str, result: dict[str, Any], moment: datetime) -> str:
    row = AssignmentSetRow(
        id=new_id("aset"),
        tenant_id=job.tenant_id,
        model_id=model_id,
        dataset_id=job.dataset_id,
        job_id=job.id,
        prefix=prefix(job.tenant_id, job.kind, job.id, job.fence),
        created_at=moment,
        **result["assignment_set"],
    )
    session.add(row)
    session.flush()
    session.add_all(
        ClusterRow(assignment_set_id=row.id, tenant_id=job.tenant_id, **cluster) for cluster in result["clusters"]
    )
    job.assignment_set_id = row.id
    return row.id
