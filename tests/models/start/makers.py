"""What tests of the start share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_blobs

from models.start.crew import Crew

_BLOBS, KINDS = make_blobs(300, 6, centers=4, cluster_std=0.7, random_state=0)
BLOBS = torch.from_numpy(_BLOBS).float()


def rings(n_each: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 (10 n, 8): ten rings that pass close to each other, and which ring each point is of."""
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, n_each, endpoint=False)
    parts = []
    for _ in range(10):
        plane = np.linalg.qr(rng.normal(size=(8, 2))).Q
        center = rng.normal(size=8) * 0.5 / np.sqrt(8)
        parts.append(np.stack([np.cos(turn), np.sin(turn)], axis=1) @ plane.T + center)
        parts[-1] += 0.02 * rng.normal(size=(n_each, 8))
    return np.concatenate(parts).astype(np.float32), np.arange(10).repeat(n_each)


def broad_blobs() -> tuple[np.ndarray, np.ndarray]:
    """Float32 (400, 8): points of six broad blobs, and which blob each is of."""
    x, y = make_blobs(400, 8, centers=6, cluster_std=1.5, center_box=(-4, 4), random_state=1)
    return x.astype(np.float32), y


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quiet() -> None:
    """A beat that nobody listens to."""


def on_threads(n: int, step: Callable[..., Any], tasks: list[tuple]) -> list[Any]:
    """Results of a crew of so many threads, in a process whose torch has as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with Crew(n, lambda _: None) as crew:
            return crew.run(step, tasks)
    finally:
        torch.set_num_threads(before)
