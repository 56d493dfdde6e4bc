"""Batched augmentation on the training device: small shifts and rotations, never image by image."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

SHIFT = 0.1
ROTATION_DEGREES = 10.0


def shift_and_rotate(x: Tensor, shift: float = SHIFT, degrees: float = ROTATION_DEGREES) -> Tensor:
    """Move every image by up to `shift` of its side and turn it by up to `degrees`: (B, C, S, S) -> (B, C, S, S).

    What comes in from outside repeats the border. Draws from torch's default generator of the device.
    """
    if not shift and not degrees:
        return x
    n = len(x)
    angle = (torch.rand(n, device=x.device) * 2 - 1) * math.radians(degrees)
    moves = (torch.rand(n, 2, device=x.device) * 2 - 1) * 2 * shift  # the grid's side runs from -1 to 1
    matrix = torch.stack(
        [
            torch.stack([angle.cos(), -angle.sin(), moves[:, 0]], dim=1),
            torch.stack([angle.sin(), angle.cos(), moves[:, 1]], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)
