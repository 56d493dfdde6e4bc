"""Affinities of inputs on the neighbour graph of their codes, for losses over pairs (spectral clustering)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.start.crew import Crew
from models.start.neighbours import Neighbours, search


@dataclass(frozen=True)
class Edges:
    """Entries of an affinity matrix: places and weights, (E,) each; a weight of zero is no edge."""

    i: Tensor
    j: Tensor
    w: Tensor


def affinities(near: Neighbours) -> Tensor:
    """Eq. (14) for every row and its k nearest neighbours, at the scale of their median distance: -> (N, k).

    W is symmetric and holds an edge where either row is a neighbour of the other. A sum over both of its halves equals
    a sum over these directed edges: those that have no twin count twice.
    """
    others, distance = near.index[:, 1:], near.distance[:, 1:].double()
    scale = float(np.median(distance.cpu().numpy())) or 1.0
    weight = torch.exp(-distance.square() / (2 * scale**2))
    has_twin = (others[others] == torch.arange(len(others), device=others.device).view(-1, 1, 1)).any(dim=2)
    return torch.where(has_twin, weight, 2 * weight).float()


@dataclass(frozen=True)
class Pairs:
    """Nearest neighbours of all inputs (N, k), weights of the edges to them (N, k), and room for a look-up (N,)."""

    near: Tensor
    weight: Tensor
    place: Tensor

    @classmethod
    def of(cls, z: Tensor, n_neighbours: int, seed: int, on_beat: Callable[[], None]) -> "Pairs":
        """From codes (N, D); `on_beat` is called meanwhile and may raise."""
        k, generator = min(n_neighbours + 1, len(z)), torch.Generator().manual_seed(seed)
        with Crew(1, lambda _: on_beat()) as crew:
            (near,) = crew.run(search, [(z.detach().float(), k, generator, crew.beat)])
        return cls(near.index[:, 1:], affinities(near), torch.full((len(z),), -1, device=z.device))

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
