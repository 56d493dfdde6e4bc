"""What may be done with datasets, and when."""

from collections.abc import Callable
from typing import Literal

from app.errors import Conflict, InUse, Invalid, NotFound, NotReady
from app.queue import QUEUE_OF_KIND
from app.store import Database, Session, after_commit, datasets, intake, jobs, models, uploads
from app.store.blobs import Blobs
from app.store.dataset_files import DatasetReader
from app.store.ids import new_id
from app.store.parquet import ParquetFiles
from app.store.tables import DatasetRow, JobRow, UploadRow

Targets = Literal["folders", "none"]


def check(database: Database, blobs: Blobs, upload_id: str) -> None:
    """Look at an upload's headers, so that what can never become a dataset is refused at once.

    Raises:
        BadUpload, UnsupportedFormat: with the code of what is wrong.
    """
    with database.read() as session:
        parts = uploads.parts(session, upload_id)
    with uploads.open_parts(blobs, parts) as file:
        intake.check(file)


def create(
    session: Session, upload: UploadRow, *, name: str, targets: Targets, max_attempts: int, ring: Callable[[str], None]
) -> DatasetRow:
    """A dataset in state `ingesting`, of a complete upload, and the job that fills it.

    Raises:
        Conflict: `upload_not_complete`, `upload_used`.
    """
    if upload.state != "complete":
        raise Conflict("the upload is not complete", code="upload_not_complete")
    if datasets.of_upload(session, upload.id) is not None:
        raise Conflict("a dataset is already being made of this upload", code="upload_used")
    dataset_id = new_id("ds")
    job = JobRow(
        tenant_id=upload.tenant_id,
        kind="ingest",
        queue=QUEUE_OF_KIND["ingest"],
        dataset_id=dataset_id,
        name=name,
        config={"targets": targets},
        max_attempts=max_attempts,
    )
    jobs.add(session, job)
    dataset = DatasetRow(
        id=dataset_id,
        tenant_id=upload.tenant_id,
        name=name or upload.filename,
        upload_id=upload.id,
        job_id=job.id,
        n_bytes=sum(part.n_bytes for part in uploads.parts(session, upload.id)),
        target_names=[],
        shards=[],
    )
    after_commit(session, lambda: ring(job.queue))
    return datasets.add(session, dataset)


def get(session: Session, tenant_id: str, dataset_id: str, *, lock: bool = False) -> DatasetRow:
    """The tenant's dataset.

    Raises:
        NotFound: `dataset_not_found`.
    """
    row = datasets.get(session, tenant_id, dataset_id, lock=lock)
    if row is None:
        raise NotFound(f"there is no dataset {dataset_id}", code="dataset_not_found")
    return row


def get_ready(session: Session, tenant_id: str, dataset_id: str, *, lock: bool = False) -> DatasetRow:
    """The tenant's dataset, only if it can be used.

    Raises:
        NotFound: `dataset_not_found`.
        NotReady: `dataset_not_ready`, `dataset_failed`.
    """
    row = get(session, tenant_id, dataset_id, lock=lock)
    if row.state == "failed":
        raise NotReady(f"dataset {dataset_id} could not be ingested", code="dataset_failed")
    if row.state != "ready":
        raise NotReady(f"dataset {dataset_id} is still being ingested")
    return row


def reader(files: ParquetFiles, row: DatasetRow) -> DatasetReader:
    """Access to a ready dataset's rows."""
    assert row.prefix is not None
    assert row.kind is not None
    return DatasetReader(files, row.prefix, row.kind, row.shards)


def image(session: Session, files: ParquetFiles, tenant_id: str, dataset_id: str, index: int) -> tuple[bytes, str]:
    """The stored bytes of one image, and its name.

    Raises:
        NotFound: `dataset_not_found`, `image_not_found`.
        Invalid: `not_images`.
    """
    row = get_ready(session, tenant_id, dataset_id)
    if row.kind != "images":
        raise Invalid("this dataset holds vectors, not images", code="not_images")
    if not 0 <= index < row.n_images:
        raise NotFound(f"images are numbered 0 to {row.n_images - 1}", code="image_not_found")
    return reader(files, row).image(index)


def delete(session: Session, tenant_id: str, dataset_id: str, *, with_models: bool) -> None:
    """Forget a dataset, its jobs and, if asked, its models; their files go with the next sweep.

    Raises:
        NotFound: `dataset_not_found`.
        InUse: `in_use` while a job reads or fills it.
        Conflict: `dataset_has_models`.
    """
    row = get(session, tenant_id, dataset_id, lock=True)
    # Jobs before models: one that ends in between has left its model by the time the models are read.
    users = jobs.unfinished_using(session, dataset_id=dataset_id)
    trained = models.of_dataset(session, dataset_id)
    for model in trained:
        users += jobs.unfinished_using(session, model_id=model.id)
    if users:
        raise InUse(f"unfinished jobs use it: {', '.join(users[:5])}")
    if trained and not with_models:
        raise Conflict("models were trained on it; delete them too with ?models=delete", code="dataset_has_models")
    for model in trained:
        models.delete_model(session, model.id)
    models.delete_sets_of_dataset(session, dataset_id)
    jobs.delete_of_dataset(session, dataset_id)
    upload_id = row.upload_id
    session.delete(row)
    session.flush()
    if upload_id is not None:
        uploads.delete_upload(session, upload_id)
