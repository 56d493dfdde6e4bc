"""Agglomerative clustering (Ward, JASA 1963; average linkage: Sokal & Michener, 1958) by scikit-learn."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

from models.base import Run
from models.classical.agglomerative.spec import AgglomerativeConfig
from models.classical.voting import VotedClusterer


class Agglomerative(VotedClusterer):
    """Joins the two nearest groups until K are left; all pairs are compared, so sets cannot be large."""

    name = "agglomerative"
    config: AgglomerativeConfig

    def partition(self, z: NDArray[np.float32], run: Run) -> NDArray[np.int64]:
        """See `VotedClusterer`."""
        estimator = AgglomerativeClustering(self.config.n_clusters, linkage=self.config.linkage)
        labels: NDArray[np.int64] = estimator.fit_predict(z).astype(np.int64)
        return labels
