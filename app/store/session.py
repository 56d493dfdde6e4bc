"""Databases and units of work: one write session = one transaction, actions after it once it is committed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app import metrics
from app.log import get_logger
from app.settings import Settings
from app.store import audit

log = get_logger()

# A server that is gone or a network that drops everything is an error within seconds, not a thread that hangs; and a
# process that is stopped in mid-transaction does not hold its locks for longer than a minute.
_POSTGRES = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "options": "-c statement_timeout=60s -c lock_timeout=20s -c idle_in_transaction_session_timeout=60s",
}
_AFTER_COMMIT = "after_commit"
_CLOCK_OFFSET = "clock_offset"


class Database:
    """One SQL database, SQLite or Postgres, with separate read and write sessions.

    On SQLite a write session begins `IMMEDIATE`, so two processes can never both read a queued job and
    claim it; read sessions stay deferred and never wait for a writer.
    """

    def __init__(self, url: str, *, pool: int = 10, clock_offset: timedelta = timedelta(0)) -> None:
        """Args:
        url: SQLAlchemy URL. `postgresql://` is served by psycopg 3.
        pool: connections kept to Postgres; half as many more are made under load.
        clock_offset: added to the database's clock; for tests of leases and retention.
        """
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self._engine = create_engine(url, connect_args={"isolation_level": None, "timeout": 10})
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        else:
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
            self._engine = create_engine(
                url, pool_size=pool, max_overflow=pool // 2, pool_timeout=10, pool_pre_ping=True, connect_args=_POSTGRES
            )
        event.listen(self._engine, "before_cursor_execute", _begin_timing)
        event.listen(self._engine, "after_cursor_execute", _end_timing)
        self._write_engine = self._engine.execution_options(is_write=True)
        self.clock_offset = clock_offset

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that never writes; what it read is gone when it closes."""
        with Session(self._engine, info={_CLOCK_OFFSET: self.clock_offset}) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: commits when the block ends, rolls back when it raises, then runs `after_commit`."""
        actions: list[Callable[[], object]] = []
        info = {_CLOCK_OFFSET: self.clock_offset, _AFTER_COMMIT: actions}
        with Session(self._write_engine, info=info, expire_on_commit=False) as session, session.begin():
            yield session
            if audit.acting.get() is not None:
                audit.note(session, now(session))
        for action in actions:
            # The transaction stands: what comes after it may fail, but must not look as if it had failed.
            try:
                action()
            except Exception:
                log.exception("after_commit_failed")

    @contextmanager
    def trial(self) -> Iterator[Session]:
        """A transaction that is rolled back: what would come of it can be looked at, and nothing does."""
        info = {_CLOCK_OFFSET: self.clock_offset, _AFTER_COMMIT: []}
        with Session(self._write_engine, info=info, expire_on_commit=False) as session:
            yield session
            session.rollback()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A bare connection, for migrations."""
        with self._engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def is_passing(error: Exception) -> bool:
    """Whether the database may take the same later: it is away, or busy (time-outs are `OperationalError`s)."""
    if isinstance(error, PoolTimeout | OperationalError):
        return True
    return isinstance(error, DBAPIError) and (error.connection_invalidated or "locked" in str(error.orig))


def connect_database(settings: Settings) -> Database:
    """The database the settings name; nothing is opened yet."""
    return Database(settings.resolved_database_url, pool=settings.database_pool)


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Run `action` once the session's transaction is committed; never if it is rolled back."""
    session.info[_AFTER_COMMIT].append(action)


def take_turns(session: Session, name: str) -> None:
    """Let transactions that take this name follow one another until their commits; on SQLite writers do so anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})


def now(session: Session) -> datetime:
    """The database's clock, in UTC: the one source of every time that decides something."""
    if session.get_bind().dialect.name == "sqlite":
        stamp = session.execute(select(func.strftime("%Y-%m-%d %H:%M:%f", "now"))).scalar_one()
        moment = datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    else:
        moment = session.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)
    offset: timedelta = session.info.get(_CLOCK_OFFSET, timedelta(0))
    return moment + offset


def _begin_timing(*arguments: Any) -> None:
    arguments[4]._began = time.perf_counter()


def _end_timing(*arguments: Any) -> None:
    _, _, statement, _, context, _ = arguments
    metrics.observe("sql", statement.split(None, 1)[0].lower()[:10], time.perf_counter() - context._began)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
