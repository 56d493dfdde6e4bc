"""Affinities of inputs on the neighbour graph of their codes, for losses over pairs (spectral clustering)."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from models.start import neighbours
from models.start.processes import INLINE_UNTIL, Workshop


def affinities(near: neighbours.Neighbours) -> scipy.sparse.csr_matrix:
    """Eq. (14) on the edges of nearest neighbours, at the scale of their median distance: -> symmetric (N, N)."""
    n, k = near.index.shape
    distance = near.distance[:, 1:].ravel().astype(np.float64)
    scale = np.median(distance) or 1.0
    weight = np.exp(-(distance**2) / (2 * scale**2))
    ends = (np.repeat(np.arange(n), k - 1), near.index[:, 1:].ravel())
    graph = scipy.sparse.csr_matrix((weight, ends), shape=(n, n))
    graph = graph.maximum(graph.T)
    graph.setdiag(0)
    return graph.tocsr()


@dataclass(frozen=True)
class Edges:
    """The entries of an affinity matrix that are not zero: places and weights, (E,) each."""

    i: Tensor
    j: Tensor
    w: Tensor


@dataclass(frozen=True)
class Pairs:
    """W of all inputs (N, N), and the nearest neighbours of each (N, k)."""

    w: scipy.sparse.csr_matrix
    near: Tensor

    @classmethod
    def of(cls, z: Tensor, n_neighbours: int, seed: int, on_beat: Callable[[], None]) -> "Pairs":
        """From codes (N, D), searched in a process of its own; `on_beat` is called meanwhile and may raise."""
        k, n_processes = min(n_neighbours + 1, len(z)), int(len(z) > INLINE_UNTIL)
        with tempfile.TemporaryDirectory() as folder, Workshop(n_processes, lambda _: on_beat()) as workshop:
            path = Path(folder) / "codes.npy"
            np.save(path, z.float().cpu().numpy())
            (found,) = workshop.run(neighbours.search, [(path, None, k, seed)])
        return cls(affinities(found), torch.from_numpy(found.index[:, 1:]))

    def with_neighbours(self, anchors: Tensor, n: int) -> Tensor:
        """So many anchors, filled up at random if there are fewer, and one neighbour of each: (B,) -> (2 n,)."""
        more = torch.randint(len(self.near), (max(0, n - len(anchors)),))
        anchors = torch.cat([anchors.cpu(), more])
        return torch.cat([anchors, self.near[anchors, torch.randint(self.near.shape[1], (len(anchors),))]])

    def among(self, rows: Tensor, device: str) -> Edges:
        """W of a batch (m,)."""
        found = self.w[rows.numpy()][:, rows.numpy()].tocoo()
        i, j, w = (torch.from_numpy(np.asarray(part)).to(device) for part in (found.row, found.col, found.data))
        return Edges(i.long(), j.long(), w.float())
