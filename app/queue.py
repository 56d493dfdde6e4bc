"""Ringing queues: the only contact with Celery, by task name. A ring says "there is work", never which.

One thread sends, since a publish can block for seconds while the broker is away; a ring that is lost
is repaired by the reconciler.
"""

import contextlib
from queue import Empty, Queue
from threading import Thread
from typing import Any

from app import metrics
from app.log import get_logger

RUN_NEXT = "clusterserve.run_next"
IO_QUEUE, TRAIN_QUEUE, GPU_QUEUE = "io", "train", "train-gpu"
RING_S = 86_400  # late rings are harmless; they only must not pile up where nobody listens, whatever its clock says

log = get_logger()


def celery_settings(broker_url: str) -> dict[str, Any]:
    """What sender and workers share: JSON only, no results, early acknowledgement, short socket time-outs."""
    return {
        "broker_url": broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": IO_QUEUE,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
    }


class BrokerUnavailable(Exception):
    """The broker did not answer in time."""


def ping(broker_url: str) -> None:
    """Ask the broker for a sign of life.

    Raises:
        BrokerUnavailable: there was none within seconds.
    """
    from kombu.connection import Connection

    try:
        with contextlib.closing(Connection(broker_url, connect_timeout=5)) as connection:  # type: ignore[no-untyped-call]
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=6)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the broker's client raises
        raise BrokerUnavailable(type(error).__name__) from error


class Bell:
    """Rings queues from one thread; `ring` never blocks and never fails."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._waiting: Queue[str | None] = Queue()
        self._thread = Thread(target=self._send, name="bell", daemon=True)
        self._thread.start()

    def ring(self, queue: str) -> None:
        """Ask for one claim on that queue, soon."""
        self._waiting.put(queue)

    def close(self) -> None:
        """Stop the thread after what it is sending."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _send(self) -> None:
        # Imported here: it takes a fifth of the API's start, and nobody waits for the first ring.
        from celery import Celery

        celery = Celery("clusterserve-bell", set_as_current=False)
        celery.conf.update(celery_settings(self._broker_url))
        while (queue := self._waiting.get()) is not None:
            try:
                celery.send_task(RUN_NEXT, args=[queue], queue=queue, retry=False, expires=RING_S)
            except Exception as error:
                # Whatever the broker's client raises, the thread must live to send the next ring.
                metrics.RINGS_LOST.inc()
                log.warning("ring_lost", queue=queue, error=type(error).__name__)
                self._drop_waiting()
        celery.close()

    def _drop_waiting(self) -> None:
        """While the broker is away every ring would wait its time-out; the reconciler repeats them."""
        with contextlib.suppress(Empty):
            while True:
                if self._waiting.get_nowait() is None:
                    self._waiting.put(None)
                    return
