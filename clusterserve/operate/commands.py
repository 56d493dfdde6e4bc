"""Commands that run or repair the service on this machine."""

import signal
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console

from app.settings import Settings
from app.store import connect_database
from app.store.migrate import upgrade
from clusterserve.client import Client
from clusterserve.operate.up import AlreadyRunning, Up

READY_S = 60


def run_up(data_dir: Path, host: str, port: int, console: Console) -> int:
    """Run the service until Ctrl-C or SIGTERM; the exit code."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    service = Up(data_dir, host, port)
    try:
        service.start()
        announced = _announcer(service, console)
        service.watch(lambda: announced() or stop.is_set(), lambda text: console.print(text))
        console.print("stopping")
    except AlreadyRunning as error:
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


def _announcer(service: Up, console: Console) -> Any:
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
