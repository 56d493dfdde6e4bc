"""The networks of the dual auto-encoder (Yang et al., CVPR 2019): encoder, decoder, discriminators, spectral network.

Symbols as in `method.py`. Ours, where the text is silent: ReLU, strides 2, 1, 2, 1 (small images 2, 2; large ones 2,
2, 2, 1), and 512 for the widths of the discriminators and of the spectral network.
"""

import itertools

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from models.base import Network
from models.parts.heads import NearestCenter

N_LATENT, N_HIDDEN = 120, 512


class DualAutoencoderNetwork(Network):
    """3x3 convolutions of 16, 16, 32, 32 and 120 latents, mirrored; two discriminators; a spectral network of four."""

    mixing: Tensor

    def __init__(self, channels: int, side: int, n_clusters: int, *, is_spectral: bool) -> None:
        super().__init__()
        self.is_spectral = is_spectral
        kernel = 5 if 48 <= side < 80 else 3
        maps = (16, 32) if side <= 20 else (16, 16, 32, 32)
        strides = (2, 2) if side <= 20 else (2, 1, 2, 1) if side < 80 else (2, 2, 2, 1)
        sides, self.encoder, backwards = [side], nn.Sequential(), []
        for before, after, stride in zip((channels, *maps[:-1]), maps, strides, strict=True):
            self.encoder += nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU())
            sides.append((sides[-1] - 1) // stride + 1)
            grown = sides[-2] - ((sides[-1] - 1) * stride - 2 * (kernel // 2) + kernel)
            backwards.append(nn.ConvTranspose2d(after, before, kernel, stride, kernel // 2, output_padding=grown))
        n_inner = maps[-1] * sides[-1] ** 2
        self.to_mean, self.to_log_variance = nn.Linear(n_inner, N_LATENT), nn.Linear(n_inner, N_LATENT)
        self.decoder = nn.Sequential(
            nn.Linear(N_LATENT, n_inner), nn.ReLU(), nn.Unflatten(1, (maps[-1], sides[-1], sides[-1]))
        )
        for number, layer in enumerate(reversed(backwards), start=1):
            self.decoder += nn.Sequential(layer, nn.Sigmoid() if number == len(backwards) else nn.ReLU())
        self.whole = PairScore(nn.Linear(channels * side * side, N_HIDDEN), N_HIDDEN)
        self.local = PairScore(nn.Conv2d(maps[-1], N_HIDDEN // 8, 1), N_HIDDEN // 8)
        widths = (N_LATENT, N_HIDDEN, N_HIDDEN, N_HIDDEN)
        layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.spectral = nn.Sequential(*layers, nn.Linear(N_HIDDEN, n_clusters))
        self.register_buffer("mixing", torch.eye(n_clusters, dtype=torch.float64))
        self.head = NearestCenter(n_clusters, n_clusters if is_spectral else N_LATENT)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, S, S) -> C (B, 32, h, w), mean (B, 120), log variance (B, 120)."""
        features = self.encoder(x)
        flat = features.flatten(1)
        return features, self.to_mean(flat), self.to_log_variance(flat).clamp(-10, 10)

    def latent(self, x: Tensor) -> Tensor:
        """The mean code: (B, C, S, S) -> (B, 120)."""
        return self.encode(x)[1]

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> y (B, K), or the mean code where the spectral network is left out."""
        z = self.latent(x)
        return (self.spectral(z).double() @ self.mixing).float() if self.is_spectral else z

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        p: Tensor = self.head(z)
        return p


class PairScore(nn.Module):
    """A discriminator of pairs: does this code belong to this image, or to this place of its feature map?"""

    def __init__(self, of_image: nn.Module, width: int) -> None:
        super().__init__()
        self.of_image, self.of_code = of_image, nn.Linear(N_LATENT, width)
        self.score = nn.Linear(width, 1)

    def forward(self, image: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of (x_i, z_i) and of (x_i, z_i-1): (B, ...), (B, 120) -> (B, ...), (B, ...)."""
        seen = self.of_image(image)
        codes = self.of_code(z)
        if seen.ndim == 4:  # a feature map: the same code at every place
            seen = seen.flatten(2).transpose(1, 2)  # (B, h w, width)
            codes = codes.unsqueeze(1)
        return self.score(F.relu(seen + codes)), self.score(F.relu(seen + codes.roll(1, dims=0)))
