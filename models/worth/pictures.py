"""Images side by side on one sheet: what a person would rather see than read. numpy and Pillow only."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
GAP = 2
MIN_TILE = 32


def sheet(rows: list[Pixels]) -> bytes:
    """Rows of images uint8 (n, C, S, S) each, n may differ, as a PNG on white; small images are enlarged."""
    side = rows[0].shape[-1]
    factor = max(1, -(-MIN_TILE // side))
    tile = side * factor + GAP
    canvas = Image.new("RGB", (max(map(len, rows)) * tile + GAP, len(rows) * tile + GAP), "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
            enlarged = picture.resize((side * factor, side * factor), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (GAP + column * tile, GAP + row * tile))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


def by_distance(
    distance: NDArray[np.float32], clusters: NDArray[np.integer], n: int, *, is_near: bool
) -> list[NDArray[np.int64]]:
    """The n images of each cluster that lie nearest to (or farthest from) its center, as indexes.

    (N,) distances to the own center, (N,) clusters -> one array for each cluster that has images.
    """
    order = np.lexsort((distance if is_near else -distance, clusters))
    groups = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    return [group[:n] for group in groups]
