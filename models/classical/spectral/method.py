"""Spectral clustering (Ng, Jordan & Weiss, NIPS 2001) by scikit-learn, on the neighbour graph of embeddings."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import SpectralClustering

from models.base import Run
from models.classical.spectral.spec import SpectralConfig
from models.classical.voting import VotedClusterer
from models.errors import BadImages
from models.parts.threads import reproducible_threads


class Spectral(VotedClusterer):
    """Clusters of any shape, as long as neighbours hold together: eigenvectors of the graph's Laplacian."""

    name = "spectral"
    config: SpectralConfig

    def partition(self, z: NDArray[np.float32], run: Run) -> NDArray[np.int64]:
        """See `VotedClusterer`."""
        config = self.config
        if len(z) <= config.n_clusters:
            raise BadImages("spectral clustering needs more inputs than clusters")
        estimator = SpectralClustering(
            config.n_clusters,
            affinity="nearest_neighbors",
            n_neighbors=min(config.n_neighbors, len(z) - 1),
            assign_labels="cluster_qr",
            random_state=run.seed % 2**32,
        )
        with reproducible_threads(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Graph is not fully connected")  # as clear clusters are not
            labels: NDArray[np.int64] = estimator.fit_predict(z).astype(np.int64)
        return labels
