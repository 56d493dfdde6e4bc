"""How far a model's confidence can be trusted, without targets: does an image keep its cluster when it is seen anew?

Each of some training images is looked at again, moved and turned a little (an image) or drawn toward its nearest
neighbour (a vector). A view's confidence should be the chance that it has the cluster of the untouched image. Platt
scaling fits that (Platt, Probabilistic outputs for support vector machines, 1999, with his smoothed targets).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.neighbors import NearestNeighbors

from models.parts.augment import shift_and_rotate
from models.worth.calibration import logit

N_IMAGES, N_VIEWS = 1000, 4
MIN_SLOPE = 0.01

Assign = Callable[[NDArray[Any]], tuple[NDArray[np.int32], NDArray[np.float32]]]


def measure(assign: Assign, x: NDArray[Any], seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences of views (M,), and whether each has the cluster of its image (M,).

    Args:
        assign: stored inputs (B, ...) -> clusters (B,), best probabilities (B,).
        x: stored inputs (N, ...) of the training.
        seed: of the images and the views.
    """
    rng = np.random.default_rng(seed)
    chosen = x[np.sort(rng.permutation(len(x))[:N_IMAGES])]
    own, _ = assign(chosen)
    confidences, agreements = [], []
    for _ in range(N_VIEWS):
        cluster, confidence = assign(view(chosen, rng))
        confidences.append(confidence.astype(np.float64))
        agreements.append(cluster == own)
    return np.concatenate(confidences), np.concatenate(agreements)


def fit(confidence: NDArray[np.float64], agrees: NDArray[np.bool_]) -> tuple[float, float]:
    """Platt's slope and offset for confidences (M,) and whether they were right (M,)."""
    x = logit(confidence)
    n_right = int(agrees.sum())
    target = np.where(agrees, (n_right + 1) / (n_right + 2), 1 / (len(agrees) - n_right + 2))

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = values[0] * x + values[1]
        error = 1 / (1 + np.exp(-score)) - target
        gradient = np.array([(error * x).mean(), error.mean()])
        return float((np.logaddexp(0, score) - target * score).mean()), gradient

    values = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, 20), (-20, 20)]).x
    return float(values[0]), float(values[1])


def view(x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Stored inputs (B, ...) seen a little differently."""
    if x.dtype != np.uint8:
        if len(x) < 2:
            return x
        nearest = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x, return_distance=False)[:, 1]
        share = rng.uniform(0, 0.5, size=(len(x), 1)).astype(np.float32)
        between: NDArray[np.float32] = x + share * (x[nearest] - x)
        return between
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        moved = shift_and_rotate(torch.from_numpy(np.array(x)).float())
    seen: NDArray[np.uint8] = moved.round().clamp(0, 255).byte().numpy()
    return seen
