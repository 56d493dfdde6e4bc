"""Ways to look at an image before neighbours are sought: raw pixels, local contrast, oriented gradients.

Which of them shows the clusters depends on the data, so `models.start.graph` judges them; nothing here is learned.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 512
N_ORIENTATIONS = 9
MIN_CELL, CELLS_A_SIDE = 4, 16
CLIP = 0.2


def raw(x: Tensor) -> Tensor:
    """Pixels as they are: (B, C, S, S) in 0...1 -> (B, C * S * S)."""
    return x.flatten(1)


def contrast(x: Tensor) -> Tensor:
    """Brightness less its local mean, over its local deviation: (B, C, S, S) in 0...1 -> (B, S * S).

    Local means a Gaussian of an eighth of the side; where an image is flat, its mean deviation divides instead.
    """
    gray = x.mean(dim=1, keepdim=True)
    away = gray - _blur(gray)
    deviation = _blur(away.square()).sqrt()
    return (away / torch.maximum(deviation, deviation.mean(dim=(2, 3), keepdim=True) + 1e-4)).flatten(1)


def hog(x: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal & Triggs, CVPR 2005), unit length: (B, C, S, S) in 0...1 -> (B, D).

    Nine unsigned orientations, cells of 4 pixels (larger where a side has over 64), blocks of 2 x 2 cells that
    overlap, each normalised and clipped at .2. The channel with the steepest slope speaks for a pixel.
    """
    side = x.shape[-1]
    cell = min(side, max(MIN_CELL, side // CELLS_A_SIDE))
    cells = F.avg_pool2d(_orientations(x), cell)  # (B, 9, S / cell, S / cell)
    size = min(2, cells.shape[-1])
    energy = F.avg_pool2d(cells.square().sum(dim=1, keepdim=True), size, 1) * size**2
    n = energy.shape[-1]
    blocks = [cells[:, :, i : i + n, j : j + n] for i in range(size) for j in range(size)]
    found = (torch.cat(blocks, dim=1) / (energy + 1e-4).sqrt()).clamp(max=CLIP).flatten(1)
    return F.normalize(found, dim=1)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {"raw": raw, "contrast": contrast, "hog": hog}


def look(name: str, x: NDArray[Any], path: Path, on_block: Callable[[], object]) -> None:
    """Save a view of stored inputs as float32 (N, D) in a `.npy` file; `on_block` is called now and then.

    Images uint8 (N, C, S, S) are seen as `name` says; vectors float32 (N, D) are as they are.
    """
    out = None
    for start in range(0, len(x), BLOCK):
        block = np.array(x[start : start + BLOCK])
        seen = block if block.ndim == 2 else VIEWS[name](torch.from_numpy(block).float() / 255).numpy()
        if out is None:
            out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(x), seen.shape[1]))
        out[start : start + len(seen)] = seen
        on_block()
    assert out is not None
    out.flush()


def _blur(x: Tensor) -> Tensor:
    """A Gaussian blur of an eighth of the side: (B, 1, S, S) -> (B, 1, S, S)."""
    sigma = x.shape[-1] / 8
    reach = min(x.shape[-1] - 1, math.ceil(2 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(x, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _orientations(x: Tensor) -> Tensor:
    """Slope of every pixel, shared between the two nearest of 9 orientations: (B, C, S, S) -> (B, 9, S, S)."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    slope, steepest = (across.square() + down.square()).sqrt().max(dim=1, keepdim=True)
    angle = torch.atan2(down.gather(1, steepest), across.gather(1, steepest)) % math.pi
    place = angle / math.pi * N_ORIENTATIONS
    lower = place.floor()
    share = place - lower
    lower = lower.long() % N_ORIENTATIONS
    bins = torch.zeros(len(x), N_ORIENTATIONS, *x.shape[2:])
    bins.scatter_add_(1, lower, slope * (1 - share))
    return bins.scatter_add_(1, (lower + 1) % N_ORIENTATIONS, slope * share)
