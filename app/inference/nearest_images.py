"""The training images nearest to a new one: a brute-force search of at most 20,000 embeddings kept with the model."""

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

MAX_KEPT, MAX_KEPT_BYTES = 20_000, 64 << 20


@dataclass(frozen=True)
class NearestImages:
    """Indexes (M,) of training images and their embeddings (M, D)."""

    index: NDArray[np.int64]
    embedding: NDArray[np.float32]

    @property
    def n_bytes(self) -> int:
        """Memory it takes."""
        return self.embedding.nbytes + self.index.nbytes

    def nearest(self, embedding: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The `n` nearest of each row and their Euclidean distances, nearest first: (B, D) -> (B, n), (B, n)."""
        n = min(n, len(self.index))
        indexes = np.empty((len(embedding), n), np.int64)
        distances = np.empty((len(embedding), n))
        for row, z in enumerate(embedding):
            squares = np.square(self.embedding - z, dtype=np.float64).sum(axis=1)
            near = np.argpartition(squares, n - 1)[:n]
            near = near[np.argsort(squares[near], kind="stable")]
            indexes[row], distances[row] = self.index[near], np.sqrt(squares[near])
        return indexes, distances

    def to_bytes(self) -> bytes:
        """As an `.npz` file."""
        out = io.BytesIO()
        np.savez(out, index=self.index, embedding=self.embedding)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return cls(arrays["index"], arrays["embedding"])


def n_kept(n_images: int, n_features: int) -> int:
    """How many embeddings of a training are kept."""
    return max(1, min(n_images, MAX_KEPT, MAX_KEPT_BYTES // (4 * n_features)))
