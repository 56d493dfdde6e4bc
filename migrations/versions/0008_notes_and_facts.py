"""Notes and facts of datasets, warnings of jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql")
_COLUMNS = (("datasets", "notes", "[]"), ("datasets", "facts", "{}"), ("jobs", "warnings", "[]"))


def upgrade() -> None:
    for table, name, empty in _COLUMNS:
        op.add_column(table, sa.Column(name, _JSON, nullable=False, server_default=empty))


def downgrade() -> None:
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
