"""The request that created a job, for the logs; ended jobs by age, for retention."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request_id", sa.String(), nullable=True))
    op.create_index("ix_jobs_tenant_id_state", "jobs", ["tenant_id", "state"])
    op.create_index("ix_jobs_state_finished_at", "jobs", ["state", "finished_at"])


def downgrade() -> None:
    op.drop_index("ix_jobs_tenant_id_state", "jobs")
    op.drop_index("ix_jobs_state_finished_at", "jobs")
    op.drop_column("jobs", "request_id")
