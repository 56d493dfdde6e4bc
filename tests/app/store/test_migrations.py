"""The schema, on both databases."""

import os
import subprocess
import sys
import time

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from app.store import Database, OperationalError
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


@pytest.mark.parametrize("settings", ["production"], indirect=True)
def test_replicas_may_race_to_migrate(settings, database: Database):
    downgrade(database, "base")

    command = [sys.executable, "-m", "clusterserve", "migrate"]
    environment = os.environ | settings.environment()
    replicas = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(4)]

    assert [replica.wait(60) for replica in replicas] == [0] * 4
    assert is_current(database)
    assert differences(database) == []


@pytest.mark.parametrize("settings", ["production"], indirect=True)
def test_a_migration_that_cannot_have_its_lock_gives_up_and_changes_nothing(settings, database: Database):
    """Somebody reads a table for long: the migration must not stand in front of everybody else."""
    downgrade(database, "0002")
    with psycopg.connect(settings.database_url) as reader:
        reader.execute("LOCK TABLE jobs IN ACCESS SHARE MODE")
        started = time.monotonic()
        with pytest.raises(OperationalError, match="lock timeout"):
            upgrade(database)
        assert 9 < time.monotonic() - started < 20
        assert not is_current(database)

    upgrade(database)
    assert is_current(database)
