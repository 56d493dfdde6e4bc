"""What classical methods cluster: inputs as they are, or the codes of an auto-encoder (AEF in the papers' tables)."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Clusterer, Network, Run, StepState
from models.configs import FeaturesConfig
from models.parts.encoders import Standard, xavier
from models.pixels import InputSpec
from models.rows import is_unlike
from models.training.stage import ModelStage
from models.training.trainer import Schedule, train

HIDDEN_UNITS, N_CODES = (500, 500, 2_000), 10  # of DEC (Xie et al., ICML 2016), whose codes the papers take
BATCH_SIZE, LEARNING_RATE = 256, 1e-3


class Autoencoder(nn.Module):
    """Fully connected, 500-500-2000-10 and back, ReLU between: (B, ...) -> codes (B, 10)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (math.prod(shape), *HIDDEN_UNITS, N_CODES)
        self.standard = Standard(shape[0] if len(shape) == 1 else None)
        self.encoder, self.decoder = _dense(sizes), _dense(sizes[::-1])

    def flat(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, D_in)."""
        flat: Tensor = self.standard(x).flatten(1)
        return flat

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, 10)."""
        codes: Tensor = self.encoder(self.flat(x))
        return codes


class FeatureNetwork(Network):
    """An encoder, or none, and a head that turns embeddings into probabilities."""

    def __init__(self, spec: InputSpec, config: FeaturesConfig, make_head: Callable[[int], nn.Module]) -> None:
        """`make_head` is given the embedding's size D."""
        super().__init__()
        is_raw = config.features == "raw"
        self.standard = Standard(spec.n_features if is_raw and spec.kind == "vectors" else None)
        self.encoder: nn.Module = nn.Flatten() if is_raw else Autoencoder(spec.shape)
        self.head: Any = make_head(math.prod(spec.shape) if is_raw else N_CODES)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Models of before vectors could be standardized have nothing to standardize by."""
        for name, value in self.standard.state_dict(prefix=f"{prefix}standard.").items():
            state_dict.setdefault(name, value)
        super()._load_from_state_dict(state_dict, prefix, *more)

    def embed(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, D)."""
        z: Tensor = self.encoder(self.standard(x))
        return z

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        p: Tensor = self.head(z)
        return p


def learn_features(model: Clusterer, x: NDArray[Any], run: Run) -> NDArray[np.float32]:
    """The embedding of all inputs, its encoder trained first if there is one: -> (N, D)."""
    config: Any = model.config
    if config.features == "autoencoder":
        encoder = model.network.encoder
        xavier(encoder, run.generator("features", "weights"))
        encoder.standard.fit(x)
        schedule = Schedule("features", config.n_feature_epochs, BATCH_SIZE, (0.0, 0.5))
        train(Reconstruction(model, x, run), schedule)
    elif model.spec.kind == "vectors" and _wants_standard(config.standardize, x):
        model.network.standard.fit(x)
        if config.standardize == "auto":
            model.warnings.append(
                ("standardized", "One column spreads far wider than the others: all were standardized.")
            )
    run.on_step(StepState("embed", 0.5 if config.features == "autoencoder" else 0.02))
    stage = ModelStage(model, x, run)
    z: NDArray[np.float32] = stage.codes().float().cpu().numpy()
    return z


def _wants_standard(standardize: str, x: NDArray[np.float32]) -> bool:
    """Whether vectors (N, D) are standardized; `auto` looks at the spread of their columns."""
    return standardize == "on" or (standardize == "auto" and is_unlike(x.std(axis=0, dtype=np.float64)))


class Reconstruction(ModelStage):
    """Inputs from their codes, mean squared error."""

    def __init__(self, model: Clusterer, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.adam(self.module.encoder.parameters(), LEARNING_RATE)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """See `models.training.stage.Stage`."""
        encoder = self.module.encoder
        flat = encoder.flat(self.scale(x))
        return {"reconstruction": (encoder.decoder(encoder.encoder(flat)) - flat).square().mean()}


def _dense(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
