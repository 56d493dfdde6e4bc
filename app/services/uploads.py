"""Bytes on their way in: a row first, then the bytes, counted and hashed as they pass."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.store import Session, after_commit, datasets
from app.store.blobs import Blobs, upload_key


@dataclass(frozen=True)
class Received:
    """An upload whose bytes are all in storage."""

    upload_id: str
    key: str
    filename: str
    n_bytes: int
    sha256: str


def begin(session: Session, tenant_id: str, filename: str) -> tuple[str, str]:
    """Note an upload; its id and the key its bytes go to."""
    row = datasets.add_upload(session, tenant_id, filename)
    return row.id, upload_key(tenant_id, row.id)


async def receive(blobs: Blobs, upload_id: str, key: str, filename: str, chunks: AsyncIterator[bytes]) -> Received:
    """Stream bytes into storage at constant memory, hashed on the way."""
    digest = hashlib.sha256()
    n_bytes = 0

    async def hashed() -> AsyncIterator[bytes]:
        nonlocal n_bytes
        async for chunk in chunks:
            n_bytes += len(chunk)
            digest.update(chunk)
            yield chunk

    await blobs.put_stream(key, hashed())
    return Received(upload_id, key, filename, n_bytes, digest.hexdigest())


def discard(session: Session, blobs: Blobs, upload_id: str, key: str) -> None:
    """Leave nothing of an upload that will not become a dataset."""
    datasets.delete_upload(session, upload_id)
    after_commit(session, lambda: blobs.delete_prefix(key.rsplit("/", 1)[0]))
