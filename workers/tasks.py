"""The one task: claim the next job of a queue, supervise it, record how it ended. Torch-free."""

import logging
import os
import socket
from functools import cache
from threading import Event
from typing import Any

from celery import signals
from prometheus_client import start_http_server

from app import log
from app.metrics import REGISTRY
from app.queue import RUN_NEXT, Bell
from app.settings import Settings
from app.store import Database, DBAPIError, claims, connect_database
from app.store.blobs import connect
from app.store.migrate import OldSchema, require_current
from app.tracing import Tracing
from workers.celery_app import celery_app
from workers.devices import AllTaken, Devices
from workers.reconciler import Reconciler
from workers.supervisor import Supervisor, record
from workers.webhooks import Courier

NODE_ID = f"{socket.gethostname()}:{os.getpid()}"

stopping = Event()
logger = log.get_logger()


@celery_app.task(name=RUN_NEXT)
def run_next(queue_name: str) -> None:
    """Run the next job of a queue; a ring that finds no work does nothing."""
    if stopping.is_set() or not _has_schema():
        return
    try:
        with _devices().lend(queue_name) as device:
            has_run = _run_next(queue_name, device)
    except AllTaken:
        return
    if has_run and not stopping.is_set():
        _ring_if_work_left(queue_name)


def _ring_if_work_left(queue_name: str) -> None:
    """Ring if jobs wait: for other workers when a job has begun here, for this one when it has ended."""
    with _database().read() as session:
        has_more = queue_name in claims.queues_with_work(session)
    if has_more:
        _bell().ring(queue_name)


def _run_next(queue_name: str, device: str | None) -> bool:
    database, settings = _database(), _settings()
    with database.write() as session:
        limits = claims.ClaimLimits(settings.lease_s, settings.max_running_jobs)
        claim = claims.claim_next(session, queue_name, NODE_ID, limits)
    if claim is None:
        return False
    facts = {"job_id": claim.job_id, "fence": claim.fence, "request_id": claim.request_id}
    with log.bound(**facts), _tracing().span(f"{claim.kind} attempt", **facts):
        logger.info("job_claimed", kind=claim.kind)
        _ring_if_work_left(queue_name)
        outcome = Supervisor(settings, database, claim, stopping, device=device).run()
        record(database, claim, outcome, settings)
    return True


@signals.setup_logging.connect
def _configure_logs(**_: Any) -> None:
    log.configure(_settings().log_level, _settings().log_format)
    logging.getLogger("celery").setLevel("WARNING")


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    try:
        _has_schema()
    except DBAPIError:
        pass  # the database is away: checked again before the first claim
    except OldSchema as error:
        raise SystemExit(str(error)) from error  # Celery ignores other exceptions here
    if address := _settings().worker_metrics:
        host, port = address.rsplit(":", 1)
        start_http_server(int(port), host, registry=REGISTRY)


@signals.worker_ready.connect
def _start_threads(**_: Any) -> None:
    _reconciler().start()
    _courier().start()


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    stopping.set()
    _reconciler().stop()
    _courier().stop()


@signals.worker_shutdown.connect
def _send_last_spans(**_: Any) -> None:
    _tracing().close()


@cache
def _has_schema() -> bool:
    """True, once the database is known to have this release's schema; an exception is not remembered."""
    require_current(_database())
    return True


@cache
def _settings() -> Settings:
    return Settings()


@cache
def _database() -> Database:
    return connect_database(_settings())


@cache
def _tracing() -> Tracing:
    return Tracing(_settings().otlp_endpoint, "clusterserve-worker")


@cache
def _devices() -> Devices:
    return Devices(_settings())


@cache
def _bell() -> Bell:
    return Bell(_settings().broker_url)


@cache
def _reconciler() -> Reconciler:
    return Reconciler(_settings(), _database(), connect(_settings()), _bell().ring, NODE_ID)


@cache
def _courier() -> Courier:
    return Courier(_settings(), _database())
