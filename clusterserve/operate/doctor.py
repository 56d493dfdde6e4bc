"""`clusterserve doctor`: asks every part that the service rests on, and says in a sentence what is wrong."""

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from app.queue import BrokerUnavailable, ping
from app.settings import Settings
from app.store import DBAPIError, Session, census, connect_database, now
from app.store.blobs import StorageUnavailable, connect
from app.store.migrate import is_current

Answer = TypeVar("Answer")

LEAST_FREE_BYTES = 1 << 30
LONGEST_WAIT_S = 60
LARGEST_SKEW_S = 5


@dataclass(frozen=True)
class Finding:
    """What was asked, whether it is well, and what to know or do."""

    name: str
    is_ok: bool
    sentence: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which things rest on each other."""
    yield _try("data folder", _data_folder, settings)
    yield (database := _try("database", _database, settings))
    if database.is_ok:
        yield _try("clock", _clock, settings)
        yield _try("workers", _workers, settings)
        yield _try("queues", _queues, settings)
    yield _try("storage", _storage, settings)
    yield _try("broker", _broker, settings)


def _try(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(name, True, check(settings))
    except Wrong as wrong:
        return Finding(name, False, str(wrong))
    except Exception as error:  # a setting that nothing can be made of: the doctor speaks of it, too
        return Finding(name, False, f"could not be asked ({type(error).__name__}: {str(error).splitlines()[0][:200]})")


class Wrong(Exception):
    """A check that failed; its text says what to do."""


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir.resolve()
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise Wrong(f"{folder} cannot be written ({error.strerror}): scratch files and logs go there") from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise Wrong(f"{folder} has {free / 1e6:.0f} MB left; trainings and uploads need room for their files")
    return f"{folder} can be written, {free / 1e9:.0f} GB free"


def _database(settings: Settings) -> str:
    database = connect_database(settings)
    kind = "SQLite" if database.is_sqlite else "Postgres"
    try:
        if not is_current(database):
            raise Wrong(f"{kind} does not have this release's schema: run `clusterserve migrate`")
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Wrong(f"{kind} does not answer ({reason}): check CLUSTERSERVE_DATABASE_URL and the server") from error
    finally:
        database.close()
    return f"{kind} answers and has this release's schema"


def _ask(settings: Settings, question: Callable[[Session], Answer]) -> Answer:
    database = connect_database(settings)
    try:
        with database.read() as session:
            return question(session)
    finally:
        database.close()


def _clock(settings: Settings) -> str:
    skew = abs((_ask(settings, now) - datetime.now(UTC)).total_seconds())
    if skew > LARGEST_SKEW_S:
        raise Wrong(f"this machine's clock is {skew:.0f} s off the database's: jobs go on, logs will confuse")
    return "this machine and the database agree on the time"


def _workers(settings: Settings) -> str:
    if not _ask(settings, census.has_reconciler):
        raise Wrong("no worker is running: jobs are accepted but nobody takes them")
    return "at least one worker runs"


def _queues(settings: Settings) -> str:
    late = {queue: age for queue, age in _ask(settings, census.queue_ages).items() if age > LONGEST_WAIT_S}
    if late:
        waits = ", ".join(f"{queue} for {age:.0f} s" for queue, age in late.items())
        raise Wrong(f"jobs wait in {waits}: too few workers listen there, or the tenants are at their limits")
    return "no job has waited long"


def _storage(settings: Settings) -> str:
    key = f"doctor/{secrets.token_hex(8)}"
    try:
        blobs = connect(settings)
        blobs.put(key, b"well")
        is_same = blobs.get(key) == b"well"
        blobs.delete([key])
    except (StorageUnavailable, OSError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0][:200]
        raise Wrong(f"object storage refuses ({cause}): check CLUSTERSERVE_STORAGE_URL, endpoint and keys") from error
    if not is_same:
        raise Wrong("object storage does not give back what was put: it is not consistent enough to be used")
    return "object storage takes, gives back and deletes"


def _broker(settings: Settings) -> str:
    try:
        ping(broker_url(settings))
    except BrokerUnavailable as error:
        sentence = "the broker does not answer: jobs are accepted, and start within seconds once it is back"
        raise Wrong(f"{sentence} ({error}); check CLUSTERSERVE_BROKER_URL") from error
    return "the broker answers"


def broker_url(settings: Settings) -> str:
    """The settings' broker, or that of an `up` which has this data folder."""
    if settings.database_url:
        return settings.broker_url
    with contextlib.suppress(OSError, ValueError, KeyError):
        broker_url: str = json.loads(Path(settings.data_dir / "up.json").read_text())["broker_url"]
        return broker_url
    return settings.broker_url
