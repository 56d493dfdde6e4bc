"""Commands that run or repair the service on this machine."""

import signal
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from rich.console import Console

from app import log
from app.settings import Settings
from app.store import connect_database
from app.store.blobs import connect
from app.store.migrate import upgrade
from app.store.retention import collect
from clusterserve.client import Client
from clusterserve.operate.doctor import examine

if TYPE_CHECKING:
    from clusterserve.operate.up import Up


def run_up(data_dir: Path, host: str, port: int, console: Console) -> int:
    """Run the service until Ctrl-C or SIGTERM; the exit code."""
    from clusterserve.operate.up import (  # Valkey's wheel is an extra that servers do without
        AlreadyRunning,
        KeysNeeded,
        Up,
    )

    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    service = Up(data_dir, host, port)
    try:
        service.start()
        announced = _announcer(service, console)
        service.watch(lambda: announced() or stop.is_set(), lambda text: console.print(text))
        console.print("stopping")
    except (AlreadyRunning, KeysNeeded) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    finally:
        service.stop()
    return 0


def run_migrate() -> None:
    """Apply the migrations that the settings' database lacks."""
    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = connect_database(settings)
    upgrade(database)
    database.close()


def run_doctor(console: Console) -> int:
    """Say of every part whether it is well; 1 if one is not."""
    log.configure("ERROR", "console")
    is_well = True
    for finding in examine(Settings()):
        mark = "[green]ok[/green]   " if finding.is_ok else "[red]wrong[/red]"
        console.print(f"{mark} {finding.name}: ", end="")
        console.print(finding.sentence, markup=False)
        is_well &= finding.is_ok
    return 0 if is_well else 1


def run_gc(console: Console, *, is_dry: bool) -> None:
    """Remove what is past its retention, and files that nothing names; or only say how much that is."""
    settings = Settings()
    database = connect_database(settings)
    collected = collect(database, connect(settings), settings, is_dry=is_dry)
    database.close()
    verb = "would remove" if is_dry else "removed"
    console.print(
        f"{verb}: {collected.n_objects} files, {collected.n_uploads} abandoned uploads, {collected.n_events} events, "
        f"{collected.n_jobs} jobs, {collected.n_keys} idempotency keys, {collected.n_messages} messages, "
        f"{collected.n_audit_events} audit events"
    )


def _announcer(service: "Up", console: Console) -> Any:
    """Says once that the service is ready; meant to be asked again and again."""
    client = Client(service.url)
    is_told = False

    def tell_when_ready() -> bool:
        nonlocal is_told
        if not is_told and client.is_ready():
            is_told = True
            console.print(f"Clusterserve is ready on {service.url} (API documentation: {service.url}/docs)")
            console.print("Ctrl-C stops it.")
            client.close()
        return False

    return tell_when_ready
