"""Audit events."""

from app.schemas.common import Read, UtcTime


class AuditEventRead(Read):
    """One request that changed something. `key_prefix` is null where the service asks for no keys."""

    id: str
    action: str
    target: str
    key_prefix: str | None
    address: str | None
    request_id: str
    at: UtcTime
