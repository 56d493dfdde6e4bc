"""What may be done with datasets, and when."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from app import intake
from app.errors import Conflict, InUse, Invalid, NotFound, NotReady
from app.inference.budget import PixelBudget
from app.queue import IO_QUEUE
from app.schemas.datasets import DatasetRead
from app.services import uploads
from app.services.idempotency import CreatedResource, fingerprint, once
from app.services.submission import Submission, require_room, submit
from app.services.uploads import UploadLimits
from app.store import Database, Session, datasets, jobs, models, quotas
from app.store import uploads as upload_rows
from app.store.blobs import Blobs
from app.store.dataset_files import DatasetReader
from app.store.ids import new_id
from app.store.parquet import ParquetFiles
from app.store.tables import DatasetRow, JobRow
from models import pixels

Targets = Literal["folders", "none"]


@dataclass(frozen=True)
class NewDataset:
    """What is known of a dataset to be: `key` is the request's idempotency key, `how` its ingest job is queued."""

    name: str
    targets: Targets
    key: str | None
    how: Submission
    columns: tuple[str, ...] = ()
    target: str | None = None
    names: str | None = None

    @property
    def wanted(self) -> intake.Wanted:
        """What is said of the file."""
        return intake.Wanted(self.columns, self.target, self.names, are_folders_targets=self.targets == "folders")

    def mark(self, *of: str) -> str:
        """A fingerprint of the request, with what names the bytes."""
        said = [",".join(self.columns), self.target or "", self.names or ""] if self.wanted != intake.Wanted() else []
        return fingerprint("datasets", *of, self.name, self.targets, *said)

    def config(self) -> dict[str, Any]:
        """As the ingest job keeps it."""
        said = {"columns": list(self.columns), "target": self.target, "names": self.names}
        return {"targets": self.targets, **{name: value for name, value in said.items() if value}}


def to_assign(name: str, how: Submission) -> NewDataset:
    """The dataset that an assign job makes of an upload."""
    return NewDataset(name=name, targets="none", key=None, how=how)


def create_from_upload(database: Database, blobs: Blobs, upload_id: str, new: NewDataset) -> CreatedResource:
    """Make a dataset of a complete upload; what can never become one is refused at once.

    Raises:
        NotFound: `upload_not_found`.
        BadUpload, UnsupportedFormat: with the code of what is wrong with the file.
        Conflict: `upload_not_complete`, `upload_used`.
    """
    check(database, blobs, upload_id, new)
    with database.write() as session:
        return once(session, new.how.tenant_id, new.key, new.mark(upload_id), lambda: _create(session, upload_id, new))


async def create_from_body(
    database: Database,
    blobs: Blobs,
    filename: str,
    chunks: AsyncIterator[bytes],
    new: NewDataset,
    *,
    limits: UploadLimits,
) -> CreatedResource:
    """Take the bytes as an upload of one part and make a dataset of it; nothing stays of what is refused.

    Raises:
        BadUpload, UnsupportedFormat: with the code of what is wrong with the file.
    """

    def begin() -> str:
        with database.write() as session:
            require_room(session, new.how)  # before the bytes come, and again once they are there
            return uploads.begin(session, new.how.tenant_id, filename, limits=limits).id

    def create(sha256: str) -> CreatedResource:
        check(database, blobs, upload_id, new)
        with database.write() as session:

            def make() -> CreatedResource:
                uploads.complete(session, new.how.tenant_id, upload_id)
                return _create(session, upload_id, new)

            return once(session, new.how.tenant_id, new.key, new.mark(sha256), make)

    def discard() -> None:
        with database.write() as session:
            uploads.delete(session, blobs, new.how.tenant_id, upload_id)

    upload_id = await run_in_threadpool(begin)
    try:
        part = await uploads.receive_part(
            database,
            blobs,
            chunks,
            tenant_id=new.how.tenant_id,
            upload_id=upload_id,
            number=1,
            limits=limits,
        )
        answer = await run_in_threadpool(create, part.sha256)
    except BaseException:
        await run_in_threadpool(discard)
        raise
    if answer.is_replay:
        await run_in_threadpool(discard)
    return answer


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


def require_image(session: Session, tenant_id: str, dataset_id: str, index: int) -> DatasetRow:
    """The dataset that has an image of that index; its bytes are read once the session is closed.

    Raises:
        NotFound: `dataset_not_found`, `image_not_found`.
        Invalid: `not_images`.
    """
    row = get_ready(session, tenant_id, dataset_id)
    if row.kind != "images":
        raise Invalid("this dataset holds vectors, not images", code="not_images")
    if not 0 <= index < row.n_images:
        raise NotFound(f"images are numbered 0 to {row.n_images - 1}", code="image_not_found")
    return row


def thumbnail(budget: PixelBudget, data: bytes, side: int, facts: Mapping[str, Any]) -> bytes:
    """A stored image shrunk to fit `side` x `side`, as PNG bytes, once the pixels it decodes to have a place.

    `facts` are the dataset's.
    """
    with budget.take(*pixels.open_image(data, pixels.STORED).size):
        return pixels.thumbnail(data, side, pixels.PixelRange(**facts.get("range", {})))


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
        upload_rows.delete_upload(session, upload_id)


def check(database: Database, blobs: Blobs, upload_id: str, new: NewDataset) -> None:
    """Look at an upload's headers, with no transaction open; one that is gone is left to what follows.

    Raises:
        BadUpload, UnsupportedFormat: with the code of what is wrong with the file.
    """
    with database.read() as session:
        parts = upload_rows.parts(session, upload_id)
    if parts:
        with upload_rows.open_parts(blobs, parts) as file:
            intake.check(file, new.how.intake, new.wanted)


def _create(session: Session, upload_id: str, new: NewDataset) -> CreatedResource:
    dataset, _ = begin(session, upload_id, new)
    body = DatasetRead.model_validate(dataset).model_dump(mode="json")
    return CreatedResource(201, f"/v1/datasets/{dataset.id}", body)


def begin(session: Session, upload_id: str, new: NewDataset) -> tuple[DatasetRow, JobRow]:
    """A dataset in state `ingesting` and the job that fills it.

    Raises:
        NotFound: `upload_not_found`.
        Conflict: `upload_not_complete`, `upload_used`.
        QuotaExceeded: the tenant has as many images as it may.
    """
    upload = uploads.get(session, new.how.tenant_id, upload_id, lock=True)
    if upload.state != "complete":
        raise Conflict("the upload is not complete", code="upload_not_complete")
    if datasets.of_upload(session, upload.id) is not None:
        raise Conflict("a dataset is already being made of this upload", code="upload_used")
    quotas.require_images(1, quotas.room_for_images(session, new.how.tenant_id, new.how.max_images))
    dataset_id = new_id("ds")
    job = JobRow(
        kind="ingest",
        queue=IO_QUEUE,
        dataset_id=dataset_id,
        name=new.name,
        config=new.config(),
    )
    submit(session, job, new.how)
    dataset = DatasetRow(
        id=dataset_id,
        tenant_id=new.how.tenant_id,
        name=new.name or upload.filename,
        upload_id=upload.id,
        job_id=job.id,
        n_bytes=sum(part.n_bytes for part in upload_rows.parts(session, upload.id)),
        target_names=[],
        shards=[],
    )
    datasets.add(session, dataset)
    return dataset, job
