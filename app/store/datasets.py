"""Dataset rows."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.store.session import now
from app.store.tables import DatasetRow, StartRow


def add(session: Session, row: DatasetRow) -> DatasetRow:
    """A new dataset, `ingesting`."""
    row.state = "ingesting"
    row.created_at = row.updated_at = now(session)
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant_id: str, dataset_id: str, *, lock: bool = False) -> DatasetRow | None:
    """The tenant's dataset of that id; `lock` holds it against deletion until the transaction ends."""
    query = select(DatasetRow).where(DatasetRow.id == dataset_id, DatasetRow.tenant_id == tenant_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def of_upload(session: Session, upload_id: str) -> DatasetRow | None:
    """The dataset that is being made of an upload."""
    return session.scalars(select(DatasetRow).where(DatasetRow.upload_id == upload_id)).one_or_none()


def query(tenant_id: str, state: str | None) -> Select[DatasetRow]:
    """The tenant's datasets."""
    statement = select(DatasetRow).where(DatasetRow.tenant_id == tenant_id)
    return statement if state is None else statement.where(DatasetRow.state == state)


def starts(session: Session, dataset_id: str) -> dict[str, str]:
    """Prefix of every neighbour-graph start kept of a dataset, by key."""
    rows = session.execute(select(StartRow.key, StartRow.prefix).where(StartRow.dataset_id == dataset_id))
    return dict(rows.all())
