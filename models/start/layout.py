"""UMAP's layout of a neighbour graph (McInnes, Healy, Melville, 2018, arXiv:1802.03426), from the paper's equations.

Distances become a fuzzy graph (section 3.1), whose edges pull their ends together while rows drawn at random push each
other apart (section 3.2). Three things differ from the paper. Edges are taken in blocks of rows rather than one by one.
All rows of a group of `GROUP` are pushed by the same `N_DRAWN` rows, so that distances to them are one matrix product;
each push counts for several. And a row's pulls are taken implicitly, at most as far as to the mean of what pulls it:
explicit steps, as the paper's, go too far until the rate is small, and clusters stay wide.

One thread gives one result; forces are summed by sorted segments, so an accelerator repeats its results too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from models.start.neighbours import Neighbours

A, B = 1.929, 0.7915  # of 1 / (1 + A d^2B), fitted to exp(-d): min_dist 0, spread 1
N_EPOCHS = 200
N_PUSHES = 5.0  # for each pull
N_DRAWN, GROUP = 32, 64
MAX_PUSH = 4.0  # of one row by another
EXTENT, NOISE = 10.0, 1e-3  # of each coordinate where a layout begins, and what parts copies
SIGMA_STEPS = 40
N_FILTERS, FILTER_DEGREE, N_SPARE, MAX_CUT = 5, 20, 6, 0.99
BLOCK_ROWS, ACCELERATOR_ROWS = 64 * GROUP, 2_048 * GROUP
TINY, SMALL = 1e-12, 1e-8


@dataclass(frozen=True)
class Graph:
    """Edges of a symmetric graph, sorted by head: heads, tails and weights in 0...1, (E,) each."""

    head: Tensor
    tail: Tensor
    weight: Tensor


def fuzzy_graph(near: Neighbours) -> Graph:
    """The fuzzy union of every row's neighbourhood, w + w' - w w' (section 3.1)."""
    n, k = near.index.shape
    weight = memberships(near.distance[:, 1:]).flatten()
    head = torch.arange(n, device=weight.device).repeat_interleave(k - 1)
    tail = near.index[:, 1:].flatten()
    edges, order = torch.cat([head * n + tail, tail * n + head]).sort(stable=True)
    both = weight.repeat(2)[order]
    is_first = edges.diff(prepend=edges.new_tensor([-1])) != 0
    is_paired = torch.cat([~is_first[1:], is_first.new_zeros(1)])  # the same edge, from its other end, comes next
    one, other = both[is_first], torch.where(is_paired, both.roll(-1), 0.0)[is_first]
    edges = edges[is_first]
    return Graph(edges // n, edges % n, one + other - one * other)


def memberships(distance: Tensor) -> Tensor:
    """exp(-(d - rho) / sigma) of neighbours at distances (N, k - 1), sigma so that a row's sum is log2 k.

    rho is the distance of the nearest row that is no copy. sigma is found by bisection (algorithm 3).
    """
    rho = torch.where(distance > 0, distance, torch.inf).min(dim=1, keepdim=True).values
    away = (distance - torch.where(rho.isinf(), 0.0, rho)).clamp(min=0)
    target = math.log2(distance.shape[1] + 1)
    sigma = away.mean(dim=1, keepdim=True).clamp(min=TINY)
    low, high = torch.zeros_like(sigma), torch.full_like(sigma, torch.inf)
    for _ in range(SIGMA_STEPS):
        is_wide = torch.exp(-away / sigma).sum(dim=1, keepdim=True) > target
        low, high = torch.where(is_wide, low, sigma), torch.where(is_wide, sigma, high)
        sigma = torch.where(high.isinf(), 2 * low, (low + high) / 2)
    smallest = 1e-3 * distance.mean(dim=1, keepdim=True)  # where copies alone exceed the sum
    return torch.exp(-away / torch.maximum(sigma, smallest).clamp(min=TINY))


def lay_out(
    layouts: Sequence[tuple[Graph, Tensor, torch.Generator]], n_components: int, on_beat: Callable[[], None]
) -> list[Tensor]:
    """Layouts of graphs, each with its rows (N, D) and a generator: -> (N, d) each.

    The first columns of the rows are their principal components. Several small layouts together take little longer than
    one, and each is as it would be alone, but for rounding (and for the order of moves beyond one block of rows).
    """
    parts = []  # rows of all layouts, each filled up to whole groups
    for graph, x, generator in layouts:
        begun = _begin(graph, x, n_components, generator, on_beat)
        lowest = begun.min(dim=0).values
        begun = (begun - lowest) * (EXTENT / (begun.max(dim=0).values - lowest).clamp(min=TINY))
        begun += NOISE * torch.randn(begun.shape, generator=generator).to(begun.device)
        parts.append(F.pad(begun, (0, 0, 0, -len(x) % GROUP)))
    starts = [0, *accumulate(len(part) for part in parts)]
    z = torch.cat(parts)
    schedule = _Schedule.of([(graph, generator) for graph, _, generator in layouts], starts)
    n_rows = ACCELERATOR_ROWS if z.is_cuda else BLOCK_ROWS
    for epoch in range(N_EPOCHS):
        rate = 1 - epoch / N_EPOCHS
        head, tail, bounds = schedule.due(n_rows)
        draws = [
            start + torch.randint(len(x), (len(part) // GROUP, N_DRAWN), generator=generator)
            for start, part, (_, x, generator) in zip(starts, parts, layouts, strict=False)
        ]
        drawn = torch.cat(draws).to(z.device)
        for i, start in enumerate(range(0, len(z), n_rows)):
            on_beat()
            own, edges = z[start : start + n_rows], slice(bounds[i], bounds[i + 1])
            pull, stiffness = _pull(z, own, head[edges] - start, tail[edges])
            push = _push(own, F.embedding(drawn[start // GROUP : (start + n_rows) // GROUP], z))
            force = 2 * pull + schedule.push[start : start + n_rows] * push
            own += rate * force / (1 + 2 * rate * stiffness)
    return [z[start : start + len(x)] for start, (_, x, _) in zip(starts, layouts, strict=False)]


@dataclass(frozen=True)
class _Schedule:
    """When each edge is due: as often as its weight says. A row is pushed as often as its edges are due."""

    head: Tensor  # (E,)
    tail: Tensor
    weight: Tensor
    clock: Tensor
    push: Tensor  # (N, 1), what one drawn row counts for

    @classmethod
    def of(cls, graphs: Sequence[tuple[Graph, torch.Generator]], starts: Sequence[int]) -> "_Schedule":
        """Of graphs, each with its generator, whose rows begin at `starts` and fill whole groups."""
        parts = []
        for (graph, generator), start, stop in zip(graphs, starts, starts[1:], strict=False):
            weight = graph.weight / graph.weight.max()
            is_kept = weight >= 1 / N_EPOCHS
            head, tail, weight = graph.head[is_kept], graph.tail[is_kept], weight[is_kept]
            degree = torch.bincount(head, minlength=stop - start)
            push = torch.segment_reduce(weight, "sum", lengths=degree, unsafe=True) * (N_PUSHES / N_DRAWN)
            clock = torch.rand(len(weight), generator=generator).to(weight.device)
            parts.append((head + start, tail + start, weight, clock, push[:, None]))
        return cls(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def due(self, n_rows: int) -> tuple[Tensor, Tensor, list[int]]:
        """Heads and tails of this epoch's edges, and where those of every block of rows begin and end."""
        self.clock.add_(self.weight)
        due = (self.clock >= 1).nonzero()[:, 0]
        self.clock[due] -= 1
        head = self.head[due]
        starts = torch.arange(0, len(self.push) + n_rows, n_rows, device=head.device)
        return head, self.tail[due], torch.searchsorted(head, starts).tolist()


def _pull(z: Tensor, own: Tensor, head: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """What edges from rows of a block (R, d) to rows of all (N, d) pull the block's rows by: -> (R, d).

    Also how much weaker it gets by each unit that they give way (R, 1).
    """
    away = F.embedding(tail, z) - F.embedding(head, own)
    square = away.square().sum(dim=1, keepdim=True).clamp_(min=SMALL)
    power = A * square**B
    strength = 2 * B * power / (square * (1 + power))
    degree = torch.bincount(head, minlength=len(own))
    sums = torch.segment_reduce(torch.cat([away * strength, strength], dim=1), "sum", lengths=degree, unsafe=True)
    return sums[:, :-1], sums[:, -1:]


def _push(own: Tensor, drawn: Tensor) -> Tensor:
    """What drawn rows (G, M, d) push the rows of their groups (R, d) by: -> (R, d)."""
    n_groups, _, d = drawn.shape
    rows = own.view(n_groups, GROUP, d)
    away = torch.baddbmm(drawn.square().sum(dim=2)[:, None], rows, drawn.transpose(1, 2), alpha=-2)
    away = (away + rows.square().sum(dim=2, keepdim=True)).clamp_(min=SMALL)  # squared distances (G, GROUP, M)
    strength = 2 * B / ((away**B).mul_(A).add_(1).mul_(away + 1e-3))
    strength = torch.minimum(strength, MAX_PUSH * away.rsqrt())
    push = torch.baddbmm(strength.sum(dim=2, keepdim=True) * rows, strength, drawn, alpha=-1)
    return push.view(-1, d)


def _begin(
    graph: Graph, x: Tensor, n_components: int, generator: torch.Generator, on_beat: Callable[[], None]
) -> Tensor:
    """Where a layout begins: the smallest eigenvectors of the normalised Laplacian but the first -> (N, d).

    The largest of D^-1/2 W D^-1/2, from principal components (N, D) and noise, by subspace iteration with Chebyshev
    filters of the eigenvalues below the wanted ones (Zhou, Saad, Tiago, Chelikowsky, 2006). Pieces of a graph that
    hang together by nothing begin where their principal components are: they need no special care.
    """
    n = len(x)
    missing = torch.randn(n, max(N_SPARE, n_components + N_SPARE - x.shape[1]), generator=generator).to(x.device)
    z = torch.cat([x[:, :n_components], missing], dim=1)[:, : min(n - 1, n_components + N_SPARE)]
    degree = torch.bincount(graph.head, minlength=n)
    mass = torch.segment_reduce(graph.weight, "sum", lengths=degree, unsafe=True)
    root = mass.clamp(min=TINY).sqrt()
    weight = graph.weight / (root[graph.head] * root[graph.tail])
    ends = torch.cat([degree.new_zeros(1), degree.cumsum(dim=0)])
    z = torch.linalg.qr(torch.cat([root[:, None], z / z.std().clamp(min=TINY)], dim=1)).Q
    cut = 0.0
    for _ in range(N_FILTERS):
        middle, half = (cut - 1) / 2, (cut + 1) / 2  # -1 to cut are damped
        before, z = z, (_times(weight, graph.tail, ends, z) - middle * z) / half
        for _ in range(FILTER_DEGREE - 1):
            on_beat()
            before, z = z, (_times(weight, graph.tail, ends, z) - middle * z) * (2 / half) - before
        z = torch.linalg.qr(z).Q
        value, turn = torch.linalg.eigh(z.T @ _times(weight, graph.tail, ends, z))
        z = z @ turn.flip(1)
        cut = min(MAX_CUT, max(0.0, float(value[0])))  # of few rows all eigenvalues are here, down to -1
    begun: Tensor = z[:, 1 : n_components + 1]
    return begun


def _times(weight: Tensor, tail: Tensor, ends: Tensor, z: Tensor) -> Tensor:
    """A sparse matrix of (E,) entries, row i's from ends[i] on, times (N, d)."""
    product: Tensor = F.embedding_bag(tail, z, ends, mode="sum", per_sample_weights=weight, include_last_offset=True)
    return product
