"""What the networks of several methods are built with: starting weights and input sizes, from the image's shape."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Generator, Tensor, nn


def xavier(module: nn.Module, generator: Generator) -> None:
    """Xavier (Glorot & Bengio, 2010) uniform weights and zero biases for every layer, drawn from `generator`."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)


@torch.no_grad()
def sigmoid_as_tanh(network: nn.Sequential) -> None:
    """Give a sigmoid network with Xavier weights the start of the tanh network it equals.

    sigmoid(a) = (1 + tanh(a / 2)) / 2: weights four times as large, and, behind a sigmoid, biases that take away
    its mean of a half. Without it signals shrink fourfold in every layer, and all codes begin as one point.
    """
    is_behind_sigmoid = False
    for layer in network:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight *= 4
            if is_behind_sigmoid and layer.bias is not None:
                layer.bias -= layer.weight.flatten(1).sum(dim=1) / 2
        is_behind_sigmoid |= isinstance(layer, nn.Sigmoid)


class Standard(nn.Module):
    """Vectors shifted and scaled to mean 0 and deviation 1, feature by feature; images as they are."""

    offset: Tensor
    unit: Tensor

    def __init__(self, n_features: int | None) -> None:
        """`n_features` is None for images."""
        super().__init__()
        self.register_buffer("offset", torch.zeros(n_features or 0))
        self.register_buffer("unit", torch.ones(n_features or 0))

    def fit(self, x: NDArray[Any]) -> None:
        """Learn from stored inputs (N, D); does nothing for images."""
        if len(self.offset):
            self.offset = torch.from_numpy(x.mean(axis=0, dtype=np.float64)).float().to(self.offset.device)
            self.unit = torch.from_numpy(x.std(axis=0, dtype=np.float64)).float().clamp(min=1e-6).to(self.unit.device)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same."""
        return (x - self.offset) / self.unit if len(self.offset) else x


def at_least(x: Tensor, side: int) -> Tensor:
    """Images with a side shorter than `side` enlarged to it, others as they are: (B, C, S, S) -> (B, C, S', S')."""
    if x.shape[-1] >= side:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
