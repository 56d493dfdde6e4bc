"""The schema, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from app.store import Database
from app.store.migrate import downgrade, is_current, upgrade
from app.store.tables import Base


def differences(database: Database) -> list[object]:
    with database.connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, Base.metadata)


def test_the_migrations_make_exactly_the_tables(database: Database):
    assert differences(database) == []
    assert is_current(database)


def test_migrations_go_down_and_up_again(database: Database):
    downgrade(database, "base")
    assert not is_current(database)
    upgrade(database)
    upgrade(database)

    assert is_current(database)
    assert differences(database) == []
