"""The one task: claim the next job of a queue, supervise it, record how it ended. Torch-free."""

import os
import socket
from functools import cache
from threading import Event
from typing import Any

from celery import signals

from app import log
from app.queue import RUN_NEXT, Bell
from app.settings import Settings
from app.store import Database, claims
from app.store.blobs import connect
from workers.celery_app import celery_app
from workers.reconciler import Reconciler
from workers.supervisor import Supervisor, record

NODE_ID = f"{socket.gethostname()}:{os.getpid()}"

stopping = Event()
logger = log.get_logger()


@celery_app.task(name=RUN_NEXT)
def run_next(queue_name: str) -> None:
    """Run the next job of a queue; a ring that finds no work does nothing."""
    if stopping.is_set():
        return
    database, settings, bell = _database(), _settings(), _bell()
    with database.write() as session:
        limits = claims.Limits(settings.lease_s, settings.max_running_jobs)
        claim = claims.claim_next(session, queue_name, NODE_ID, limits)
    if claim is None:
        return
    with log.bound(job_id=claim.job_id, fence=claim.fence):
        logger.info("job_claimed", kind=claim.kind)
        outcome = Supervisor(settings, database, claim, stopping).run()
        record(database, claim, outcome, settings.lease_s)
    with database.read() as session:
        has_more = queue_name in claims.queues_with_work(session)
    if has_more and not stopping.is_set():
        bell.ring(queue_name)


@signals.worker_init.connect
def _configure(**_: Any) -> None:
    log.configure(_settings().log_level, _settings().log_format)


@signals.worker_ready.connect
def _start_reconciler(**_: Any) -> None:
    _reconciler().start()


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    stopping.set()
    _reconciler().stop()


@cache
def _settings() -> Settings:
    return Settings()


@cache
def _database() -> Database:
    return Database(_settings().resolved_database_url)


@cache
def _bell() -> Bell:
    return Bell(_settings().broker_url)


@cache
def _reconciler() -> Reconciler:
    return Reconciler(_settings(), _database(), connect(_settings()), _bell().ring, NODE_ID)
