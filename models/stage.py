"""A stage: one phase of a method's training, as the loop in `models.trainer` drives it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Clusterer, Run

CODE_BLOCK = 256


class Stage(Protocol):
    """One phase of a method's training."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    n_clusters: int
    figures: Mapping[str, float]  # what an epoch's report tells besides its losses

    def start_epoch(self, epoch: int) -> None:
        """Refresh whatever is held for the epoch, such as targets over all N images."""

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised: stored inputs (B, ...) and their indexes (B,), both on the device."""

    def end_epoch(self, epoch: int) -> NDArray[np.int64] | None:
        """Assignments (N,) after the epoch, or None where the phase has none yet."""

    def labels_now(self) -> Tensor:
        """The cluster of every input (N,), on the device."""

    def is_over(self) -> bool:
        """Asked after an epoch: True once the phase has reached its aim before its schedule ends."""

    def extra_state(self) -> dict[str, Tensor]:
        """What must survive a resume besides parameters and optimizer."""

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back `extra_state`."""


class Held:
    """A network as it was when it had learned the start's partition, to go back to if what follows strays."""

    def __init__(self, module: nn.Module, labels: Tensor, max_move: float) -> None:
        """`labels` (N,): what it answered then; what follows strays where more than `max_move` of them change."""
        self.labels, self.max_move = labels, max_move
        self._kept: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self.add(module)

    def add(self, module: nn.Module) -> None:
        """Go back to this network, as it is now, as well."""
        self._kept.append((module, {name: value.detach().clone() for name, value in module.state_dict().items()}))

    @property
    def is_one_cluster(self) -> bool:
        """Whether it answered the same for all."""
        return bool((self.labels == self.labels[0]).all())

    def moved(self, labels: Tensor) -> float:
        """Share of images that another answer (N,) differs on."""
        return float((labels != self.labels).float().mean())

    def restore(self) -> None:
        """Make what was held what it was."""
        for module, state in self._kept:
            module.load_state_dict(state)


class ModelStage:
    """What the stages of most methods share: a model's network on the device, and hooks that do nothing."""

    optimizer: torch.optim.Optimizer

    def __init__(self, model: Clusterer, x: NDArray[Any], run: Run) -> None:
        """`x` are the stored inputs (N, ...) that `train` will be given."""
        self.model, self.x, self.run = model, x, run
        self.module: Any = model.network.to(run.device)
        self.n_clusters = model.config.n_clusters
        self.figures: Mapping[str, float] = {}

    def start_epoch(self, epoch: int) -> None:
        """Nothing to refresh."""

    def end_epoch(self, epoch: int) -> NDArray[np.int64] | None:  # noqa: ARG002 - one signature for every stage
        """No assignments yet."""
        return None

    def is_over(self) -> bool:
        """The schedule decides."""
        return False

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing but the network."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""

    def scale(self, x: Tensor) -> Tensor:
        """Stored inputs as the network takes them."""
        return self.model.graph.scale(x)

    def codes(self, of: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The embedding of every input, or what `of` makes of it, not augmented: -> (N, D) on the device."""
        return torch.cat(list(self.blocks_of_codes(of)))

    @torch.no_grad()
    def labels_now(self) -> Tensor:
        """The cluster that the network gives every input, not augmented: -> (N,)."""
        return torch.cat([self.module.assign(z).argmax(dim=1) for z in self.blocks_of_codes()])

    @torch.no_grad()
    def blocks_of_codes(self, of: Callable[[Tensor], Tensor] | None = None) -> Iterator[Tensor]:
        """`codes`, block by block, for embeddings too wide to hold all at once."""
        of = of or self.module.embed
        self.module.eval()
        for at in range(0, len(self.x), CODE_BLOCK):
            yield of(self.scale(torch.from_numpy(np.array(self.x[at : at + CODE_BLOCK])).to(self.run.device)))
