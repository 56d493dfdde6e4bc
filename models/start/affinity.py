"""Affinities of inputs on the neighbour graph of their codes, for losses over pairs (spectral clustering)."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.start import neighbours
from models.start.processes import INLINE_UNTIL, Workshop


@dataclass(frozen=True)
class Edges:
    """Entries of an affinity matrix: places and weights, (E,) each; a weight of zero is no edge."""

    i: Tensor
    j: Tensor
    w: Tensor


def affinities(near: neighbours.Neighbours) -> Tensor:
    """Eq. (14) for every row and its k nearest neighbours, at the scale of their median distance: -> (N, k).

    W is symmetric and holds an edge where either row is a neighbour of the other. A sum over both of its halves equals
    a sum over these directed edges: those that have no twin count twice.
    """
    others = torch.from_numpy(near.index[:, 1:])
    distance = near.distance[:, 1:].astype(np.float64)
    scale = np.median(distance) or 1.0
    weight = torch.from_numpy(np.exp(-(distance**2) / (2 * scale**2)))
    has_twin = (others[others] == torch.arange(len(others)).view(-1, 1, 1)).any(dim=2)
    return torch.where(has_twin, weight, 2 * weight).float()


@dataclass(frozen=True)
class Pairs:
    """Nearest neighbours of all inputs (N, k), weights of the edges to them (N, k), and room for a look-up (N,)."""

    near: Tensor
    weight: Tensor
    place: Tensor

    @classmethod
    def of(cls, z: Tensor, n_neighbours: int, seed: int, on_beat: Callable[[], None]) -> "Pairs":
        """From codes (N, D), searched in a process of its own; `on_beat` is called meanwhile and may raise."""
        k, n_processes = min(n_neighbours + 1, len(z)), int(len(z) > INLINE_UNTIL)
        with tempfile.TemporaryDirectory() as folder, Workshop(n_processes, lambda _: on_beat()) as workshop:
            path = Path(folder) / "codes.npy"
            np.save(path, z.float().cpu().numpy())
            (near,) = workshop.run(neighbours.search, [(path, None, k, seed)])
        others = torch.from_numpy(near.index[:, 1:])
        place = torch.full((len(z),), -1)
        return cls(others.to(z.device), affinities(near).to(z.device), place.to(z.device))

    def with_neighbours(self, anchors: Tensor, n: int) -> Tensor:
        """So many anchors, filled up at random if there are fewer, and one neighbour of each: (B,) -> (2 n,)."""
        device = self.near.device
        more = torch.randint(len(self.near), (max(0, n - len(anchors)),), device=device)
        anchors = torch.cat([anchors, more])
        chosen = torch.randint(self.near.shape[1], (len(anchors),), device=device)
        return torch.cat([anchors, self.near[anchors, chosen]])

    def among(self, rows: Tensor) -> Edges:
        """The edges between rows of a batch (m,): always m * k, those that leave the batch with a weight of zero.

        Of a row that stands in the batch more than once, edges end at the last place.
        """
        places = torch.arange(len(rows), device=rows.device)
        self.place.scatter_reduce_(0, rows, places, "amax")
        ends = self.place[self.near[rows]]  # (m, k)
        self.place[rows] = -1
        weight = torch.where(ends >= 0, self.weight[rows], 0)
        starts = places.unsqueeze(1).expand_as(ends)
        return Edges(starts.flatten(), ends.clamp(min=0).flatten(), weight.flatten())
