"""Garbage: what no row wants goes, what one wants stays, on both set-ups."""

from datetime import timedelta

from app.store import claims, datasets, uploads
from app.store.blobs import prefix
from app.store.claims import Outcome
from app.store.retention import collect
from app.store.sweep import sweep
from app.store.tables import DatasetRow
from tests.app.store.test_claims import finish, lose
from tests.factories import add_job, claim


def keys(blobs) -> set[str]:
    return {key.split("/", 4)[4] for key in blobs.keys("t/")}


def kinds_and_keys(blobs) -> set[str]:
    """Which kinds and attempts have objects: `train/f1`."""
    return {f"{key.split('/')[2]}/{key.split('/')[4]}" for key in blobs.keys("t/")}


def write(blobs, job_id: str, fence: int) -> None:
    blobs.put(f"{prefix('default', 'ingest', job_id, fence)}/data", b"1")


def test_only_the_running_attempts_files_stay(database, blobs):
    job_id = add_job(database)
    claim(database)
    write(blobs, job_id, 1)
    lose(database)
    claim(database)
    write(blobs, job_id, 2)

    assert sweep(database, blobs, keep_checkpoints_s=60) == 1

    assert keys(blobs) == {"f2/data"}


def test_checkpoints_of_every_attempt_stay_until_the_job_has_succeeded(database, blobs):
    job_id = add_job(database)
    claim(database)
    for kind in ("ingest", "checkpoint"):
        blobs.put(f"{prefix('default', kind, job_id, 1)}/data", b"1")
    lose(database)
    successor = claim(database)
    blobs.put(f"{prefix('default', 'checkpoint', job_id, 2)}/data", b"2")  # may rest on what the first attempt kept
    sweep(database, blobs, keep_checkpoints_s=60)
    assert kinds_and_keys(blobs) == {"checkpoint/f1", "checkpoint/f2"}

    finish(database, successor, Outcome("succeeded"))
    sweep(database, blobs, keep_checkpoints_s=60)

    assert keys(blobs) == set()


def test_checkpoints_of_a_failed_job_stay_for_its_retry_but_not_for_ever(database, blobs):
    job_id = add_job(database)
    blobs.put(f"{prefix('default', 'checkpoint', job_id, 1)}/data", b"1")
    finish(database, claim(database), Outcome("failed", error={"code": "diverged", "message": ""}))

    assert sweep(database, blobs, keep_checkpoints_s=60) == 0
    database.clock_offset += timedelta(seconds=61)
    assert sweep(database, blobs, keep_checkpoints_s=60, is_dry=True) == 1
    assert sweep(database, blobs, keep_checkpoints_s=60) == 1


def test_a_start_stays_with_its_dataset_and_goes_with_it(database, blobs):
    with database.write() as session:
        dataset = datasets.add(session, DatasetRow(id="ds_x", tenant_id="default", name="", job_id="job_x"))
    job_id = add_job(database, kind="train", dataset_id=dataset.id)
    kept = prefix("default", "start", job_id, 1)
    blobs.put(f"{kept}/state.json", b"{}")
    held = claim(database)
    with database.write() as session:
        assert claims.record_start(session, held, "a key", kept)
        assert claims.record_start(session, held, "a key", "elsewhere")  # the first stays
    finish(database, held, Outcome("succeeded"))
    sweep(database, blobs, keep_checkpoints_s=60)
    assert kinds_and_keys(blobs) == {"start/f1"}
    with database.read() as session:
        assert datasets.starts(session, dataset.id) == {"a key": kept}

    with database.write() as session:
        session.delete(session.get_one(DatasetRow, dataset.id))
    sweep(database, blobs, keep_checkpoints_s=60)

    assert keys(blobs) == set()


def test_a_zombies_start_is_not_recorded(database):
    add_job(database)
    zombie = claim(database)
    lose(database)
    claim(database)

    with database.write() as session:
        assert not claims.record_start(session, zombie, "a key", "a prefix")


def test_what_a_zombie_writes_late_goes_with_the_next_sweep(database, blobs):
    job_id = add_job(database)
    zombie = claim(database)
    lose(database)
    finish(database, claim(database), Outcome("failed", error={"code": "bad_images", "message": ""}))
    sweep(database, blobs, keep_checkpoints_s=60)
    write(blobs, job_id, zombie.fence)

    assert sweep(database, blobs, keep_checkpoints_s=60) == 1


def test_uploads_nobody_finished_are_forgotten_and_their_bytes_removed(settings, database, blobs):
    with database.write() as session:
        old = uploads.add(session, "default", "old", None, None).id
    database.clock_offset += timedelta(hours=2)
    with database.write() as session:
        new = uploads.add(session, "default", "new", None, None).id
    for upload in (old, new):
        blobs.put(f"{prefix('default', 'upload', upload)}/data", b"1")

    collect(database, blobs, settings.model_copy(update={"abandoned_upload_s": 3600}))

    assert [key.split("/")[3] for key in blobs.keys("t/")] == [new]
    with database.read() as session:
        assert uploads.get(session, "default", old) is None
