"""Sends webhook messages: a thread in every worker; the first that claims a message sends it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

from app import outward
from app.log import get_logger
from app.settings import Settings
from app.store import Database, DBAPIError, webhooks
from app.store.webhooks import Message

AT_ONCE = 8

log = get_logger()


class Courier:
    """Sends the messages that are due, 8 at a time, so a receiver that hangs delays the others only briefly."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Begin; every worker runs one."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()

    def deliver(self) -> int:
        """Send the messages that are due; returns how many."""
        with self._database.read() as session:
            if not webhooks.has_due(session):
                return 0
        with self._database.write() as session:
            messages = webhooks.claim_due(session, AT_ONCE)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._send, messages))
        return len(messages)

    def _send(self, message: Message) -> None:
        """Try one message and record the attempt in a transaction of its own, independent of other messages."""
        status, reason = None, None
        try:
            to = outward.target(message.url, allow_private=self._settings.webhook_allow_private)
            status = outward.send(to, message.secret, message.id, message.timestamp, message.body)
        except outward.Refused as refusal:
            reason = str(refusal)
        except Exception:
            log.exception("webhook_failed", message_id=message.id)
            reason = "the message could not be sent"
        if reason is not None:
            log.warning("webhook_not_delivered", message_id=message.id, reason=reason)
        with self._database.write() as session:
            webhooks.record_attempt(session, message, status, reason)

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.deliver_s):
            try:
                while self.deliver() and not self._stopping.is_set():
                    pass
            except DBAPIError as error:
                log.warning("database_unavailable", error=type(error.orig).__name__)
            except Exception:
                log.exception("deliver_failed")  # the thread must outlive a fault in one round
