"""What may be done with models and what they leave."""

from app.errors import InUse, NotFound
from app.schemas.models import ModelPatch
from app.store import Session, jobs, models, now
from app.store.tables import AssignmentSetRow, ClusterRow, ModelRow


def get(session: Session, tenant_id: str, model_id: str, *, lock: bool = False) -> ModelRow:
    """The tenant's model.

    Raises:
        NotFound: `model_not_found`.
    """
    row = models.get(session, tenant_id, model_id, lock=lock)
    if row is None:
        raise NotFound(f"there is no model {model_id}", code="model_not_found")
    return row


def patch(session: Session, tenant_id: str, model_id: str, payload: ModelPatch) -> ModelRow:
    """Change a model's name or description.

    Raises:
        NotFound: `model_not_found`.
    """
    row = get(session, tenant_id, model_id, lock=True)
    for name, value in payload.model_dump(exclude_none=True).items():
        setattr(row, name, value)
    row.updated_at = now(session)
    return row


def delete(session: Session, tenant_id: str, model_id: str) -> None:
    """Forget a model and its assignment sets; their files go with the next sweep.

    Raises:
        NotFound: `model_not_found`.
        InUse: `in_use` while a job assigns with it.
    """
    get(session, tenant_id, model_id, lock=True)
    users = jobs.unfinished_using(session, model_id=model_id)
    if users:
        raise InUse(f"unfinished jobs use it: {', '.join(users[:5])}")
    models.delete_model(session, model_id)


def get_with_artifact(session: Session, tenant_id: str, model_id: str, name: str) -> ModelRow:
    """The tenant's model that has a file of that name; its bytes are read once the session is closed.

    Raises:
        NotFound: `model_not_found`, `artifact_not_found`.
    """
    row = get(session, tenant_id, model_id)
    if name not in row.artifacts:
        raise NotFound(f"the model has no artifact {name[:100]!r}", code="artifact_not_found")
    return row


def get_set(session: Session, tenant_id: str, set_id: str) -> AssignmentSetRow:
    """The tenant's assignment set.

    Raises:
        NotFound: `assignment_set_not_found`.
    """
    row = models.get_set(session, tenant_id, set_id)
    if row is None:
        raise NotFound(f"there is no assignment set {set_id}", code="assignment_set_not_found")
    return row


def get_cluster(session: Session, set_id: str, number: int) -> ClusterRow:
    """One cluster of a set.

    Raises:
        NotFound: `cluster_not_found`.
    """
    row = models.cluster(session, set_id, number)
    if row is None:
        raise NotFound(f"there is no cluster {number}", code="cluster_not_found")
    return row
