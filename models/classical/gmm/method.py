"""Gaussian mixture by expectation-maximisation (Dempster, Laird & Rubin, 1977), scikit-learn's, on pixels or vectors.

Symbols: x flattened inputs (N, D), pi weights (K,), mu means (K, D), L the Cholesky factors of the
precisions: diagonal ones as (K, D), full ones as (K, D, D).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from models.base import Clusterer, Network, Run, StepState
from models.classical.features import FeatureNetwork, learn_features
from models.classical.gmm.spec import GMMConfig
from models.errors import Diverged
from models.parts.threads import reproducible_threads


class MixtureHead(nn.Module):
    """p = responsibilities, in float64 since log densities run to thousands."""

    log_pi: Tensor
    mu: Tensor
    factor: Tensor

    def __init__(self, n_clusters: int, n_features: int, is_full: bool) -> None:
        super().__init__()
        shape = (n_clusters, n_features, n_features) if is_full else (n_clusters, n_features)
        self.is_full = is_full
        self.register_buffer("log_pi", torch.zeros(n_clusters, dtype=torch.float64))
        self.register_buffer("mu", torch.zeros(n_clusters, n_features, dtype=torch.float64))
        self.register_buffer("factor", torch.zeros(shape, dtype=torch.float64))

    def log_joint(self, z: Tensor) -> Tensor:
        """Log pi_k + log N(z | mu_k, (L L^T)^-1): (B, D) -> (B, K)."""
        z = z.double()
        if self.is_full:
            away = z.unsqueeze(1) - self.mu  # (B, K, D)
            distance = torch.einsum("bkd,kde->bke", away, self.factor).square().sum(dim=2)
            log_det = self.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        else:
            precision = self.factor.square()
            cross = z @ (precision * self.mu).T
            distance = z.square() @ precision.T - 2 * cross + (precision * self.mu.square()).sum(dim=1)
            log_det = self.factor.log().sum(dim=1)
        log_norm = self.mu.shape[1] * math.log(2 * math.pi) / 2
        return self.log_pi + log_det - log_norm - distance / 2

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return self.log_joint(z).softmax(dim=1).float()


class GMM(Clusterer):
    """One Gaussian per cluster: clusters of unequal size and spread, with honest probabilities."""

    name = "gmm"
    config: GMMConfig

    def build(self) -> Network:
        """See `MixtureHead`."""
        is_full = self.config.covariance_type in ("full", "tied")
        return FeatureNetwork(self.spec, self.config, lambda n: MixtureHead(self.config.n_clusters, n, is_full))

    def _fit(self, x: NDArray[np.uint8] | NDArray[np.float32], run: Run) -> None:
        flat = learn_features(self, x, run).astype(np.float64)
        best = None
        for start in range(self.config.n_init):
            run.on_step(StepState("cluster", 0.55 + 0.4 * start / self.config.n_init, step=start))
            mixture = self._one_start(flat, run.seed + start)
            if best is None or mixture.lower_bound_ > best.lower_bound_:
                best = mixture
        assert best is not None
        self._take(best)
        losses = {"negative_log_likelihood": -float(best.lower_bound_)}
        run.on_step(StepState("cluster", 0.95, losses=losses))

    def _one_start(self, flat: NDArray[np.float64], seed: int) -> GaussianMixture:
        config = self.config
        mixture = GaussianMixture(
            config.n_clusters,
            covariance_type=config.covariance_type,
            max_iter=config.max_iter,
            tol=config.tol,
            reg_covar=config.reg_covar,
            random_state=seed % 2**32,
        )
        try:
            with reproducible_threads():
                return mixture.fit(flat)
        except ValueError as error:
            raise Diverged("a covariance became singular; raise `reg_covar` or use `diag`") from error

    def _take(self, mixture: GaussianMixture) -> None:
        k, d = mixture.means_.shape
        factor = mixture.precisions_cholesky_
        if self.config.covariance_type == "tied":
            factor = np.broadcast_to(factor, (k, d, d))
        elif self.config.covariance_type == "spherical":
            factor = np.broadcast_to(factor[:, None], (k, d))
        self.network.head.log_pi = torch.from_numpy(np.log(mixture.weights_))
        self.network.head.mu = torch.from_numpy(mixture.means_)
        self.network.head.factor = torch.from_numpy(np.array(factor))
