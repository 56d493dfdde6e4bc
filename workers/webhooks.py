"""Delivering messages: a thread in every worker; whoever claims a message first sends it."""

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
    """Sends what is due, a few messages at a time: a receiver that hangs holds up no other for long."""

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
        """Send what is due now; how many messages that were."""
        with self._database.read() as session:
            if not webhooks.has_due(session):
                return 0
        with self._database.write() as session:
            messages = webhooks.claim_due(session, AT_ONCE)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(self._send, messages))
        with self._database.write() as session:
            for message, (status, error) in zip(messages, answers, strict=True):
                webhooks.settle(session, message, status, error)
        return len(messages)

    def _send(self, message: Message) -> tuple[int | None, str | None]:
        try:
            to = outward.target(message.url, allow_private=self._settings.webhook_allow_private)
            return outward.send(to, message.secret, message.id, message.timestamp, message.body), None
        except outward.Refused as refusal:
            log.warning("webhook_not_delivered", message_id=message.id, reason=str(refusal))
            return None, str(refusal)

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.deliver_s):
            try:
                while self.deliver() and not self._stopping.is_set():
                    pass
            except DBAPIError as error:
                log.warning("database_unavailable", error=type(error.orig).__name__)
            except Exception:
                log.exception("deliver_failed")  # the thread must outlive a fault in one round
