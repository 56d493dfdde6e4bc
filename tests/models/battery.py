"""Data and makers for the checks that every registered method must pass."""

from collections.abc import Callable

import numpy as np

from models import registry
from models.base import Clusterer
from models.pixels import InputSpec
from tests.factories import blobs_of_pixels

N, K = 60, 3


def images(side: int = 8, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stored inputs uint8 (N, C, S, S) of three clear kinds, and the kinds."""
    x, kinds = blobs_of_pixels(N, seed, side)
    return np.repeat(x[:, None], channels, axis=1), kinds


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stored inputs float32 (N, 4) of three clear kinds, far from the origin, and the kinds."""
    kinds = np.arange(N) % K
    noise = np.random.default_rng(seed).normal(scale=0.2, size=(N, 4))
    return (noise + kinds[:, None] * 8 + 1000).astype(np.float32), kinds


def spec_of(x: np.ndarray) -> InputSpec:
    if x.ndim == 2:
        return InputSpec("vectors", n_features=x.shape[1])
    return InputSpec("images", side=x.shape[2], channels=x.shape[1])


def make(method: str, x: np.ndarray, profile: str = "paper", **values: object) -> Clusterer:
    spec = registry.get(method)
    return spec.load()(
        spec.make_config(profile, {"n_clusters": K, **SHORT.get((method, profile), {}), **values}), spec_of(x)
    )


# Enough for data this small and clear; what the recipes reach on real images is measured elsewhere.
SHORT: dict[tuple[str, str], dict[str, object]] = {
    ("dcae", "paper"): {"n_epochs": 20, "batch_size": 10},
    ("dcae", "fast"): {"n_epochs": 1, "n_hold_steps": 180, "batch_size": 10},
}
CASES: list[tuple[str, str]] = [
    (name, profile) for name, spec in registry.methods().items() for profile in spec.profiles
]
DATA: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "gray 8": images,
    "rgb 16": lambda: images(16, 3),
    "vectors": vectors,
}
CASES_ON_DATA = [
    (name, profile, data)
    for name, profile in CASES
    for data in DATA
    if ("vectors" if data == "vectors" else "images") in registry.get(name).data
]
CASES_ON_VECTORS = [case[:2] for case in CASES_ON_DATA if case[2] == "vectors"]
