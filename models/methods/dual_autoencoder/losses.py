"""Equations of the dual auto-encoder (Yang et al., CVPR 2019) as pure functions; symbols as in `method.py`."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from models.start.affinity import Edges

JITTER = 1e-10


def orthonormaliser(y: Tensor) -> Tensor:
    """The matrix that makes outputs orthonormal, eqs. (17) and (18): (m, K) -> (K, K), in float64.

    y @ it has y^T y / m = I. A trace of ridge lets columns coincide. Where the Cholesky factor fails all the same, the
    matrix is NaN.
    """
    y = y.double()
    gram = y.T @ y
    eye = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(gram + JITTER * (gram.diagonal().mean() + 1e-30) * eye)
    factor = torch.where(info == 0, factor, torch.nan)  # the trainer looks for it; an error here would be waited for
    inverse: Tensor = torch.linalg.solve_triangular(factor, eye, upper=False)
    return math.sqrt(len(y)) * inverse.T


def spectral_error(edges: Edges, y: Tensor) -> Tensor:
    """Eq. (16): 1/m^2 sum_ij W_ij |y_i - y_j|^2 over the edges of W: (m, K) -> ()."""
    ends = (y[edges.i] - y[edges.j]).square().sum(dim=1)
    return (edges.w * ends).sum() / len(y) ** 2


def mutual_information(scores: Tensor, shuffled: Tensor) -> Tensor:
    """JS estimate of eq. (9) from a discriminator's scores of true and shuffled pairs, mean over all: -> ()."""
    return F.logsigmoid(scores).mean() + F.logsigmoid(-shuffled).mean()


def divergence(mean: Tensor, log_variance: Tensor, mu: Tensor) -> Tensor:
    """KL(N(mean, variance) | N(mu, I)), a sum over latents: (B, D), (B, D), (B, D) -> (B,)."""
    return ((mean - mu).square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def squared(difference: Tensor) -> Tensor:
    """Squared norm of differences, mean over images: (B, ...) -> ()."""
    return difference.flatten(1).square().sum(dim=1).mean()
