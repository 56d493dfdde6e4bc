"""Every table. Each row belongs to a tenant; times are the database's, in UTC."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

DEFAULT_TENANT = "default"
Json = JSON().with_variant(JSONB(), "postgresql")
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC on both databases; SQLite has no time zones, so they are dropped and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: Json,
        list[Any]: Json,
        datetime: UtcDateTime,
        str: String,
    }


class TenantRow(Base):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]


class KeyRow(Base):
    """An API key. What a caller shows is `cs_<prefix>_<secret>`; of the secret only a keyed hash is here."""

    __tablename__ = "keys"
    __table_args__ = (Index(None, "tenant_id"),)

    prefix: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    digest: Mapped[str]  # HMAC-SHA256 of the whole key, hex
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class UploadRow(Base):
    """Bytes on their way in; the row is written before the first byte, so no blob is ever without one."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    state: Mapped[str]  # receiving, complete
    filename: Mapped[str]
    n_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the whole, where its sender said so
    sha256: Mapped[str | None]  # as above
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class UploadPartRow(Base):
    """One part that has arrived whole, an object of its own; sent again, it gets another key."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key: Mapped[str]
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]


class DatasetRow(Base):
    __tablename__ = "datasets"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    state: Mapped[str]  # ingesting, ready, failed
    kind: Mapped[str | None]  # images, vectors
    upload_id: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"))
    job_id: Mapped[str] = mapped_column(index=True)
    prefix: Mapped[str | None]
    n_images: Mapped[int] = mapped_column(BigInteger, default=0)
    n_rejects: Mapped[int] = mapped_column(BigInteger, default=0)
    n_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    width: Mapped[int | None]  # None where images differ
    height: Mapped[int | None]
    channels: Mapped[int | None]
    n_features: Mapped[int | None]
    has_targets: Mapped[bool] = mapped_column(default=False)
    target_names: Mapped[list[Any]] = mapped_column(default=list)
    shards: Mapped[list[Any]] = mapped_column(default=list)  # rows of each file
    notes: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")  # how it was read, for people
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    error: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    )
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class StartRow(Base):
    """A neighbour-graph start of a dataset, kept for the next job on it; `key` names all that decides it."""

    __tablename__ = "starts"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[str] = mapped_column(index=True)
    prefix: Mapped[str]
    created_at: Mapped[datetime]


class JobRow(Base):
    """One unit of background work, and its own queue entry. `fence` rises with every claim."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "queue", "state", "priority", "id"),
        Index(None, "parent_id"),
        Index(None, "dataset_id"),
        Index(None, "model_id"),
        Index(None, "state", "lease_expires_at"),
        Index(None, "tenant_id", "state"),
        Index(None, "state", "finished_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    n_parts: Mapped[int] = mapped_column(default=0, server_default="0")
    n_open: Mapped[int] = mapped_column(default=0, server_default="0")  # children it waits for
    kind: Mapped[str]  # ingest, train, assign
    queue: Mapped[str]
    state: Mapped[str]  # queued, running, cancelling, succeeded, failed, cancelled
    priority: Mapped[int] = mapped_column(default=0)
    dataset_id: Mapped[str]
    model_id: Mapped[str | None]
    assignment_set_id: Mapped[str | None]
    name: Mapped[str] = mapped_column(default="")
    method: Mapped[str | None]
    profile: Mapped[str | None]
    config: Mapped[dict[str, Any]] = mapped_column(default=dict)
    known: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")  # image index -> target
    seed: Mapped[int] = mapped_column(BigInteger, default=0)
    phase: Mapped[str] = mapped_column(default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    fence: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    available_at: Mapped[datetime]
    batch_scale: Mapped[float] = mapped_column(default=1.0)
    warnings: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")  # of its last attempt
    checkpoint: Mapped[str | None]
    request_id: Mapped[str | None]  # of the request that created it, for the logs
    error: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    )
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class JobEventRow(Base):
    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str]  # state, phase, step, checkpoint
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class ModelRow(Base):
    __tablename__ = "models"
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "dataset_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    job_id: Mapped[str] = mapped_column(index=True)
    dataset_id: Mapped[str]
    assignment_set_id: Mapped[str]
    method: Mapped[str]
    profile: Mapped[str]
    config: Mapped[dict[str, Any]]
    known: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")  # image index -> target
    seed: Mapped[int] = mapped_column(BigInteger)
    n_clusters: Mapped[int]
    n_images: Mapped[int] = mapped_column(BigInteger)
    input_spec: Mapped[dict[str, Any]]
    scores: Mapped[dict[str, Any]]
    artifacts: Mapped[dict[str, Any]]  # name -> {bytes, sha256, media_type}
    prefix: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AssignmentSetRow(Base):
    __tablename__ = "assignment_sets"
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "model_id"), Index(None, "dataset_id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    model_id: Mapped[str]
    dataset_id: Mapped[str]
    job_id: Mapped[str] = mapped_column(index=True)
    n_images: Mapped[int] = mapped_column(BigInteger)
    n_outliers: Mapped[int] = mapped_column(BigInteger, default=0)
    scores: Mapped[dict[str, Any]]
    prefix: Mapped[str]
    created_at: Mapped[datetime]


class ClusterRow(Base):
    """One cluster of one assignment set; the assignments themselves are files sorted by cluster."""

    __tablename__ = "clusters"

    assignment_set_id: Mapped[str] = mapped_column(
        ForeignKey("assignment_sets.id", ondelete="CASCADE"), primary_key=True
    )
    cluster: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    size: Mapped[int] = mapped_column(BigInteger)
    first_row: Mapped[int] = mapped_column(BigInteger)  # of the cluster in by-cluster.parquet
    confidence: Mapped[float | None]  # mean; None for an empty cluster
    n_outliers: Mapped[int] = mapped_column(BigInteger)
    exemplars: Mapped[list[Any]]  # indexes of the most certain images, surest first
    least_certain: Mapped[list[Any]]  # indexes, least certain first


class IdempotencyRow(Base):
    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int]
    location: Mapped[str]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(index=True)


class WebhookRow(Base):
    """Where a tenant wants to be told the ends of its jobs."""

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str]
    secret: Mapped[str]  # as it is, since every message is signed with it
    created_at: Mapped[datetime]


class DeliveryRow(Base):
    """One message to a webhook, and its own queue entry."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(None, "state", "available_at"),
        Index(None, "webhook_id", "id"),
        Index(None, "updated_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[str]
    state: Mapped[str]  # waiting, delivered, failed
    body: Mapped[str]
    attempt: Mapped[int]
    status: Mapped[int | None]  # of the last answer
    error: Mapped[str | None]  # why there was none
    available_at: Mapped[datetime]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class AuditEventRow(Base):
    """A request that changed something."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    action: Mapped[str]  # the operation's name in the OpenAPI document
    target: Mapped[str]  # its path
    key_prefix: Mapped[str | None]
    address: Mapped[str | None]
    request_id: Mapped[str]
    at: Mapped[datetime]


class LeaseRow(Base):
    """A named duty that one process has at a time, such as the reconciler's."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    expires_at: Mapped[datetime]
