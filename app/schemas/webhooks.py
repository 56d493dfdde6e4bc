"""Webhooks and their messages."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.schemas.common import Read, UtcTime, Write


class WebhookCreate(Write):
    """Where to send the ends of jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"url": "https://example.com/clusterserve"}]})

    url: Annotated[str, Field(max_length=2_000, json_schema_extra={"format": "webhook-url"})]


class WebhookRead(Read):
    """A webhook."""

    id: str
    url: str
    created_at: UtcTime


class WebhookCreated(WebhookRead):
    """A webhook, with the secret its messages are signed with: shown this once."""

    secret: str


class DeliveryRead(Read):
    """One message. `status` is that of the last answer, `error` says why there was none."""

    id: str
    job_id: str
    state: Literal["waiting", "delivered", "failed"]
    attempt: int
    status: int | None
    error: str | None
    available_at: UtcTime
    created_at: UtcTime
