"""Who is told when a job ends."""

from app import outward
from app.errors import Conflict, Invalid, NotFound
from app.store import Session, webhooks
from app.store.tables import WebhookRow

MAX_WEBHOOKS = 10  # of one tenant


def create(session: Session, tenant_id: str, url: str) -> WebhookRow:
    """Add a webhook, with a secret of its own. `check` the URL first, outside of a transaction.

    Raises:
        Conflict: `too_many_webhooks`.
    """
    if webhooks.count(session, tenant_id) >= MAX_WEBHOOKS:
        raise Conflict(f"there may be {MAX_WEBHOOKS} webhooks", code="too_many_webhooks")
    return webhooks.add(session, tenant_id, url, outward.new_secret())


def check(url: str, *, allow_private: bool) -> None:
    """See that a URL may be asked. It is judged again at every delivery.

    Raises:
        Invalid: `bad_webhook_url`.
    """
    try:
        outward.target(url, allow_private=allow_private)
    except outward.Refused as refusal:
        raise Invalid(str(refusal), code="bad_webhook_url") from refusal


def get(session: Session, tenant_id: str, webhook_id: str) -> WebhookRow:
    """The tenant's webhook.

    Raises:
        NotFound: `webhook_not_found`.
    """
    row = webhooks.get(session, tenant_id, webhook_id)
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id}", code="webhook_not_found")
    return row
