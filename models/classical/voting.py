"""Clusterers that only name the clusters of what they were fitted on: new inputs are voted on by their neighbours.

For scikit-learn's and other packages' estimators: a subclass gives `partition`, the rest is here.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.base import Clusterer, Network, Run, StepState
from models.classical.features import FeatureNetwork, learn_features
from models.configs import FeaturesConfig
from models.parts.heads import NeighbourVote

MAX_STORED, MAX_STORED_VALUES = 20_000, 2**26  # the second is 256 MB of a model's file


class VotedClusterer(Clusterer):
    """A partition of embeddings, served by distance-weighted vote of 15 neighbours among at most 20,000 of them."""

    config: FeaturesConfig

    @abstractmethod
    def partition(self, z: NDArray[np.float32], run: Run) -> NDArray[np.int64]:
        """Clusters 0...K-1 of embeddings (N, D), -1 for those that belong to none: -> (N,)."""

    def build(self) -> Network:
        """See `FeatureNetwork`."""

        def make_head(n_features: int) -> nn.Module:
            return NeighbourVote(self.config.n_clusters, n_features)

        return FeatureNetwork(self.spec, self.config, make_head)

    def _fit(self, x: NDArray[Any], run: Run) -> None:
        z = learn_features(self, x, run)
        run.on_step(StepState("cluster", 0.55))
        labels = self.partition(z, run)
        sizes = np.bincount(labels[labels >= 0], minlength=self.config.n_clusters).tolist()
        run.on_step(StepState("cluster", 0.95, cluster_sizes=sizes))
        rows = np.flatnonzero(labels >= 0)
        n_stored = min(MAX_STORED, MAX_STORED_VALUES // z.shape[1])
        if len(rows) > n_stored:
            rows = np.sort(np.random.default_rng(run.seed).permutation(rows)[:n_stored])
        self.network.head.take(torch.from_numpy(z[rows]), torch.from_numpy(labels[rows]))
