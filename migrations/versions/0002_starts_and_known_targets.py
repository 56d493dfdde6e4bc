"""Neighbour-graph starts of datasets, and known targets of jobs and models."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql")


def upgrade() -> None:
    op.create_table(
        "starts",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_starts_dataset_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_starts_tenant_id")),
        sa.PrimaryKeyConstraint("dataset_id", "key", name=op.f("pk_starts")),
    )
    op.create_index(op.f("ix_starts_job_id"), "starts", ["job_id"])
    for table in ("jobs", "models"):
        op.add_column(table, sa.Column("known", _JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    for table in ("jobs", "models"):
        op.drop_column(table, "known")
    op.drop_table("starts")
