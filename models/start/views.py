"""Ways to look at an image before neighbours are sought: raw pixels, local contrast, oriented gradients.

Which of them shows the clusters depends on the data, so `models.start.graph` judges them; nothing here is learned.
Everything is computed on the device of its input.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

BLOCK_ROWS, BLOCK_PIXELS = 512, 2**19  # at most, of what is seen at a time
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
    histograms = (torch.cat(blocks, dim=1) / (energy + 1e-4).sqrt()).clamp(max=CLIP).flatten(1)
    return F.normalize(histograms, dim=1)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {"raw": raw, "contrast": contrast, "hog": hog}


def blocks_of_view(
    name: str, x: NDArray[Any], rows: NDArray[np.int64], device: str, on_block: Callable[[], object]
) -> Iterator[Tensor]:
    """A view of stored inputs, in blocks of float32 (B, D) on the device, in order.

    Images uint8 (N, C, S, S) are seen as `name` says; vectors float32 (N, D) are as they are. `rows` are the
    inputs to look at. `on_block` is called before each block.
    """
    n_rows = max(1, min(BLOCK_ROWS, BLOCK_PIXELS // math.prod(x.shape[1:])))
    for start in range(0, len(rows), n_rows):
        on_block()
        seen = torch.from_numpy(x[rows[start : start + n_rows]]).to(device)
        yield seen.float() if seen.ndim == 2 else VIEWS[name](seen.float() / 255)


def _blur(x: Tensor) -> Tensor:
    """A Gaussian blur of an eighth of the side, along both: (B, 1, S, S) -> (B, 1, S, S)."""
    side = x.shape[-1]
    sigma = side / 8
    reach = min(side - 1, math.ceil(2 * sigma))
    offset = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-offset.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    place = torch.arange(side, device=x.device)[:, None] + offset
    mirrored = (side - 1) - ((side - 1) - place.abs()).abs()  # at both ends, without the pixel at the end
    blur = torch.zeros(side, side, device=x.device).scatter_add_(1, mirrored, kernel.expand(side, -1))
    return blur @ x @ blur.T


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
    bins = torch.zeros(len(x), N_ORIENTATIONS, *x.shape[2:], device=x.device)
    bins.scatter_add_(1, lower, slope * (1 - share))
    return bins.scatter_add_(1, (lower + 1) % N_ORIENTATIONS, slope * share)
