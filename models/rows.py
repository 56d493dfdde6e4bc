"""What can be said of inputs without torch: how many rows differ, and whether columns are of unlike scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNLIKE = 10.0  # times the median column's deviation; a column that spreads wider decides every distance
_BLOCK_BYTES = 8 << 20


def row_keys(x: NDArray[Any]) -> NDArray[np.uint64]:
    """Two numbers of 64 bits for each row, alike for rows that are alike: uint8 or float32 (N, ...) -> (N, 2).

    They are sums of the row's words with fixed random factors, modulo 2^64. Two rows that differ share both with a
    probability under 2^-60.
    """
    flat = x.reshape(len(x), -1)
    n_words = -(-flat.shape[1] * flat.itemsize // 4)
    factors = np.random.default_rng(0).integers(1, 2**63, (n_words, 2), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    rows = max(1, _BLOCK_BYTES // (8 * n_words))
    return np.concatenate([_words(flat[at : at + rows], n_words) @ factors for at in range(0, len(flat), rows)])


def _words(flat: NDArray[Any], n_words: int) -> NDArray[np.uint64]:
    """Rows as whole words of 32 bits: (n, D) -> (n, W)."""
    if flat.dtype != np.uint8:
        flat = flat + flat.dtype.type(0)  # -0.0 becomes 0.0
    bytes_ = np.ascontiguousarray(flat).view(np.uint8)
    padded = np.pad(bytes_, ((0, 0), (0, 4 * n_words - bytes_.shape[1])))
    return padded.view(np.uint32).astype(np.uint64)


def count_distinct(keys: NDArray[np.uint64]) -> int:
    """Rows that differ, by their `row_keys` (N, 2)."""
    return len(np.unique(keys.view([("", np.uint64)] * 2)))


def is_unlike(spreads: NDArray[np.floating[Any]]) -> bool:
    """Whether one column's deviation is so much larger than the median's that it decides every distance: (D,)."""
    median = float(np.median(spreads))
    return median > 0 and float(spreads.max()) > UNLIKE * median
