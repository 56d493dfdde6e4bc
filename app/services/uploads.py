"""Bytes on their way in: a row first, then parts, each counted, hashed and an object of its own."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from app.errors import AppError, BadUpload, Conflict, InUse, NotFound, TooLarge, WrongState
from app.schemas.uploads import PartRead, UploadRead
from app.settings import Settings
from app.store import Database, Session, after_commit, datasets, quotas, uploads
from app.store.blobs import Blobs, prefix
from app.store.tables import UploadPartRow, UploadRow


@dataclass(frozen=True)
class UploadLimits:
    """Bytes: of the part that comes, by its header or the settings; of an upload; of a tenant together (0: any)."""

    part_bytes: int
    upload_bytes: int
    tenant_bytes: int

    @classmethod
    def of(cls, settings: Settings, part_bytes: int | None = None) -> "UploadLimits":
        """The settings', with those of this part if more is known of it."""
        part_bytes = settings.max_part_bytes if part_bytes is None else part_bytes
        return cls(part_bytes, settings.max_upload_bytes, settings.max_tenant_bytes)


@dataclass(frozen=True)
class Room:
    """Bytes that may come, and what to say to more."""

    n_bytes: int
    refusal: AppError

    def require(self, n_bytes: int) -> None:
        """Raise the refusal where so many are too many."""
        if n_bytes > self.n_bytes:
            raise self.refusal


def begin(
    session: Session,
    tenant_id: str,
    filename: str,
    *,
    n_bytes: int | None = None,
    sha256: str | None = None,
    limits: UploadLimits,
) -> UploadRow:
    """Note an upload; what its sender says of the whole is held against it at the end.

    Raises:
        TooLarge, QuotaExceeded: it says that it will be, or the tenant has no room for a single byte.
    """
    if n_bytes is not None and n_bytes > limits.upload_bytes:
        raise TooLarge(f"an upload holds at most {limits.upload_bytes} bytes")
    if (n_bytes or 1) > quotas.room_for_bytes(session, tenant_id, limits.tenant_bytes):
        raise quotas.refuse_bytes()
    return uploads.add(session, tenant_id, filename, n_bytes, sha256)


def get(session: Session, tenant_id: str, upload_id: str, *, lock: bool = False) -> UploadRow:
    """The tenant's upload.

    Raises:
        NotFound: `upload_not_found`.
    """
    row = uploads.get(session, tenant_id, upload_id, lock=lock)
    if row is None:
        raise NotFound(f"there is no upload {upload_id}", code="upload_not_found")
    return row


def describe(session: Session, row: UploadRow) -> UploadRead:
    """An upload with the parts that have arrived."""
    parts = [PartRead.model_validate(part) for part in uploads.parts(session, row.id)]
    return UploadRead(
        id=row.id,
        state=row.state,
        filename=row.filename,
        n_bytes=sum(part.n_bytes for part in parts),
        parts=parts,
        created_at=row.created_at,
    )


async def receive_part(
    database: Database,
    blobs: Blobs,
    chunks: AsyncIterator[bytes],
    *,
    tenant_id: str,
    upload_id: str,
    number: int,
    limits: UploadLimits,
    sha256: str | None = None,
) -> PartRead:
    """Stream a part into storage at constant memory, then record it; a number sent before is replaced.

    Raises:
        NotFound: `upload_not_found`.
        WrongState: the upload is complete.
        BadUpload: `checksum_mismatch`, `empty_body`.
        TooLarge, QuotaExceeded: with the parts that are there it would be.
    """

    def reserve() -> tuple[str, Room]:
        with database.read() as session:
            row = _receiving(get(session, tenant_id, upload_id))
            return uploads.new_part_key(row, number), _room(session, row, number, limits)

    key, room = await run_in_threadpool(reserve)
    digest = hashlib.sha256()
    n_bytes = 0

    async def hashed() -> AsyncIterator[bytes]:
        nonlocal n_bytes
        async for chunk in chunks:
            n_bytes += len(chunk)
            room.require(n_bytes)
            digest.update(chunk)
            yield chunk

    def record() -> PartRead:
        _check(n_bytes, digest.hexdigest(), sha256)
        part = UploadPartRow(
            upload_id=upload_id, number=number, tenant_id=tenant_id, key=key, n_bytes=n_bytes, sha256=digest.hexdigest()
        )
        with database.write() as session:
            row = _receiving(get(session, tenant_id, upload_id, lock=True))
            # Once more: other parts may have come beside this one.
            quotas.lock(session, tenant_id)
            _room(session, row, number, limits).require(n_bytes)
            replaced = uploads.put_part(session, row, part)
            if replaced is not None:
                after_commit(session, lambda: blobs.delete([replaced]))
            return PartRead.model_validate(part)

    # What arrives for nothing lies under a key no row names, and goes with the next sweep or the upload.
    await blobs.put_stream(key, hashed(), min(limits.part_bytes, room.n_bytes))
    return await run_in_threadpool(record)


def complete(session: Session, tenant_id: str, upload_id: str) -> UploadRow:
    """Close an upload once all its parts are there; saying so again changes nothing.

    Raises:
        NotFound: `upload_not_found`.
        WrongState: `parts_missing`.
        Conflict: `size_mismatch`, `sha256_mismatch`: what has arrived is not what was announced.
    """
    row = get(session, tenant_id, upload_id, lock=True)
    if row.state == "complete":
        return row
    parts = uploads.parts(session, upload_id)
    missing = sorted(set(range(1, (parts[-1].number if parts else 1) + 1)) - {part.number for part in parts})
    if missing:
        raise WrongState(f"parts {missing[:10]} have not arrived", code="parts_missing")
    n_bytes = sum(part.n_bytes for part in parts)
    if row.n_bytes is not None and row.n_bytes != n_bytes:
        raise Conflict(f"{n_bytes} bytes have arrived of {row.n_bytes}", code="size_mismatch")
    if row.sha256 is not None and len(parts) == 1 and row.sha256 != parts[0].sha256:
        raise Conflict("what has arrived does not have the announced SHA-256", code="sha256_mismatch")
    row.state = "complete"
    return row


def delete(session: Session, blobs: Blobs, tenant_id: str, upload_id: str) -> None:
    """Leave nothing of an upload that will not become a dataset.

    Raises:
        NotFound: `upload_not_found`.
        InUse: a dataset is being made of it.
    """
    row = get(session, tenant_id, upload_id, lock=True)
    if datasets.of_upload(session, upload_id) is not None:
        raise InUse("a dataset is being made of this upload")
    uploads.delete_upload(session, row.id)
    after_commit(session, lambda: blobs.delete_prefix(prefix(tenant_id, "upload", upload_id)))


def _receiving(row: UploadRow) -> UploadRow:
    if row.state != "receiving":
        raise WrongState("the upload is complete")
    return row


def _room(session: Session, row: UploadRow, number: int, limits: UploadLimits) -> Room:
    """What a part may hold beside the others that are there; one it replaces is not."""
    of_upload = Room(
        limits.upload_bytes - uploads.bytes_beside(session, row.id, number),
        TooLarge(f"an upload holds at most {limits.upload_bytes} bytes"),
    )
    of_tenant = quotas.room_for_bytes(session, row.tenant_id, limits.tenant_bytes)
    replaced = uploads.get_part(session, row.id, number)
    of_tenant += replaced.n_bytes if replaced else 0
    return of_upload if of_upload.n_bytes <= of_tenant else Room(of_tenant, quotas.refuse_bytes())


def _check(n_bytes: int, sha256: str, announced: str | None) -> None:
    if not n_bytes:
        raise BadUpload("the body is empty", code="empty_body")
    if announced is not None and announced.lower() != sha256:
        raise BadUpload("the bytes do not have the announced SHA-256", code="checksum_mismatch")
