"""Non-negative matrix factorisation (Lee & Seung, Nature 1999) by scikit-learn, read as a clustering."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import NMF as SklearnNMF  # noqa: N811 - the method's own name
from sklearn.exceptions import ConvergenceWarning

from models.base import Run
from models.classical.nmf.spec import NMFConfig
from models.classical.voting import VotedClusterer
from models.parts.threads import reproducible_threads


class NMF(VotedClusterer):
    """Inputs as sums of K parts; each belongs to the part it has most of.

    Parts are scaled to unit length, so that their weights compare. Features that go below zero are lifted to it.
    """

    name = "nmf"
    config: NMFConfig

    def partition(self, z: NDArray[np.float32], run: Run) -> NDArray[np.int64]:
        """See `VotedClusterer`."""
        config = self.config
        lifted = z - np.minimum(z.min(axis=0), 0)
        estimator = SklearnNMF(
            config.n_clusters, max_iter=config.max_iter, tol=config.tol, random_state=run.seed % 2**32
        )
        with reproducible_threads(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `max_iter` is the user's to choose
            weights = estimator.fit_transform(lifted)
        labels: NDArray[np.int64] = (weights * np.linalg.norm(estimator.components_, axis=1)).argmax(axis=1)
        return labels
