"""Jobs in parts: how many a job has, and how many of them are open."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("n_parts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("n_open", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_parent_id", "jobs")
    op.drop_column("jobs", "n_open")
    op.drop_column("jobs", "n_parts")
