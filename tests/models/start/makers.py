"""What tests of the start share."""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import make_blobs

from models.start.crew import Crew

_BLOBS, KINDS = make_blobs(300, 6, centers=4, cluster_std=0.7, random_state=0)
BLOBS = torch.from_numpy(_BLOBS).float()


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
