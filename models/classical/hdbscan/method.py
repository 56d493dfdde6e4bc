"""HDBSCAN (Campello, Moulavi & Sander, PAKDD 2013) by scikit-learn."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN as SklearnHDBSCAN  # noqa: N811 - the method's own name

from models.base import Run
from models.classical.hdbscan.spec import HDBSCANConfig
from models.classical.voting import VotedClusterer
from models.errors import Collapsed


class HDBSCAN(VotedClusterer):
    """Dense regions, as many as there are: the K largest are kept, and all else goes to them by vote.

    Where fewer are found, the last clusters stay empty.
    """

    name = "hdbscan"
    config: HDBSCANConfig

    def partition(self, z: NDArray[np.float32], run: Run) -> NDArray[np.int64]:
        """See `VotedClusterer`."""
        size = min(self.config.min_cluster_size, len(z))
        regions = SklearnHDBSCAN(min_cluster_size=size, copy=True).fit_predict(z).astype(np.int64)
        if regions.max() < 0:
            raise Collapsed(f"no region of {size} or more is dense; lower `min_cluster_size`")
        order = np.argsort(-np.bincount(regions[regions >= 0]), kind="stable")
        number = np.full(len(order) + 1, -1, np.int64)  # the last place is that of noise, -1
        number[order[: self.config.n_clusters]] = np.arange(min(len(order), self.config.n_clusters))
        kept: NDArray[np.int64] = number[regions]
        return kept
