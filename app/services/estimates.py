"""How long a training may take and how much memory, before it is started.

The estimate's shape is fitted to docs/results.md, on two cores; what the service's own trainings took corrects it.
"""

from dataclasses import dataclass
from statistics import median

from app.store import Session, jobs
from app.store.tables import DatasetRow, JobRow
from models import registry
from models.pixels import DEFAULT_SIDE, MAX_KEPT_SIDE, MIN_KEPT_SIDE

# Of `fast` on two cores: MNIST 511 s (measured: 464 to 571), USPS 105 (166 to 209), ORL 63 (50 to 144), COIL-20 377
# (183 to 518). Memory: MNIST 3.2 GB (2.9 at most), USPS 1.0 (1.0), ORL .8 (.8), COIL-20 3.4 (3.5).
_SECONDS, _SECONDS_AN_IMAGE, _SECONDS_A_PIXEL = 40.0, 6.5e-3, 0.02
_BYTES, _BYTES_AN_IMAGE, _BYTES_A_PIXEL = 600e6, 35e3, 170e3
_TIMES = {"precise-feature": 3.0}
_SPREAD, _OWN_SPREAD = 2.0, 1.5
_N_OWN = 20


@dataclass(frozen=True)
class Estimate:
    """Seconds from the start of the job, low and high (None: nothing like it was ever measured), and bytes at most."""

    seconds: tuple[float, float] | None
    memory_bytes: int | None
    n_own: int  # trainings of this service that the estimate rests on


def of_training(session: Session, job: JobRow, dataset: DatasetRow) -> Estimate:
    """What a training may take."""
    assert job.method is not None
    is_deep = registry.get(job.method).uses_gpu
    expected = _seconds(job.method, dataset)
    own = [
        seconds / _seconds(job.method, trained_on)
        for seconds, trained_on in jobs.durations(session, job.tenant_id, job.method, job.profile or "", _N_OWN)
    ]
    memory = int(_BYTES + _BYTES_AN_IMAGE * dataset.n_images + _BYTES_A_PIXEL * _pixels(dataset)) if is_deep else None
    if own:
        middle, spread = expected * median(own), _OWN_SPREAD
    elif is_deep and job.profile == "fast":
        middle, spread = expected, _SPREAD
    else:
        return Estimate(None, memory, 0)
    return Estimate((round(middle / spread, 1), round(middle * spread, 1)), memory, len(own))


def _seconds(method: str, dataset: DatasetRow) -> float:
    plain = _SECONDS + _SECONDS_AN_IMAGE * dataset.n_images + _SECONDS_A_PIXEL * _pixels(dataset)
    return plain * _TIMES.get(method, 1.0)


def _pixels(dataset: DatasetRow) -> int:
    """Values of one input as a model sees it, unless its config says otherwise."""
    if dataset.n_features is not None:
        return dataset.n_features
    side = dataset.width if dataset.width == dataset.height else None
    if side is None or not MIN_KEPT_SIDE <= side <= MAX_KEPT_SIDE:
        side = DEFAULT_SIDE
    return side * side
