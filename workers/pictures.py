"""Pictures of a trained model: sheets of images near to and far from the centers, reconstructions, and the map."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.store.model_files import MAP_NAME, write_map
from models.base import Clusterer
from models.start.graph import map_2d
from models.worth import pictures
from workers.work import Work

N_COLUMNS, MAX_ROWS = 16, 100
MAP_BLOCK, MAX_MAP_FEATURES = 1024, 64


def draw(model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32], folder: Path) -> None:
    """Write the sheets of an image model into the folder: a row for each of the first 100 clusters with images."""
    if model.spec.kind != "images":
        return
    near = pictures.by_distance(model.distances, clusters, N_COLUMNS, is_near=True)[:MAX_ROWS]
    far = pictures.by_distance(model.distances, clusters, N_COLUMNS, is_near=False)[:MAX_ROWS]
    (folder / "nearest.png").write_bytes(pictures.sheet([x[rows] for rows in near]))
    (folder / "farthest.png").write_bytes(pictures.sheet([x[rows] for rows in far]))
    again = [model.reconstruct(x[rows]) for rows in near]
    if again[0] is not None:
        both = [part for rows, image in zip(near, again, strict=True) for part in (x[rows], image) if part is not None]
        (folder / "reconstructions.png").write_bytes(pictures.sheet(both))
    generated = model.generate(N_COLUMNS)
    if generated is not None:
        (folder / "generated.png").write_bytes(pictures.sheet(list(generated[:MAX_ROWS])))


def _narrow(model: Clusterer, x: NDArray[Any], blocks: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Embeddings of images in blocks of rows, wide ones as their principal components: -> (N, at most 64).

    Embeddings that are raw pixels would take gigabytes if all were in memory at once.
    """
    parts = [model.embed(x[blocks[0]])]
    if parts[0].shape[1] <= MAX_MAP_FEATURES or len(blocks[0]) < MAX_MAP_FEATURES:
        return np.concatenate([*parts, *(model.embed(x[rows]) for rows in blocks[1:])])
    from sklearn.decomposition import IncrementalPCA  # slow to import; narrow embeddings do without it

    components = IncrementalPCA(MAX_MAP_FEATURES)
    for rows in blocks:
        components.partial_fit(model.embed(x[rows]))
    return np.concatenate([components.transform(model.embed(x[rows])) for rows in blocks]).astype(np.float32)


def write_map_file(work: Work, model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32], folder: Path) -> None:
    """Write the 2-D map of at most `max_map_images` images; none where the setting is 0."""
    limit = work.settings.max_map_images
    if not limit:
        return
    index = np.sort(np.random.default_rng(work.job.seed).permutation(len(x))[:limit])
    blocks = np.array_split(index, -(-len(index) // MAP_BLOCK))
    points = map_2d(_narrow(model, x, blocks), work.job.seed, work.report.raise_if_stopped)
    (folder / MAP_NAME).write_bytes(write_map(index, points, clusters[index]))
