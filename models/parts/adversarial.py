"""Networks of a Wasserstein game, built from the input's shape, and the penalty that keeps its critic smooth.

After Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017: 5 x 5 kernels, stride 2, 64-128-256
channels, no batch normalisation; fully connected 512-512-512 for vectors.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

KERNEL, LEAK = 5, 0.2
FIRST_CHANNELS, MOST_CHANNELS = 64, 512
SMALLEST_SIDE, MIN_LAYERS = 4, 3
WIDTH, N_HIDDEN = 512, 3


def strides_of(side: int) -> list[int]:
    """From the image inwards: as many strides of 2 as bring it to about 4, before them ones of 1 up to three layers."""
    n_halvings = math.ceil(math.log2(side / SMALLEST_SIDE))
    return [1] * (MIN_LAYERS - n_halvings) + [2] * n_halvings


def sides_of(side: int) -> list[int]:
    """The side at every level, from the image inwards: 28 -> 28, 14, 7, 4."""
    return list(itertools.accumulate(strides_of(side), lambda before, stride: -(-before // stride), initial=side))


def channels_of(shape: tuple[int, ...]) -> list[int]:
    """Channels at every level of `sides_of`: the image's own, then 64, doubled up to 512."""
    n_layers = len(strides_of(shape[1]))
    return [shape[0], *(min(FIRST_CHANNELS * 2**at, MOST_CHANNELS) for at in range(n_layers))]


class Discriminating(nn.Module):
    """Inputs -> features -> outputs: a critic with one output, a classifier with K."""

    def __init__(self, shape: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if len(shape) == 1:
            sizes = (shape[0], *[WIDTH] * N_HIDDEN)
            for before, after in itertools.pairwise(sizes):
                layers += [nn.Linear(before, after), nn.ReLU()]
            n_features = WIDTH
        else:
            sides, channels = sides_of(shape[1]), channels_of(shape)
            for (before, after), stride in zip(itertools.pairwise(channels), strides_of(shape[1]), strict=True):
                layers += [nn.Conv2d(before, after, KERNEL, stride, KERNEL // 2), nn.LeakyReLU(LEAK)]
            layers.append(nn.Flatten())
            n_features = channels[-1] * sides[-1] ** 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(n_features, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, n_outputs)."""
        outputs: Tensor = self.head(self.features(x))
        return outputs


class Generator(nn.Module):
    """Codes (B, D) -> inputs: images in 0...1, vectors without bounds."""

    def __init__(self, n_codes: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.is_image = len(shape) == 3
        layers: list[nn.Module] = []
        if not self.is_image:
            for before, after in itertools.pairwise((n_codes, *[WIDTH] * N_HIDDEN)):
                layers += [nn.Linear(before, after), nn.ReLU()]
            self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, shape[0]))
            return
        sides, strides = sides_of(shape[1]), strides_of(shape[1])
        channels = channels_of(shape)
        inner = (channels[-1], sides[-1], sides[-1])
        layers += [nn.Linear(n_codes, math.prod(inner)), nn.ReLU(), nn.Unflatten(1, inner)]
        for at in reversed(range(len(strides))):
            layers.append(
                nn.ConvTranspose2d(
                    channels[at + 1], channels[at], KERNEL, strides[at], KERNEL // 2, output_padding=strides[at] - 1
                )
            )
            layers += [Crop(sides[at]), nn.ReLU() if at else nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, D) -> (B, ...)."""
        inputs: Tensor = self.layers(codes)
        return inputs


class Crop(nn.Module):
    """Drops rows and columns beyond a side, as 8 x 8 maps become 7 x 7 on the way to 28 pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S', S') -> (B, C, S, S)."""
        return x[:, :, : self.side, : self.side]


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(|gradient of the critic| - 1)^2 between real and generated inputs: (B, ...), (B, ...) -> (B,)."""
    share = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device)
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square()
    return penalty
