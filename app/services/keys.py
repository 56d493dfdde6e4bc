"""API keys: made, shown once, found again by their prefix, exchanged and ended.

A key reads `cs_<prefix>_<secret>`. SQL has the prefix and an HMAC-SHA256 of the whole under a secret of the service, so
that neither a copy of the database nor the secret alone lets anybody in.
"""

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from threading import Lock

from app.errors import Forbidden, Invalid, NotFound, Unauthenticated
from app.settings import Settings
from app.store import Database, DBAPIError, PoolTimeout, Session, is_passing, keys, now
from app.store.tables import KeyRow

SCOPES = ("read", "write", "train", "admin")
RECHECK_S = 10.0
_MAX_REMEMBERED = 10_000
_MARK = "cs"


@dataclass(frozen=True)
class Caller:
    """Who asks: a tenant, by one of its keys, and what that allows."""

    tenant_id: str
    scopes: frozenset[str]
    prefix: str

    def require(self, scopes: Sequence[str]) -> None:
        """See that all of these are allowed; `admin` allows everything.

        Raises:
            Forbidden: they are not.
        """
        if missing := [scope for scope in scopes if scope not in self.scopes and "admin" not in self.scopes]:
            raise Forbidden(f"this key has no scope {missing[0]!r}", code="wrong_scope")


def secret_of(settings: Settings) -> bytes:
    """What keys are hashed under: the settings' secret, or one made for the data folder."""
    if given := settings.key_secret.get_secret_value():
        return given.encode()
    path = settings.data_dir / "key-secret"
    if not path.exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".key-secret-{secrets.token_hex(4)}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):  # two processes at once: the first one's stays
            path.hardlink_to(new)
        new.unlink()
    return path.read_bytes()


def digest(secret: bytes, key: str) -> str:
    """The keyed hash of a key, in hex."""
    return hmac.new(secret, key.encode(), sha256).hexdigest()


def create(
    session: Session,
    secret: bytes,
    *,
    tenant_id: str,
    name: str,
    scopes: Sequence[str],
    lasts: timedelta | None = None,
) -> tuple[str, KeyRow]:
    """Make a key: the only time it is there to be read, and its row.

    Raises:
        Invalid: `unknown_scope`; `invalid_tenant` where the tenant's name could not be part of a path.
    """
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise Invalid(f"there is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}", code="unknown_scope")
    if not (tenant_id.replace("-", "").isalnum() and tenant_id.isascii() and len(tenant_id) <= 40):
        raise Invalid("a tenant's name has at most 40 letters, digits and dashes", code="invalid_tenant")
    prefix, moment = secrets.token_hex(6), now(session)
    key = f"{_MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    row = KeyRow(
        prefix=prefix,
        tenant_id=tenant_id,
        name=name,
        digest=digest(secret, key),
        scopes=list(scopes),
        created_at=moment,
        expires_at=None if lasts is None else moment + lasts,
    )
    keys.add(session, row)
    return key, row


def rotate(session: Session, secret: bytes, prefix: str, overlap: timedelta) -> tuple[str, KeyRow]:
    """A new key with the rights of an old one, which goes on for `overlap`.

    Raises:
        NotFound: `key_not_found`.
    """
    old = _get(session, prefix)
    lasts = None if old.expires_at is None else old.expires_at - old.created_at
    made = create(session, secret, tenant_id=old.tenant_id, name=old.name, scopes=old.scopes, lasts=lasts)
    end(session, prefix, overlap)
    return made


def end(session: Session, prefix: str, after: timedelta = timedelta(0)) -> None:
    """Let a key expire; never later than it would have.

    Raises:
        NotFound: `key_not_found`.
    """
    row = _get(session, prefix)
    ends = now(session) + after
    row.expires_at = ends if row.expires_at is None else min(row.expires_at, ends)


def _get(session: Session, prefix: str) -> KeyRow:
    row = keys.get(session, prefix)
    if row is None:
        raise NotFound(f"there is no key {prefix!r}", code="key_not_found")
    return row


@dataclass(frozen=True)
class _Known:
    """A key as SQL had it; `caller` is None for a prefix that nobody has."""

    caller: Caller | None
    digest: str
    lasts_until: float  # of `time.monotonic()`
    read_at: float


class Keyring:
    """The keys that callers of this process showed.

    Each is read from SQL every RECHECK_S at most and served from memory in between: a key that is ended elsewhere ends
    here within that time.
    """

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database, self._secret = database, secret
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = Lock()

    def remembered(self, key: str) -> Caller | None:
        """Whose key it is, as far as that is known without I/O.

        Raises:
            Unauthenticated: see `find`.
        """
        with self._lock:
            known = self._known.get(_prefix(key))
        if known is None or time.monotonic() - known.read_at > RECHECK_S:
            return None
        return self._judge(known, key)

    def find(self, key: str) -> Caller:
        """Whose key it is, from SQL. While the database is away, what was read last still counts.

        Raises:
            Unauthenticated: `unknown_key`, `key_expired`.
        """
        prefix = _prefix(key)
        try:
            with self._database.read() as session:
                known = self._read(session, prefix)
        except (DBAPIError, PoolTimeout) as error:
            with self._lock:
                last = self._known.get(prefix)
            if last is None or not is_passing(error):
                raise
            return self._judge(last, key)
        with self._lock:
            self._known[prefix] = known
            self._known.move_to_end(prefix)
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        caller = self._judge(known, key)
        self._note_use(prefix)
        return caller

    def _read(self, session: Session, prefix: str) -> _Known:
        row, moment = keys.get(session, prefix), time.monotonic()
        if row is None:
            return _Known(None, "", moment, moment)
        left = float("inf") if row.expires_at is None else (row.expires_at - now(session)).total_seconds()
        caller = Caller(row.tenant_id, frozenset(row.scopes), prefix)
        return _Known(caller, row.digest, moment + left, moment)

    def _judge(self, known: _Known, key: str) -> Caller:
        if known.caller is None or not hmac.compare_digest(known.digest, digest(self._secret, key)):
            raise Unauthenticated("nobody has this key", code="unknown_key")
        if time.monotonic() >= known.lasts_until:
            raise Unauthenticated("this key has expired", code="key_expired")
        return known.caller

    def _note_use(self, prefix: str) -> None:
        try:
            with self._database.write() as session:
                keys.note_use(session, prefix)
        except (DBAPIError, PoolTimeout) as error:
            if not is_passing(error):
                raise


def _prefix(key: str) -> str:
    """The part of a key that says which it is.

    Raises:
        Unauthenticated: `unknown_key` where it has not the form of one.
    """
    mark, _, rest = key.partition("_")
    prefix, _, _ = rest.partition("_")
    if mark != _MARK or len(prefix) != 12 or len(key) > 100 or not key.isascii():
        raise Unauthenticated("this is no key of the service", code="unknown_key")
    return prefix
