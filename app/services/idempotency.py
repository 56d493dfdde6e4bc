"""One creation per idempotency key: same key and same request give the stored answer."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.errors import IdempotencyBusy, IdempotencyMismatch, Invalid
from app.store import OperationalError, Session, idempotency

MAX_KEY_LENGTH = 255


@dataclass(frozen=True)
class CreatedResource:
    """The answer to a creating request: status, `Location` and JSON body."""

    status: int
    location: str
    body: dict[str, Any]
    is_replay: bool = False


def fingerprint(*parts: Any) -> str:
    """A digest of everything that makes two requests the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def once(
    session: Session, tenant_id: str, key: str | None, mark: str, create: Callable[[], CreatedResource]
) -> CreatedResource:
    """Run `create` unless this key already has an answer; the answer is stored in the same transaction.

    Raises:
        Invalid: `bad_idempotency_key`.
        IdempotencyMismatch: the key was used with another request.
        IdempotencyBusy: the first request with the key has not ended in time.
    """
    if key is None:
        return create()
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise Invalid(f"an idempotency key has 1 to {MAX_KEY_LENGTH} printable characters", code="bad_idempotency_key")
    try:
        stored = idempotency.reserve(session, tenant_id, key, mark)
    except OperationalError as error:
        if not idempotency.is_lock_timeout(error):
            raise  # the database is away: that is another answer than a busy twin
        raise IdempotencyBusy("another request with this key is still being answered") from error
    if stored is not None:
        if stored.fingerprint != mark:
            raise IdempotencyMismatch("this key was used with a different request")
        return CreatedResource(stored.status, stored.location, stored.body, is_replay=True)
    answer = create()
    idempotency.store(session, tenant_id, key, status=answer.status, location=answer.location, body=answer.body)
    return answer
