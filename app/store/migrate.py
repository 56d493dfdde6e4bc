"""Bringing a database to this release's schema, and telling whether it is there.

Alembic is imported where it is used: the API's start does not need it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from app.store.session import Database

if TYPE_CHECKING:
    from alembic.config import Config


_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


class OldSchema(Exception):
    """The database has another release's schema."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Apply every migration that is missing; safe to repeat."""
    from alembic import command

    with database.connection() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def downgrade(database: Database, revision: str) -> None:
    """Take migrations back down to a revision (`base`: all)."""
    from alembic import command

    with database.connection() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()


def is_current(database: Database) -> bool:
    """Whether the database has exactly this release's schema."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    with database.connection() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


def require_current(database: Database) -> None:
    """Refuse to go on with another release's schema.

    Raises:
        OldSchema: with the command to run.
    """
    if not is_current(database):
        raise OldSchema("the database does not have this release's schema: run `clusterserve migrate`")


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config
