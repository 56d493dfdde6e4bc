"""Principal components of a view, found from a sample, so that no view of all inputs is ever held."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

N_KEPT = 128
N_SPARE, N_ROUNDS = 16, 3


@dataclass(frozen=True)
class Components:
    """The directions of largest variance of a sample: its mean (D,) and directions (D, n), largest first."""

    mean: Tensor
    directions: Tensor

    @classmethod
    def of(cls, sample: Tensor, generator: torch.Generator, n_kept: int = N_KEPT) -> Self:
        """From rows (B, D), by subspace iteration (Halko, Martinsson & Tropp, 2011, algorithm 4.4)."""
        mean = sample.mean(dim=0)
        away = sample - mean
        n, d = away.shape
        width = min(d, n, n_kept + N_SPARE)
        sketch = torch.randn(n, width, generator=generator).to(away.device)
        for _ in range(N_ROUNDS):
            directions = torch.linalg.qr(away.T @ sketch).Q  # (D, width)
            sketch = away @ directions
        turn = torch.linalg.eigh(sketch.T @ sketch).eigenvectors.flip(1)
        return cls(mean, directions @ turn[:, :n_kept])

    def project(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, n)."""
        return (x - self.mean) @ self.directions
