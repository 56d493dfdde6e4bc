"""Garbage: what no row wants goes, what one wants stays, on both set-ups."""

from datetime import timedelta

from app.store import uploads
from app.store.blobs import prefix
from app.store.claims import Outcome
from app.store.sweep import sweep
from app.store.tables import JobRow
from tests.app.store.test_claims import finish, lose
from tests.factories import add_job, claim


def keys(blobs) -> set[str]:
    return {key.split("/", 4)[4] for key in blobs.keys("t/")}


def write(blobs, job_id: str, fence: int) -> None:
    blobs.put(f"{prefix('default', 'ingest', job_id, fence)}/data", b"1")


def test_only_the_running_attempts_files_stay(database, blobs):
    job_id = add_job(database)
    claim(database)
    write(blobs, job_id, 1)
    lose(database)
    claim(database)
    write(blobs, job_id, 2)

    assert sweep(database, blobs, abandoned_upload_s=60) == 1

    assert keys(blobs) == {"f2/data"}


def test_a_dead_attempts_checkpoint_stays_until_the_job_has_succeeded(database, blobs):
    job_id = add_job(database)
    claim(database)
    write(blobs, job_id, 1)
    with database.write() as session:
        session.get_one(JobRow, job_id).checkpoint = f"{prefix('default', 'ingest', job_id, 1)}/epoch-00010"
    lose(database)
    successor = claim(database)
    sweep(database, blobs, abandoned_upload_s=60)
    assert keys(blobs) == {"f1/data"}

    finish(database, successor, Outcome("succeeded"))
    sweep(database, blobs, abandoned_upload_s=60)

    assert keys(blobs) == set()


def test_what_a_zombie_writes_late_goes_with_the_next_sweep(database, blobs):
    job_id = add_job(database)
    zombie = claim(database)
    lose(database)
    finish(database, claim(database), Outcome("failed", error={"code": "bad_images", "message": ""}))
    sweep(database, blobs, abandoned_upload_s=60)
    write(blobs, job_id, zombie.fence)

    assert sweep(database, blobs, abandoned_upload_s=60) == 1


def test_uploads_nobody_finished_are_forgotten_and_their_bytes_removed(database, blobs):
    with database.write() as session:
        old = uploads.add(session, "default", "old", None, None).id
    database.clock_offset += timedelta(hours=2)
    with database.write() as session:
        new = uploads.add(session, "default", "new", None, None).id
    for upload in (old, new):
        blobs.put(f"{prefix('default', 'upload', upload)}/data", b"1")

    sweep(database, blobs, abandoned_upload_s=3600)

    assert [key.split("/")[3] for key in blobs.keys("t/")] == [new]
    with database.read() as session:
        assert uploads.get(session, "default", old) is None
