"""What may be done with jobs, and when."""

from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from app.errors import Invalid as InvalidRequest
from app.errors import InvalidConfig, NotFound, TooFewImages, TooManyImages, UnknownMethod, WrongState
from app.queue import GPU_QUEUE, IO_QUEUE, TRAIN_QUEUE
from app.schemas.common import failures
from app.schemas.configs import read_config
from app.schemas.jobs import AssignCreate, JobEstimate, TrainCreate
from app.services import datasets, estimates, models
from app.services.submission import Submission, require_room, submit
from app.store import Session, after_commit, families, jobs, now
from app.store import models as model_rows
from app.store.tables import DatasetRow, JobRow
from models import registry
from models.configs import ClusteringConfig
from models.errors import UnknownTargets


def create_train(session: Session, payload: TrainCreate, how: Submission) -> JobRow:
    """Queue a training job.

    Raises:
        NotFound, NotReady: the dataset.
        UnknownMethod, InvalidConfig, TooFewImages, TooManyImages: the method and its config.
        Invalid: `no_gpu_queue`; `known_not_supported`, `known_out_of_range`.
        TooManyJobs: the tenant has as many waiting as it may.
    """
    dataset = datasets.get_ready(session, how.tenant_id, payload.dataset_id, lock=True)
    assert dataset.kind is not None
    spec = _method(payload.method or registry.DEFAULT_OF[dataset.kind])
    profile = payload.profile or spec.default_profile
    config = check_config(spec, profile, payload.config)
    if dataset.kind not in spec.data:
        raise InvalidRequest(f"{spec.name} does not take {dataset.kind}", code="wrong_data")
    if dataset.n_images < config.n_clusters:
        raise TooFewImages(f"{dataset.n_images} images cannot form {config.n_clusters} clusters")
    n_distinct = dataset.facts.get("n_distinct", dataset.n_images)
    if n_distinct < config.n_clusters:
        raise TooFewImages(
            f"only {n_distinct} distinct {dataset.kind} cannot form {config.n_clusters} clusters",
            code="too_few_distinct_images",
        )
    if spec.max_images is not None and dataset.n_images > spec.max_images:
        raise TooManyImages(f"{spec.name} takes at most {spec.max_images} images")
    try:
        spec.check_known(payload.known, dataset.n_images, config.n_clusters)
    except UnknownTargets as error:
        raise InvalidRequest(str(error), code=error.reason) from None
    job = JobRow(
        kind="train",
        queue=_training_queue(payload.device, spec, has_gpus=how.has_gpu_queue),
        dataset_id=dataset.id,
        method=spec.name,
        profile=profile,
        config=asdict(config),
        known={str(index): target for index, target in payload.known.items()},
        seed=payload.seed,
        name=payload.name,
        priority=payload.priority,
    )
    return submit(session, job, how)


def create_assign(session: Session, payload: AssignCreate, how: Submission) -> JobRow:
    """Queue the assignment of a whole dataset by a model, or of an upload that becomes one first.

    Raises:
        NotFound, NotReady, Conflict: the model, the dataset or the upload.
        Invalid: `wrong_data` where the dataset is not what the model takes.
        TooManyJobs: the tenant has as many waiting as it may.
    """
    ingest = None
    if payload.upload_id is not None:
        dataset, ingest = datasets.begin(session, payload.upload_id, datasets.to_assign(payload.name, how))
    else:
        assert payload.dataset_id is not None
        dataset = datasets.get_ready(session, how.tenant_id, payload.dataset_id, lock=True)
    model = models.get(session, how.tenant_id, payload.model_id, lock=True)
    job = JobRow(
        kind="assign",
        queue=IO_QUEUE,
        dataset_id=dataset.id,
        model_id=model.id,
        name=payload.name,
        priority=payload.priority,
        config={"part_images": how.part_images, "has_upload": ingest is not None},
    )
    submit(session, job, how)
    if ingest is not None:
        families.add_child(session, job, ingest)
    else:
        if reason := model_rows.mismatch(model.input_spec, dataset):
            raise InvalidRequest(reason, code="wrong_data")
        families.split_into_parts(session, job, dataset.n_images)
    return job


def estimate(session: Session, job: JobRow) -> JobEstimate:
    """What a job that was just made would take. Undo the transaction, and it was never made."""
    dataset = session.get_one(DatasetRow, job.dataset_id)
    facts = {"method": job.method, "profile": job.profile, "config": job.config, "n_parts": job.n_parts}
    estimated = JobEstimate(n_images=dataset.n_images, **facts)
    if job.kind == "train":
        taken = estimates.of_training(session, job, dataset)
        estimated.memory_bytes, estimated.n_own = taken.memory_bytes, taken.n_own
        estimated.seconds_low, estimated.seconds_high = taken.seconds or (None, None)
    return estimated


def check_config(spec: registry.MethodSpec, profile: str, values: dict[str, Any]) -> ClusteringConfig:
    """A method's config from JSON.

    Raises:
        InvalidConfig: `unknown_profile`, or `invalid_config` with each field that is wrong.
    """
    if profile not in spec.profiles:
        known = ", ".join(spec.profiles)
        raise InvalidConfig(f"{spec.name} has the profiles {known}", code="unknown_profile")
    try:
        return read_config(spec.name, spec.merge(profile, values))
    except ValidationError as error:
        errors = failures(error, under="config")
        raise InvalidConfig(f"the config of {spec.name} is not valid", errors=errors) from error


def get(session: Session, tenant_id: str, job_id: str, *, lock: bool = False) -> JobRow:
    """The tenant's job.

    Raises:
        NotFound: `job_not_found`.
    """
    row = jobs.lock(session, tenant_id, job_id) if lock else jobs.get(session, tenant_id, job_id)
    if row is None:
        raise NotFound(f"there is no job {job_id}", code="job_not_found")
    return row


def cancel(session: Session, tenant_id: str, job_id: str) -> JobRow:
    """Ask a job to end: a queued one is cancelled at once, a running one once its runner has stopped.

    A job in parts is cancelled at once, and so are those of its parts that wait.

    Raises:
        NotFound: `job_not_found`.
        WrongState: `wrong_state` where it has ended, or is a part of another.
    """
    row = _whole(session, tenant_id, job_id)
    if row.state in jobs.FINISHED:
        raise WrongState(f"the job has ended: {row.state}")
    if row.state == "queued" or row.n_open:
        jobs.change_state(session, row, "cancelled", error=None)
        families.pass_on_end(session, row)
        families.stop_children(session, row)
    elif row.state == "running":
        jobs.change_state(session, row, "cancelling")
    return row


def retry(session: Session, job_id: str, how: Submission) -> JobRow:
    """Queue a failed or cancelled job again, with all its attempts, from its last checkpoint, keeping finished parts.

    Raises:
        NotFound: `job_not_found`, `dataset_not_found`, `upload_not_found`.
        WrongState: `wrong_state` where it has not failed, or parts of it are still stopping.
        TooManyJobs: the tenant has as many waiting as it may.
    """
    tenant_id = how.tenant_id
    # Locks go dataset, model, job everywhere, so that no two requests wait for each other.
    dataset_id = get(session, tenant_id, job_id).dataset_id
    dataset = datasets.get(session, tenant_id, dataset_id, lock=True)
    row = _whole(session, tenant_id, job_id)
    if row.state not in ("failed", "cancelled"):
        raise WrongState(f"only failed and cancelled jobs can be retried, this one is {row.state}")
    require_room(session, how, lock=True)
    if row.kind == "assign":
        models.get(session, tenant_id, row.model_id or "", lock=True)
    parts = [part for part in families.children(session, row.id, lock=True) if part.state != "succeeded"]
    if any(part.state in jobs.UNFINISHED for part in parts):
        raise WrongState("parts of the job are still stopping; try again soon")
    for again in [row, *parts]:
        if again.kind == "ingest":
            _ingest_again(session, dataset)
        values = {"attempt": 0, "error": None, "finished_at": None, "batch_scale": 1.0, "available_at": now(session)}
        jobs.change_state(session, again, "queued", phase="", progress=0.0, **values)
    row.n_open = len(parts)
    after_commit(session, lambda: how.ring(row.queue))
    return row


def _whole(session: Session, tenant_id: str, job_id: str) -> JobRow:
    """The tenant's job, held against others; a part of one is not to be changed alone."""
    row = get(session, tenant_id, job_id, lock=True)
    if row.parent_id is not None:
        raise WrongState(f"it is a part of job {row.parent_id}: cancel or retry that")
    return row


def _ingest_again(session: Session, dataset: DatasetRow) -> None:
    if dataset.upload_id is None:
        raise NotFound("the uploaded file is no longer there; upload it again", code="upload_not_found")
    dataset.state, dataset.error, dataset.updated_at = "ingesting", None, now(session)


def _training_queue(device: str, spec: registry.MethodSpec, *, has_gpus: bool) -> str:
    """By device class, where there are workers with GPUs; what a GPU does not speed up leaves them to the others."""
    if device == "gpu" and not has_gpus:
        raise InvalidRequest("this service has no workers with GPUs of their own", code="no_gpu_queue")
    wants_gpu = spec.uses_gpu if device == "auto" else device == "gpu"
    return GPU_QUEUE if has_gpus and wants_gpu else TRAIN_QUEUE


def _method(name: str) -> registry.MethodSpec:
    try:
        return registry.get(name)
    except KeyError:
        known = ", ".join(registry.methods())
        raise UnknownMethod(f"there is no method {name[:100]!r}; there are {known}") from None
