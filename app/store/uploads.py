"""Upload rows, their parts, and the parts as one file."""

from collections.abc import Iterator, Sequence
from typing import IO

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.store.blobs import Blobs, prefix
from app.store.ids import new_id
from app.store.session import now
from app.store.tables import UploadPartRow, UploadRow


def add(session: Session, tenant_id: str, filename: str, n_bytes: int | None, sha256: str | None) -> UploadRow:
    """Note an upload before its first byte is written."""
    moment = now(session)
    row = UploadRow(
        id=new_id("upl"),
        tenant_id=tenant_id,
        state="receiving",
        filename=filename,
        n_bytes=n_bytes,
        sha256=sha256,
        created_at=moment,
        updated_at=moment,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, tenant_id: str, upload_id: str, *, lock: bool = False) -> UploadRow | None:
    """The tenant's upload of that id."""
    query = select(UploadRow).where(UploadRow.id == upload_id, UploadRow.tenant_id == tenant_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def parts(session: Session, upload_id: str) -> Sequence[UploadPartRow]:
    """The parts that have arrived, by number."""
    query = select(UploadPartRow).where(UploadPartRow.upload_id == upload_id)
    return session.scalars(query.order_by(UploadPartRow.number)).all()


def get_part(session: Session, upload_id: str, number: int) -> UploadPartRow | None:
    """The part of that number, if it has arrived."""
    return session.get(UploadPartRow, (upload_id, number))


def bytes_beside(session: Session, upload_id: str, number: int) -> int:
    """What the other parts of an upload hold together."""
    query = select(func.coalesce(func.sum(UploadPartRow.n_bytes), 0))
    others = query.where(UploadPartRow.upload_id == upload_id, UploadPartRow.number != number)
    return int(session.scalars(others).one())


def new_part_key(row: UploadRow, number: int) -> str:
    """Where a part goes: a key nobody has, also when the number is sent again."""
    return f"{prefix(row.tenant_id, 'upload', row.id)}/{number:05d}-{new_id('part')}"


def put_part(session: Session, row: UploadRow, part: UploadPartRow) -> str | None:
    """Record a part that is in storage; the key it replaces."""
    row.updated_at = now(session)
    old = get_part(session, row.id, part.number)
    replaced = old.key if old else None
    session.merge(part)
    session.flush()
    return replaced


def delete_upload(session: Session, upload_id: str) -> None:
    """Forget an upload; the sweep or the caller removes its bytes."""
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))


def open_parts(blobs: Blobs, rows: Sequence[UploadPartRow]) -> IO[bytes]:
    """The parts in order as one seekable file."""
    return blobs.open_joined([(part.key, part.n_bytes) for part in rows])


def stream_parts(blobs: Blobs, rows: Sequence[UploadPartRow]) -> Iterator[bytes]:
    """The parts' bytes in order."""
    for part in rows:
        yield from blobs.stream(part.key, 0, part.n_bytes)
