"""The network of DEPICT (Ghasedi Dizaji et al., ICCV 2017): a convolutional auto-encoder and a softmax.

Symbols as in `method.py`. Ours, where the text is silent: leaky units fall by .01, and sides other than the paper's
take the strides that leave about 10 x 10 (`shape_of`).
"""

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from models.base import Network

N_MAPS = 50
LEAK = 0.01


@dataclass(frozen=True)
class Shape:
    """Kernel, stride and padding of each convolution, and the side (S, S1, S2) at every level."""

    kernels: tuple[int, int]
    strides: tuple[int, int]
    paddings: tuple[int, int]
    sides: tuple[int, int, int]


def shape_of(side: int) -> Shape:
    """The paper's table 5 at 16, 28, 32 and 55 pixels; between and beyond, what leaves about 10 x 10 in the end."""
    kernels, strides, paddings = (4, 5), (2, 2), (0, 2)
    if side >= 64:
        first = -(-side // 24)
        kernels, strides, paddings = (max(5, first), 5), (first, 2), (2, 2)
    elif side >= 48:
        kernels, paddings = (5, 4), (2, 0)
    elif side >= 29:
        paddings = (2, 2)
    sides = [side]
    for kernel, stride, padding in zip(kernels, strides, paddings, strict=True):
        sides.append((sides[-1] + 2 * padding - kernel) // stride + 1)
    return Shape(kernels, strides, paddings, (sides[0], sides[1], sides[2]))


class DEPICTNetwork(Network):
    """conv 50, conv 50, K with tanh | 50 maps, transposed conv 50, transposed conv with tanh; softmax over theta z."""

    def __init__(self, channels: int, side: int, n_clusters: int) -> None:
        super().__init__()
        shape = shape_of(side)
        features = (channels, N_MAPS, N_MAPS)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for at in (0, 1):
            sizes = (shape.kernels[at], shape.strides[at], shape.paddings[at])
            grown = (shape.sides[at + 1] - 1) * sizes[1] - 2 * sizes[2] + sizes[0]
            self.encoder.append(nn.Conv2d(features[at], features[at + 1], *sizes))
            self.decoder.append(
                nn.ConvTranspose2d(features[at + 1], features[at], *sizes, output_padding=shape.sides[at] - grown)
            )
        self.inner = (N_MAPS, shape.sides[2], shape.sides[2])
        n_inner = N_MAPS * shape.sides[2] ** 2
        self.encoder.append(nn.Linear(n_inner, n_clusters))
        self.decoder.append(nn.Linear(n_clusters, n_inner))
        self.theta = nn.Linear(n_clusters, n_clusters, bias=False)

    def encode(self, x: Tensor, dropout: float = 0.0) -> tuple[list[Tensor], Tensor]:
        """Eqs. (9) and (11): images (B, C, S, S) in 0...1 -> features of levels 0, 1, 2, and z (B, K)."""
        levels = [F.dropout(2 * x - 1, dropout)]
        for layer in self.encoder[:2]:
            levels.append(F.dropout(F.leaky_relu(layer(levels[-1]), LEAK), dropout))
        return levels, self.encoder[2](levels[-1].flatten(1)).tanh()

    def decode(self, z: Tensor) -> list[Tensor]:
        """Eq. (10): z (B, K) -> reconstructed levels 0, 1, 2."""
        second = F.leaky_relu(self.decoder[2](z), LEAK).reshape(-1, *self.inner)
        first = F.leaky_relu(self.decoder[1](second), LEAK)
        return [self.decoder[0](first).tanh(), first, second]

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, K), the clean path."""
        return self.encode(x)[1]

    def assign(self, z: Tensor) -> Tensor:
        """Eq. (1): (B, K) -> (B, K)."""
        p: Tensor = self.theta(z).softmax(dim=1)
        return p
