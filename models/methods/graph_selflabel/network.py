"""The network of `graph-selflabel`: blocks of a convolution and a pooling, and a softmax over 64 features.

B images of C channels and side S. A convolution of images that are stored channels last takes a tenth of the time on
a CPU where there is one channel, and two thirds where there are 32 (measured on an AMD EPYC, torch 2.13).
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from models.base import Network

SHRUNK_FROM = 64  # pixels a side; so long ones are averaged down to 32 or more
SMALLEST_SIDE = 6  # maps are halved until they are at most this long
FIRST_MAPS, LAST_MAPS, N_FEATURES = 16, 128, 64


class FeatureNorm(nn.BatchNorm1d):
    """Batch norm that takes a training batch of one image by its running figures, for one value has no deviation."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        normed: Tensor = super().forward(x)
        return normed


class SelfLabelNetwork(Network):
    """conv 16, conv 32, conv 64 ... each with batch norm and pooling; conv 128; 64 features; K."""

    def __init__(self, channels: int, side: int, n_clusters: int) -> None:
        super().__init__()
        self.shrinkage = side // 32 if side >= SHRUNK_FROM else 1
        side //= self.shrinkage
        layers: list[nn.Module] = []
        n_in, n_out = channels, FIRST_MAPS
        while side > SMALLEST_SIDE:
            layers += [*_convolution(n_in, n_out), nn.MaxPool2d(2)]
            n_in, n_out, side = n_out, 2 * n_out, side // 2
        self.body = nn.Sequential(*layers, *_convolution(n_in, LAST_MAPS))
        self.features = nn.Sequential(nn.Linear(LAST_MAPS * side * side, N_FEATURES), FeatureNorm(N_FEATURES))
        self.head = nn.Linear(N_FEATURES, n_clusters)

    def shrink(self, x: Tensor) -> Tensor:
        """Images as the convolutions see them, long sides averaged down: (B, C, S, S) -> (B, C, S', S')."""
        return F.avg_pool2d(x, self.shrinkage) if self.shrinkage > 1 else x

    def features_of(self, x: Tensor) -> Tensor:
        """Images after `shrink` (B, C, S', S') in 0...1 -> (B, 64)."""
        maps = self.body((2 * x - 1).contiguous(memory_format=torch.channels_last))
        z: Tensor = self.features(maps.flatten(1))
        return z

    def logits(self, z: Tensor) -> Tensor:
        """(B, 64) -> (B, K)."""
        scores: Tensor = self.head(F.relu(z))
        return scores

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 64)."""
        return self.features_of(self.shrink(x))

    def assign(self, z: Tensor) -> Tensor:
        """(B, 64) -> (B, K)."""
        return self.logits(z).softmax(dim=1)


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    return [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]
