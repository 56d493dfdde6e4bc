"""The runner: one attempt at one job in a process of its own. `python -m workers.runner JOB_ID FENCE`.

It reads rows and blobs, and writes blobs but never rows. It reports to its supervisor in JSON lines
(`workers.messages`), and only the supervisor writes to the database. It exits when its standard input ends, so it
never outlives its supervisor. Python runs this module as `__main__`: import `workers.work`, never this.
"""

import atexit
import errno
import gc
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

from app import log
from app.errors import AppError
from app.settings import Settings
from app.store import OperationalError, connect_database, datasets, families, jobs, quotas, uploads
from app.store.blobs import BlobExists, StorageUnavailable, connect, prefix
from app.store.tables import DatasetRow, JobRow, ModelRow, UploadRow
from models.errors import Cancelled, ClusteringError
from workers.messages import ErrorMessage, ResultMessage, StoppedMessage
from workers.work import Reporter, Work

OBJECTS_TO_COLLECT = 50_000  # with Python's default, 700, garbage collection while torch loads takes a second
REQUEST_ID = "CLUSTERSERVE_REQUEST_ID"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEMORY_ERRORS = ("OutOfMemoryError", "ArrowMemoryError")


def main(arguments: Sequence[str]) -> int:
    """Run the attempt and report how it ended; the process's exit status."""
    job_id, fence = arguments[0], int(arguments[1])
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the job's log, not to the supervisor
    gc.set_threshold(OBJECTS_TO_COLLECT)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Thread(target=_end_with_stdin, daemon=True).start()
    report = Reporter(pipe, stop)
    settings = Settings()
    log.configure(settings.log_level, settings.log_format)
    with log.bound(job_id=job_id, fence=fence, request_id=os.environ.get(REQUEST_ID)):
        try:
            work = _gather(settings, job_id, fence, report)
            log.get_logger().info("attempt_started", kind=work.job.kind)
            run = importlib.import_module(f"workers.{work.job.kind}").run
            if work.job.kind == "ingest":  # an uploaded file may unpack to any size
                limit_memory(settings.max_ingest_memory_bytes)
            report.send(ResultMessage(result=run(work)))
        except Cancelled:
            report.send(StoppedMessage())
        except BaseException as error:
            traceback.print_exc()
            report.send(describe(error))
        report.times()
    return 0


def limit_memory(n_bytes: int) -> None:
    """Limit the memory of this process: an allocation beyond the limit raises MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def describe(error: BaseException) -> ErrorMessage:
    """Code, message and whether trying again may help; the details of a bug stay in the job's log."""
    is_allocation = isinstance(error, RuntimeError) and "not enough memory" in str(error)  # torch on the CPU
    if is_allocation or isinstance(error, MemoryError) or type(error).__name__ in _MEMORY_ERRORS:
        return ErrorMessage(code="out_of_memory", message="the runner ran out of memory", is_retryable=True)
    if isinstance(error, ClusteringError):
        return ErrorMessage(code=error.code, message=str(error), is_retryable=error.code == "out_of_memory")
    # A key of this attempt exists already: the storage had written it and reported a failure.
    if isinstance(error, StorageUnavailable | BlobExists):
        return ErrorMessage(code="storage_unavailable", message="the object storage does not answer", is_retryable=True)
    if isinstance(error, OperationalError):
        return ErrorMessage(code="database_unavailable", message="the database does not answer", is_retryable=True)
    if isinstance(error, OSError) and error.errno in _FULL:
        return ErrorMessage(code="disk_full", message="the worker's disk is full", is_retryable=True)
    if isinstance(error, AppError):
        return ErrorMessage(code=error.code, message=error.detail, is_retryable=False)
    return ErrorMessage(code="internal_error", message="a fault of the service; it was logged", is_retryable=True)


def _gather(settings: Settings, job_id: str, fence: int, report: Reporter) -> Work:
    database = connect_database(settings)
    with database.read() as session:
        job = session.get_one(JobRow, job_id)
        if job.fence != fence or job.state not in jobs.HELD:
            raise Cancelled("the job is someone else's by now")
        dataset = session.get_one(DatasetRow, job.dataset_id)
        model = session.get(ModelRow, job.model_id) if job.kind == "assign" else None
        upload = session.get(UploadRow, dataset.upload_id) if dataset.upload_id else None
        upload_parts = uploads.parts(session, upload.id) if upload else []
        part_prefixes = [
            prefix(part.tenant_id, part.kind, part.id, part.fence) for part in families.parts_in_order(session, job.id)
        ]
        starts = datasets.starts(session, dataset.id)
        max_images = quotas.room_for_images(session, job.tenant_id, settings.max_tenant_images)
        session.expunge_all()
    database.close()
    scratch = Path(os.environ["TMPDIR"])
    own_prefix = prefix(job.tenant_id, job.kind, job.id, fence)
    return Work(
        settings=settings,
        blobs=connect(settings),
        job=job,
        dataset=dataset,
        model=model,
        upload=upload,
        upload_parts=upload_parts,
        part_prefixes=part_prefixes,
        max_images=max_images,
        starts=starts,
        prefix=own_prefix,
        scratch=scratch,
        report=report,
    )


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    atexit._run_exitfuncs()  # releases the shared memory that helper processes left
    sys.stderr.flush()
    os._exit(ended)  # skips Python's own shutdown, which takes a second or two with torch loaded
