"""One model at work: its graph, what waits for it, the answers it gave lately, and how they compare with training."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from app.inference.batcher import Batcher
from app.inference.nearest_images import NearestImages
from app.inference.served import ServedModel

MAX_RECENT = 10_000
DRIFT_WINDOW = 10_000
_MIN_SHARE = 1e-4


@dataclass(frozen=True)
class Row:
    """One answer."""

    cluster: int
    confidence: float
    outlier_score: float


@dataclass
class Serving:
    """What the process holds of a loaded model. `load_nearest_images` reads training embeddings at their first use."""

    model: ServedModel
    batcher: Batcher
    drift: "Drift"
    load_nearest_images: Callable[[], NearestImages | None]
    recent: "Recent" = field(default_factory=lambda: Recent(MAX_RECENT))

    @cached_property
    def nearest_images(self) -> NearestImages | None:
        """Training images to compare with; None for a model of a release that kept none. The first call does I/O."""
        return self.load_nearest_images()

    @property
    def n_bytes(self) -> int:
        """Memory it takes, about."""
        nearest_images: NearestImages | None = self.__dict__.get("nearest_images")
        return self.model.n_bytes + (nearest_images.n_bytes if nearest_images else 0)


class Recent:
    """The last answers by content of the file, so that a picture sent again costs a hash."""

    def __init__(self, n_most: int) -> None:
        self._rows: OrderedDict[bytes, Row] = OrderedDict()
        self._n_most = n_most
        self._lock = Lock()

    @staticmethod
    def key(data: bytes) -> bytes:
        """What a file is known by."""
        return blake2b(data, digest_size=16).digest()

    def get(self, key: bytes) -> Row | None:
        """The answer for such a file, where it is still known."""
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, key: bytes, row: Row) -> None:
        """Remember an answer; the one not asked for longest goes."""
        with self._lock:
            self._rows[key] = row
            if len(self._rows) > self._n_most:
                self._rows.popitem(last=False)


class Drift:
    """How far the clusters of served images are from those of training: the population stability index.

    PSI = sum over clusters of (served - trained) * ln(served / trained), shares of the last 10,000 images or so against
    those of training. Below .1 is taken for stable, above .25 for another population.
    """

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        """`sizes` (K,): images of each cluster in training."""
        self._trained = _shares(sizes.astype(np.float64))
        self._served = np.zeros(len(sizes))
        self._lock = Lock()

    def count(self, clusters: NDArray[np.int32]) -> None:
        """Take answers (N,) into account; older ones fade."""
        with self._lock:
            self._served *= max(0.0, 1 - len(clusters) / DRIFT_WINDOW)
            np.add.at(self._served, clusters, 1.0)

    def psi(self) -> float | None:
        """The index; None before the first answer."""
        with self._lock:
            served = self._served.copy()
        if not served.any():
            return None
        served = _shares(served)
        return float(((served - self._trained) * np.log(served / self._trained)).sum())


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares (K,) none of which is 0, where the index has no value."""
    raised = np.maximum(counts / counts.sum(), _MIN_SHARE)
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares
