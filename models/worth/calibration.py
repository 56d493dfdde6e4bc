"""What a model knows of its own answers: how far its training images lie from their clusters, and what its
confidence is worth. numpy only: the service reads it, too.
"""

import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

N_KNOTS = 101
OUTLIER_SCORE = 0.99
_LARGEST = np.float32(np.finfo(np.float32).max)
_SAME = 2e-2  # of the median distance: images as near as that to a center lie in it
_AGAIN = 2e-2  # by which the distance of an image grows when it is encoded once more
_SMALLEST_DOUBT = 1e-7  # float32 knows no probability closer to 1


@dataclass(frozen=True)
class Calibration:
    """Distances and confidence of one model.

    `knots` float32 (K, 101): each cluster's distances from its center at 0, 1, ... 100 % of its training images.
    `slope`, `offset`: confidence = sigmoid(slope * logit(p) + offset) of the best probability p (Platt, 1999).
    """

    knots: NDArray[np.float32]
    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def of_distances(cls, distance: NDArray[np.float32], cluster: NDArray[np.int64], k: int) -> Self:
        """From every training image's distance to its cluster's center (N,); confidence stays as it is.

        A cluster without images has no outliers. Where all images of a cluster lie in its center, as copies of one
        image or one image alone do, whatever lies there is no outlier, and everything else is.
        """
        knots = np.full((k, N_KNOTS), _LARGEST)
        away = distance[distance > 0]
        same = np.float32(_SAME * np.median(away)) if len(away) else np.finfo(np.float32).eps
        order = np.argsort(cluster, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
            own = np.quantile(distance[members], np.linspace(0, 1, N_KNOTS), method="higher")
            if len(members) < N_KNOTS - 1:  # its farthest image sets the bound of outliers by itself
                own[-2:] *= 1 + _AGAIN
            # The image that sets a knot does not pass it by rounding, and copies differ by rounding alone.
            knots[cluster[members[0]]] = own * (1 + 1e-5) if own[-1] > same else same
        return cls(knots)

    def radii(self, score: float = OUTLIER_SCORE) -> NDArray[np.float32]:
        """The distance (K,) beyond which an image of each cluster scores higher."""
        place = score * (N_KNOTS - 1)
        low = int(place)
        high = min(low + 1, N_KNOTS - 1)
        radii: NDArray[np.float32] = self.knots[:, low] + np.float32(place - low) * (
            self.knots[:, high] - self.knots[:, low]
        )
        return radii

    def outlier_score(self, cluster: NDArray[np.int32], distance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Share of the cluster's training images that lie nearer to its center: (N,), (N,) -> (N,) in 0...1."""
        knots = self.knots[cluster]  # (N, 101)
        low = (knots < distance[:, None]).sum(axis=1) - 1  # of images at one distance none is nearer
        rows, last = np.arange(len(cluster)), N_KNOTS - 1
        below = knots[rows, low.clip(0, last - 1)].astype(np.float64)
        above = knots[rows, low.clip(0, last - 1) + 1].astype(np.float64)
        part = (distance - below) / np.maximum(above - below, np.finfo(np.float32).tiny)
        return np.select([low < 0, low >= last], [0.0, 1.0], (low + part.clip(0, 1)) / last)

    def confidence(self, p: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated confidence of best probabilities (N,), in the same order."""
        if self.slope == 1 and self.offset == 0:
            return p
        calibrated: NDArray[np.float32] = (1 / (1 + np.exp(-(self.slope * logit(p) + self.offset)))).astype(np.float32)
        return calibrated

    def to_bytes(self) -> bytes:
        """As an `.npz` file."""
        out = io.BytesIO()
        np.savez(out, knots=self.knots, confidence=np.array([self.slope, self.offset]))
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            slope, offset = arrays["confidence"].tolist()
            return cls(arrays["knots"], slope, offset)


def logit(p: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """ln(p / (1 - p)) of probabilities (N,), finite at 0 and 1."""
    p = p.astype(np.float64).clip(_SMALLEST_DOUBT, 1 - _SMALLEST_DOUBT)
    logits: NDArray[np.float64] = np.log(p / (1 - p))
    return logits
