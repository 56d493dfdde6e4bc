"""API keys of the service whose settings are in the environment: what `clusterserve keys` does."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer
from rich.console import Console
from rich.table import Column, Table

from app.errors import AppError
from app.services import keys
from app.settings import Settings
from app.store import Session, connect_database
from app.store.keys import of_tenant
from app.store.tables import KeyRow


def create(console: Console, tenant: str, name: str, scopes: list[str], days: float | None) -> None:
    """Make a key and show it."""
    lasts = None if days is None else timedelta(days=days)
    with _writing() as (session, secret):
        key, row = keys.create(session, secret, tenant_id=tenant, name=name, scopes=scopes, lasts=lasts)
    _show(console, key, row)


def show_all(console: Console, tenant: str | None) -> None:
    """List keys, without their secrets."""
    prefix = Column("prefix", min_width=12)  # whole, as it is what the other commands want
    table = Table(prefix, "tenant", "name", "scopes", "made", "expires", "last used")
    with _writing() as (session, _):
        for row in of_tenant(session, tenant):
            moments = (row.created_at, row.expires_at, row.last_used_at)
            shown = ["" if moment is None else f"{moment:%Y-%m-%d %H:%M}" for moment in moments]
            table.add_row(row.prefix, row.tenant_id, row.name, ", ".join(row.scopes), *shown)
    console.print(table)


def rotate(console: Console, prefix: str, overlap_hours: float) -> None:
    """Exchange a key and show the new one."""
    with _writing() as (session, secret):
        key, row = keys.rotate(session, secret, prefix, timedelta(hours=overlap_hours))
    _show(console, key, row)


def end(console: Console, prefix: str) -> None:
    """Let a key expire now."""
    with _writing() as (session, _):
        keys.end(session, prefix)
    console.print(f"{prefix} has ended")


@contextmanager
def _writing() -> Iterator[tuple[Session, bytes]]:
    """A transaction, and the secret that keys are hashed under; what is wrong with a request is a usage error."""
    settings = Settings()
    database = connect_database(settings)
    try:
        with database.write() as session:
            yield session, keys.secret_of(settings)
    except AppError as error:
        raise typer.BadParameter(error.detail) from error
    finally:
        database.close()


def _show(console: Console, key: str, row: KeyRow) -> None:
    console.print(f"key {row.prefix} of tenant {row.tenant_id}: {', '.join(row.scopes)}. It is shown this once:")
    console.print(key, soft_wrap=True, markup=False, highlight=False)
