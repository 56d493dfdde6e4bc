"""What a tenant may keep: bytes of its uploads and datasets, images of its datasets. A quota of 0 is none."""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import QuotaExceeded
from app.store.session import take_turns
from app.store.tables import DatasetRow, UploadPartRow

NO_END = 2**63 - 1


def lock(session: Session, tenant_id: str) -> None:
    """Let what adds to the tenant's follow one another until the commit."""
    take_turns(session, f"quota:{tenant_id}")


def room_for_bytes(session: Session, tenant_id: str, quota: int) -> int:
    """Bytes the tenant may still send, beside the parts of uploads and the ready datasets that are there."""
    if not quota:
        return NO_END
    of_parts = _sum(session, UploadPartRow.n_bytes, UploadPartRow.tenant_id == tenant_id)
    return quota - of_parts - _sum(session, DatasetRow.n_bytes, *_ready(tenant_id))


def room_for_images(session: Session, tenant_id: str, quota: int) -> int:
    """Images or vectors the tenant may still have ingested, beside those of its ready datasets."""
    return quota - _sum(session, DatasetRow.n_images, *_ready(tenant_id)) if quota else NO_END


def require_images(n_images: int, room: int) -> None:
    """Hold a number of new images against the room there is.

    Raises:
        QuotaExceeded: there is not enough.
    """
    if n_images > room:
        raise QuotaExceeded(f"there is room for {max(room, 0)} more images; delete a dataset, or ask for more")


def refuse_bytes() -> QuotaExceeded:
    """What to raise where bytes have no room."""
    return QuotaExceeded("there is no room for so many bytes; delete a dataset or an upload, or ask for more")


def _ready(tenant_id: str) -> tuple[ColumnElement[bool], ...]:
    return DatasetRow.tenant_id == tenant_id, DatasetRow.state == "ready"


def _sum(session: Session, column: InstrumentedAttribute[int], *conditions: ColumnElement[bool]) -> int:
    return int(session.scalars(select(func.coalesce(func.sum(column), 0)).where(*conditions)).one())
