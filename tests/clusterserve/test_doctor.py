"""What the doctor says, of real parts that are well, missing or wrong."""

import pytest

from app.store import claims
from clusterserve.operate.doctor import examine
from tests.factories import add_job


def findings(settings) -> dict[str, tuple[bool, str]]:
    return {finding.name: (finding.is_ok, finding.sentence) for finding in examine(settings)}


def test_all_is_well_on_a_running_set_up(settings, database):
    with database.write() as session:
        claims.hold_duty(session, "reconciler", "a worker", 60)

    found = findings(settings)

    assert {name for name, (is_ok, _) in found.items() if not is_ok} == set()
    assert set(found) == {"data folder", "database", "clock", "workers", "queues", "storage", "broker"}


def test_missing_workers_and_jobs_that_wait_are_told(settings, database):
    from datetime import timedelta

    database.clock_offset = -timedelta(minutes=2)
    add_job(database)

    found = findings(settings)

    assert not found["workers"][0]
    assert found["queues"][1].startswith("jobs wait in io for 12")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"database_url": "postgresql://postgres@127.0.0.1:1/x"}, "database", "CLUSTERSERVE_DATABASE_URL"),
        ({"database_url": "sqlite:////nowhere/at/all.db"}, "database", "unable to open"),
        ({"database_url": "sqlite://"}, "database", "clusterserve migrate"),
        ({"broker_url": "redis://127.0.0.1:1/0"}, "broker", "CLUSTERSERVE_BROKER_URL"),
        ({"storage_url": "s3://x", "s3_endpoint": "http://127.0.0.1:1"}, "storage", "CLUSTERSERVE_STORAGE_URL"),
    ],
)
def test_what_is_wrong_is_named_with_the_setting_to_look_at(embedded_settings, change, name, words):
    is_ok, sentence = findings(embedded_settings.model_copy(update=change))[name]

    assert not is_ok
    assert words in sentence


def test_a_wrong_key_to_the_storage_is_told(request, tmp_path, broker_url):
    from tests.conftest import production

    settings = production(request, tmp_path, broker_url).model_copy(update={"s3_access_key": "nobody"})

    is_ok, sentence = findings(settings)["storage"]

    assert not is_ok
    assert "keys" in sentence


def test_a_folder_that_cannot_be_written_is_told(embedded_settings, tmp_path):
    (tmp_path / "file").write_text("")

    is_ok, sentence = findings(embedded_settings.model_copy(update={"data_dir": tmp_path / "file" / "below"}))[
        "data folder"
    ]

    assert not is_ok
    assert "cannot be written" in sentence
