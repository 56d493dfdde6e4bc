"""Nearest neighbours of every row, and how well a partition fits their graph.

Up to `EXACT_UNTIL` rows, and on an accelerator, every pair is compared, block by block. Beyond, k-means cells of about
`CELL_ROWS` rows are compared with the nearest of them only, so memory grows with N, and time nearly so. Blocks
have fixed bounds, so one torch thread gives one result.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EXACT_UNTIL = 16_000  # rows, and how many of them a row is compared with beyond; MNIST .981 with 8,000, .983 with these
CELL_ROWS = 128  # of cells of 1,000 rows those at their edges miss neighbours: MNIST .977
NEAREST_COUNTS, CLEARLY = (3, 4, 5), 3.0  # neighbours that overrule a likelihood, itself included; standard errors
CELL_STEPS, CELL_SAMPLE = 5, 20  # steps of k-means; rows a cell it is trained on
BLOCK_ENTRIES, ACCELERATOR_ENTRIES = 2**22, 2**28  # of a matrix of distances: 16 MB, 1 GB


@dataclass(frozen=True)
class Neighbours:
    """The k nearest neighbours of every row, itself first: indexes (N, k), Euclidean distances (N, k)."""

    index: Tensor
    distance: Tensor

    def first(self, n_neighbours: int) -> "Neighbours":
        """The nearest so many of them, the row itself included."""
        return Neighbours(self.index[:, :n_neighbours], self.distance[:, :n_neighbours])


def search(x: Tensor, n_neighbours: int, generator: torch.Generator, on_beat: Callable[[], None]) -> Neighbours:
    """Nearest neighbours of float32 rows (N, D) -> (N, k), in order of distance and then of index.

    A row is its own first neighbour, also among copies of it. On the CPU and beyond `EXACT_UNTIL` rows a few true
    neighbours of a hundred are missed.
    """
    x = x - x.mean(dim=0)  # far from the origin float32 would not tell neighbours apart
    everything = torch.arange(len(x), device=x.device)
    if len(x) <= EXACT_UNTIL or x.is_cuda:
        return _among(x, everything, everything, n_neighbours, on_beat)
    cells = _cells(x, generator, on_beat)
    parts = [
        _among(x, cells[i], torch.cat([cells[j] for j in nearest]), n_neighbours, on_beat)
        for i, nearest in enumerate(_nearest_cells(x, cells, on_beat))
    ]
    order = torch.cat(cells).argsort()
    return Neighbours(*(torch.cat([getattr(one, name) for one in parts])[order] for name in ("index", "distance")))


def modularity(near: Neighbours, labels: Tensor) -> float:
    """Newman's modularity of a partition (N,) on the symmetric neighbour graph: 1 - 1/K at best, 0 for chance."""
    return float(_modularities(*_edges(near), labels)[0])


def advantage(near: Neighbours, labels: Tensor, over: Tensor) -> float:
    """By how many standard errors the modularity of a partition (N,) exceeds another's.

    Edges are taken for independent draws. Those that both partitions keep, or both cut, add nothing to the error. 0 for
    partitions that cut the same edges.
    """
    one, other = _edges(near)
    ours, is_kept = _modularities(one, other, labels)
    theirs, was_kept = _modularities(one, other, over)
    n_changed = int((is_kept != was_kept).sum()) / 2  # each edge is there in both directions
    return (ours - theirs) * len(one) / 2 / math.sqrt(n_changed) if n_changed else 0.0


def overruled(near: Neighbours, partitions: Sequence[Tensor], likeliest: int) -> int:
    """Which of some partitions (N,) to take: the likeliest, or one that the nearest neighbours clearly prefer.

    `near` (N, k): a graph of fewer than `NEAREST_COUNTS` neighbours overrules nothing.
    """
    graphs = [near.first(count) for count in NEAREST_COUNTS if count <= near.index.shape[1]]
    if len(graphs) < len(NEAREST_COUNTS):
        return likeliest

    def least(number: int) -> float:
        return min(advantage(graph, partitions[number], partitions[likeliest]) for graph in graphs)

    advantages = [least(number) for number in range(len(partitions))]
    best = max(range(len(partitions)), key=advantages.__getitem__)
    return best if advantages[best] > CLEARLY else likeliest


def _edges(near: Neighbours) -> tuple[Tensor, Tensor]:
    """The ends of every edge of the symmetric graph, in both directions: (E,) each."""
    n, k = near.index.shape
    head = torch.arange(n, device=near.index.device).repeat_interleave(k - 1)
    tail = near.index[:, 1:].flatten()
    edges = torch.cat([head * n + tail, tail * n + head]).sort().values
    edges = edges[edges.diff(prepend=edges.new_tensor([-1])) != 0]  # each once
    return edges // n, edges % n


def _modularities(one: Tensor, other: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Modularity of a partition on the edges, and which of them lie within a cluster (E,)."""
    cluster = labels.to(one.device)
    is_kept = cluster[one] == cluster[other]
    share = torch.bincount(cluster[one]).double() / len(one)  # of the ends of edges that each cluster has
    return float(is_kept.double().mean() - share.square().sum()), is_kept


def _among(x: Tensor, rows: Tensor, candidates: Tensor, n_neighbours: int, on_beat: Callable[[], None]) -> Neighbours:
    """Nearest candidates (C,) of rows (B,), which are the first of the candidates: -> (B, k)."""
    queries, known = x[rows], x[candidates]
    norms = known.square().sum(dim=1)
    nearest, n_rows = [], max(1, (ACCELERATOR_ENTRIES if x.is_cuda else BLOCK_ENTRIES) // len(candidates))
    for start in range(0, len(rows), n_rows):
        on_beat()
        block = queries[start : start + n_rows]
        away = torch.addmm(norms, block, known.T, alpha=-2)  # squared distance, less the row's own norm
        places = torch.arange(len(block), device=x.device)
        away[places, start + places] = -torch.inf
        near = away.topk(n_neighbours, largest=False).indices
        nearest.append(_in_order(block, rows[start : start + n_rows], known[near], candidates[near]))
    return Neighbours(*(torch.cat(parts) for parts in zip(*nearest, strict=True)))


def _in_order(queries: Tensor, rows: Tensor, near: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours (B, k, D) of queries (B, D) by exact distance, the row itself first, then by index: -> (B, k) each."""
    distance = (near - queries[:, None]).square().sum(dim=2).sqrt()
    distance[index == rows[:, None]] = -1
    by_index = index.argsort(dim=1)
    order = by_index.gather(1, distance.gather(1, by_index).argsort(dim=1, stable=True))
    return index.gather(1, order), distance.gather(1, order).clamp(min=0)


def _cells(x: Tensor, generator: torch.Generator, on_beat: Callable[[], None]) -> list[Tensor]:
    """Rows of every cell: k-means on a sample, cells that are too large cut in pieces."""
    n_cells = -(-len(x) // CELL_ROWS)
    sample = x[torch.randperm(len(x), generator=generator)[: n_cells * CELL_SAMPLE].to(x.device)]
    centers = sample[:n_cells]
    for _ in range(CELL_STEPS):
        own = _closest(sample, centers, on_beat)
        size = torch.bincount(own, minlength=n_cells)[:, None]
        means = torch.zeros_like(centers).index_add_(0, own, sample) / size.clamp(min=1)
        centers = torch.where(size > 0, means, centers)
    own = _closest(x, centers, on_beat)
    sizes = torch.bincount(own, minlength=n_cells)
    cells = torch.split(own.argsort(stable=True), sizes.tolist())
    return [piece for cell in cells if len(cell) for piece in cell.tensor_split(-(-len(cell) // (2 * CELL_ROWS)))]


def _closest(x: Tensor, centers: Tensor, on_beat: Callable[[], None]) -> Tensor:
    """The nearest center of each row, block by block: (N, D), (C, D) -> (N,)."""
    norms, nearest = centers.square().sum(dim=1), []
    for block in torch.split(x, max(1, BLOCK_ENTRIES // len(centers))):
        on_beat()
        nearest.append(torch.addmm(norms, block, centers.T, alpha=-2).argmin(dim=1))
    return torch.cat(nearest)


def _nearest_cells(x: Tensor, cells: list[Tensor], on_beat: Callable[[], None]) -> Iterator[list[int]]:
    """For each cell itself and the nearest others, until they hold `EXACT_UNTIL` rows."""
    centers = torch.stack([x[cell].mean(dim=0) for cell in cells])
    sizes = torch.tensor([len(cell) for cell in cells], device=x.device)
    n_rows = max(1, BLOCK_ENTRIES // len(cells))
    for start in range(0, len(cells), n_rows):
        on_beat()
        away = torch.cdist(centers[start : start + n_rows], centers)
        away.diagonal(start).fill_(-1)
        order = away.argsort(dim=1, stable=True)
        enough = (sizes[order].cumsum(dim=1) < EXACT_UNTIL).sum(dim=1) + 1
        yield from (row[:n].tolist() for row, n in zip(order, enough.tolist(), strict=True))
