"""Dataset and upload rows."""

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from app.store.ids import new_id
from app.store.session import now
from app.store.tables import DatasetRow, UploadRow


def add_upload(session: Session, tenant_id: str, filename: str) -> UploadRow:
    """Note an upload before its first byte is written."""
    row = UploadRow(
        id=new_id("upl"), tenant_id=tenant_id, state="receiving", filename=filename, created_at=now(session)
    )
    session.add(row)
    session.flush()
    return row


def get_upload(session: Session, upload_id: str) -> UploadRow | None:
    """An upload's row."""
    return session.get(UploadRow, upload_id)


def complete_upload(session: Session, upload_id: str, n_bytes: int, sha256: str) -> None:
    """All bytes are in storage."""
    row = session.get_one(UploadRow, upload_id)
    row.state, row.n_bytes, row.sha256 = "complete", n_bytes, sha256


def delete_upload(session: Session, upload_id: str) -> None:
    """Forget an upload; the sweep or the caller removes its bytes."""
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))


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


def query(tenant_id: str, state: str | None) -> Select[DatasetRow]:
    """The tenant's datasets."""
    statement = select(DatasetRow).where(DatasetRow.tenant_id == tenant_id)
    return statement if state is None else statement.where(DatasetRow.state == state)
