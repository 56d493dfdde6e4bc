"""Full-covariance Gaussian mixtures by expectation-maximisation, from k-means or from a partition.

The log-density of every row under every component is a linear map of its products: with features f(z) = [z z', z, 1]
of a row (their number is F), log pi_k N(z; mu_k, Sigma_k) = f(z) . c_k. So the E-step and the M-step are a matrix
product each, (B, F) x (F, K) and (K, B) x (B, F). Rows are taken in blocks; no matrix (N, K) is ever held.

Several layouts of the same rows are independent within a cluster: log pi_k + sum_v log N(z_v; mu_kv, Sigma_kv). Their
features stand side by side. Everything is in float64, since sums of products cancel.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_EM_STEPS, MAX_MEAN_STEPS = 100, 300
EM_TOLERANCE = 1e-5  # nats an image; views that disagree settle slowly
SEARCH_TOLERANCE = 1e-3  # of mixtures that are only compared with each other
MEAN_TOLERANCE = 1e-4  # shift of k-means' centers, squared, over the mean variance
REG_COVAR = 1e-6  # for an embedding whose clusters have a spread of about 1
BLOCK_ENTRIES = 2**18  # of a block's widest matrix: 2 MB stay in the cache
ACCELERATOR_ENTRIES = 2**26


class _Collapsed(Exception):
    """A component has no rows left, or a covariance that is not positive."""


@dataclass(frozen=True)
class Mixture:
    """A partition as a mixture sees it: mean log-likelihood, labels (N,), responsibilities of the own cluster (N,)."""

    log_likelihood: float
    labels: Tensor
    confidence: Tensor


def mixture(z: Tensor, n_clusters: int, generator: torch.Generator, on_beat: Callable[[], None]) -> Mixture:
    """A full-covariance Gaussian mixture from one k-means start: (N, D) -> its partition.

    Where a covariance collapses (hardly more rows than dimensions) k-means' labels come back, with a likelihood of
    minus infinity.
    """
    rows = _Rows.of([z], n_clusters, on_beat)
    labels = kmeans(z.double(), n_clusters, generator, on_beat)
    try:
        return _climb(rows, labels, SEARCH_TOLERANCE)
    except _Collapsed:
        return _unlikely(labels)


def refine(layouts: Sequence[Tensor], labels: Tensor, n_clusters: int, on_beat: Callable[[], None]) -> Mixture:
    """The mixture of several layouts (N, D) of the same rows that expectation-maximisation reaches from labels (N,).

    Where a cluster is empty, or becomes so, the labels come back as they are, with a likelihood of minus infinity.
    """
    rows = _Rows.of(layouts, n_clusters, on_beat)
    try:
        refined = _climb(rows, labels, EM_TOLERANCE)
    except _Collapsed:
        return _unlikely(labels)
    if torch.bincount(refined.labels, minlength=n_clusters).min() == 0:
        return _unlikely(labels)
    return refined


def distinct(mixtures: Sequence[Mixture]) -> list[Mixture]:
    """One of each partition, whatever its clusters are called."""
    kept: dict[bytes, Mixture] = {}
    for one in mixtures:
        _, first, own = np.unique(one.labels.cpu().numpy(), return_index=True, return_inverse=True)
        kept.setdefault(first[own].tobytes(), one)  # a cluster's name is its first row
    return list(kept.values())


def joint_likelihood(mixtures: Sequence[Mixture]) -> tuple[int, float]:
    """How many of a partition's mixtures on several layouts have a likelihood, and the sum of those."""
    likelihoods = [one.log_likelihood for one in mixtures if math.isfinite(one.log_likelihood)]
    return len(likelihoods), sum(likelihoods)


Vote = tuple[Tensor, Tensor, float]


def vote(mixtures: Sequence[Mixture]) -> Vote:
    """Partitions that several layouts gave in the same numbering as one: the cluster with most confidence.

    A mixture without a likelihood has no vote, unless none has one. Returns labels (N,), their mean confidence over the
    layouts (N,), and the mean share on which two layouts agree.
    """
    mixtures = [one for one in mixtures if math.isfinite(one.log_likelihood)] or mixtures
    all_labels, all_confidence = (
        torch.stack([one.labels for one in mixtures]),
        torch.stack([one.confidence for one in mixtures]),
    )
    same = all_labels[:, None] == all_labels[None]  # (S, S, N)
    weight = (same * all_confidence[None]).sum(dim=1)  # (S, N)
    highest, best = weight.max(dim=0)
    n, n_rows = all_labels.shape
    agreement = 1.0 if n == 1 else (int(same.sum()) - n * n_rows) / (n * (n - 1) * n_rows)
    return all_labels.gather(0, best[None])[0], highest / n, agreement


def kmeans(z: Tensor, n_clusters: int, generator: torch.Generator, on_beat: Callable[[], None]) -> Tensor:
    """Lloyd's k-means from k-means++ starts (Arthur & Vassilvitskii, SODA 2007): float64 (N, D) -> labels (N,)."""
    z = z - z.mean(dim=0)
    centers = _spread(z, n_clusters, generator)
    enough = MEAN_TOLERANCE * float(z.square().mean())
    with_one = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
    n_rows = max(1, BLOCK_ENTRIES // n_clusters)
    labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
    for _ in range(MAX_MEAN_STEPS):
        sums = z.new_zeros(n_clusters, z.shape[1] + 1)
        for start in range(0, len(z), n_rows):
            on_beat()
            block = with_one[start : start + n_rows]
            own = torch.addmm(centers.square().sum(dim=1), block[:, :-1], centers.T, alpha=-2).argmin(dim=1)
            labels[start : start + n_rows] = own
            member = z.new_zeros(len(block), n_clusters).scatter_(1, own[:, None], 1.0)
            sums += member.T @ block
        before, size = centers, sums[:, -1:]
        centers = torch.where(size > 0, sums[:, :-1] / size.clamp(min=1), centers)
        if (centers - before).square().sum() <= enough:
            break
    return labels


def _spread(z: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: each center is the best of a few rows drawn by squared distance: (N, D) -> (K, D)."""
    n_tries = 2 + int(math.log(n_clusters))
    draws = torch.rand(n_clusters, n_tries, generator=generator, dtype=torch.float64).to(z.device)
    first = z[int(draws[0, 0] * len(z))]
    centers, nearest = [first], (z - first).square().sum(dim=1)
    for row in draws[1:]:
        edges = nearest.cumsum(dim=0)
        tried = torch.searchsorted(edges, row * edges[-1]).clamp(max=len(z) - 1)
        left = torch.minimum(nearest, (z - z[tried][:, None]).square().sum(dim=2))  # (T, N)
        best = int(left.sum(dim=1).argmin())
        centers.append(z[tried[best]])
        nearest = left[best]
    return torch.stack(centers)


def _unlikely(labels: Tensor) -> Mixture:
    return Mixture(-math.inf, labels, torch.ones(len(labels), device=labels.device))


def _climb(rows: "_Rows", labels: Tensor, tolerance: float) -> Mixture:
    """Expectation-maximisation from labels (N,) until a step gains less than the tolerance.

    Raises:
        _Collapsed: a component has no rows left, or a covariance that is not positive.
    """
    moments = rows.moments_of(labels)
    likelihood = -math.inf
    own, confidence = labels, torch.ones(len(labels), device=labels.device)
    for _ in range(MAX_EM_STEPS):
        coefficients = rows.coefficients(moments)
        before = likelihood
        likelihood, moments, own, confidence = rows.step(coefficients)
        if likelihood - before < tolerance:
            break
    if not math.isfinite(likelihood):
        raise _Collapsed
    return Mixture(likelihood, own, confidence)


@dataclass(frozen=True)
class _Rows:
    """All rows of all layouts, centered (N, D) each in float64, and what EM does with them."""

    layouts: tuple[Tensor, ...]
    n_clusters: int
    on_beat: Callable[[], None]

    @classmethod
    def of(cls, layouts: Sequence[Tensor], n_clusters: int, on_beat: Callable[[], None]) -> "_Rows":
        return cls(tuple((z - z.mean(dim=0, dtype=torch.float64)) for z in layouts), n_clusters, on_beat)

    def moments_of(self, labels: Tensor) -> Tensor:
        """Sums of features (K, F) over the rows of each label."""
        total = self.layouts[0].new_zeros(self.n_clusters, 1)
        for start, features in self._blocks():
            own = labels[start : start + len(features), None]
            total = total + features.new_zeros(len(own), self.n_clusters).scatter_(1, own, 1.0).T @ features
        return total

    def step(self, coefficients: Tensor) -> tuple[float, Tensor, Tensor, Tensor]:
        """E-step, and sums for the M-step: coefficients (F, K) -> mean log-likelihood, moments (K, F), labels and
        confidence (N,).
        """
        likelihood, labels, confidence = [], [], []
        moments = torch.zeros_like(coefficients.T)
        for _, features in self._blocks():
            density = features @ coefficients  # (B, K)
            total = density.logsumexp(dim=1, keepdim=True)
            weight = density.sub_(total).exp_()
            highest, own = weight.max(dim=1)
            likelihood.append(total.sum())
            labels.append(own)
            confidence.append(highest.float())
            moments += weight.T @ features
        n = len(self.layouts[0])
        return float(torch.stack(likelihood).sum()) / n, moments, torch.cat(labels), torch.cat(confidence)

    def coefficients(self, moments: Tensor) -> Tensor:
        """M-step: sums of features (K, F) -> what the log-density is linear in, (F, K)."""
        size = moments[:, -1]
        if float(size.min()) < 1:
            raise _Collapsed
        constant = (size / size.sum()).log()
        parts, at = [], 0
        for z in self.layouts:
            d = z.shape[1]
            mean = moments[:, at + d * d : at + d * d + d] / size[:, None]
            square = moments[:, at : at + d * d].view(-1, d, d) / size[:, None, None]
            covariance = square - mean[:, :, None] * mean[:, None] + REG_COVAR * torch.eye(d, device=z.device)
            root, failed = torch.linalg.cholesky_ex(covariance)
            if bool(failed.any()):
                raise _Collapsed
            precision = torch.cholesky_inverse(root)
            slope = (precision @ mean[:, :, None])[:, :, 0]
            parts += [-0.5 * precision.flatten(1), slope]
            half_log_det = root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
            constant = constant - half_log_det - 0.5 * (d * math.log(2 * math.pi) + (slope * mean).sum(dim=1))
            at += d * d + d
        return torch.cat([*parts, constant[:, None]], dim=1).T

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """First row and features (B, F) of each block."""
        n, width = len(self.layouts[0]), max(self.n_clusters, sum(z.shape[1] * (z.shape[1] + 1) for z in self.layouts))
        entries = ACCELERATOR_ENTRIES if self.layouts[0].is_cuda else BLOCK_ENTRIES
        n_rows = max(1, entries // width)
        for start in range(0, n, n_rows):
            self.on_beat()
            blocks = [z[start : start + n_rows] for z in self.layouts]
            parts = [part for z in blocks for part in ((z[:, :, None] * z[:, None]).flatten(1), z)]
            yield start, torch.cat([*parts, blocks[0].new_ones(len(blocks[0]), 1)], dim=1)
