"""What a trained model shows: sheets of images near to and far from the centers, reconstructions, and the map."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.store.model_files import MAP_NAME, write_map
from models import pictures
from models.base import Clusterer
from models.graph import map_2d
from workers.runner import Work

N_COLUMNS, MAX_ROWS = 16, 100
MAP_BLOCK = 1024


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


def write_map_file(work: Work, model: Clusterer, x: NDArray[Any], clusters: NDArray[np.int32], folder: Path) -> None:
    """Write the 2-D map of at most `max_map_images` images; none where the setting is 0."""
    limit = work.settings.max_map_images
    if not limit:
        return
    index = np.sort(np.random.default_rng(work.job.seed).permutation(len(x))[:limit])
    embedding = np.concatenate(
        [model.embed(x[index[start : start + MAP_BLOCK]]) for start in range(0, len(index), MAP_BLOCK)]
    )
    points = map_2d(embedding, work.job.seed, work.report.raise_if_stopped)
    (folder / MAP_NAME).write_bytes(write_map(index, points, clusters[index]))
