"""Model, assignment set and cluster rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.store.tables import AssignmentSetRow, ClusterRow, DatasetRow, ModelRow


def get(session: Session, tenant_id: str, model_id: str, *, lock: bool = False) -> ModelRow | None:
    """The tenant's model of that id."""
    statement = select(ModelRow).where(ModelRow.id == model_id, ModelRow.tenant_id == tenant_id)
    return session.scalars(statement.with_for_update() if lock else statement).one_or_none()


def query(tenant_id: str, dataset_id: str | None) -> Select[ModelRow]:
    """The tenant's models, of one dataset or all."""
    statement = select(ModelRow).where(ModelRow.tenant_id == tenant_id)
    return statement if dataset_id is None else statement.where(ModelRow.dataset_id == dataset_id)


def of_dataset(session: Session, dataset_id: str) -> Sequence[ModelRow]:
    """Models trained on a dataset, held against new jobs until the transaction ends."""
    statement = select(ModelRow).where(ModelRow.dataset_id == dataset_id).order_by(ModelRow.id)
    return session.scalars(statement.with_for_update()).all()


def delete_model(session: Session, model_id: str) -> None:
    """Forget a model and every assignment set it made; the sweep removes their files."""
    session.execute(delete(AssignmentSetRow).where(AssignmentSetRow.model_id == model_id))
    session.execute(delete(ModelRow).where(ModelRow.id == model_id))


def delete_sets_of_dataset(session: Session, dataset_id: str) -> None:
    """Forget every assignment set over a dataset."""
    session.execute(delete(AssignmentSetRow).where(AssignmentSetRow.dataset_id == dataset_id))


def get_set(session: Session, tenant_id: str, set_id: str) -> AssignmentSetRow | None:
    """The tenant's assignment set of that id."""
    row = session.get(AssignmentSetRow, set_id)
    return row if row is not None and row.tenant_id == tenant_id else None


def query_sets(tenant_id: str, model_id: str | None, dataset_id: str | None) -> Select[AssignmentSetRow]:
    """The tenant's assignment sets that match the filters."""
    statement = select(AssignmentSetRow).where(AssignmentSetRow.tenant_id == tenant_id)
    if model_id is not None:
        statement = statement.where(AssignmentSetRow.model_id == model_id)
    return statement if dataset_id is None else statement.where(AssignmentSetRow.dataset_id == dataset_id)


def clusters(session: Session, set_id: str, start: int, stop: int) -> Sequence[ClusterRow]:
    """Clusters `start`...`stop` - 1 of a set."""
    statement = select(ClusterRow).where(
        ClusterRow.assignment_set_id == set_id, ClusterRow.cluster >= start, ClusterRow.cluster < stop
    )
    return session.scalars(statement.order_by(ClusterRow.cluster)).all()


def cluster(session: Session, set_id: str, number: int) -> ClusterRow | None:
    """One cluster of a set."""
    return session.get(ClusterRow, (set_id, number))


def cluster_sizes(session: Session, set_id: str) -> list[int]:
    """How many images each cluster of a set has, in order."""
    statement = select(ClusterRow.size).where(ClusterRow.assignment_set_id == set_id)
    return list(session.scalars(statement.order_by(ClusterRow.cluster)))


def mismatch(spec: dict[str, Any], dataset: DatasetRow) -> str | None:
    """Why a model of that input spec cannot take a dataset; None where it can."""
    if spec["kind"] != dataset.kind:
        return f"the model takes {spec['kind']}, the dataset holds {dataset.kind}"
    if dataset.kind == "vectors" and spec["n_features"] != dataset.n_features:
        return f"the model takes vectors of {spec['n_features']} numbers, the dataset holds {dataset.n_features}"
    return None
