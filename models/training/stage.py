"""A stage: one phase of a method's training, as the loop in `models.training.trainer` drives it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Clusterer, Run
from models.errors import Collapsed
from models.parts.augment import shift_and_rotate
from models.parts.inputs import Inputs
from models.training.optimizers import Parameters, adam, sgd
from models.training.state import write

CODE_BLOCK = 256
MAX_SIZES_TOLD = 100


class Stage(Protocol):
    """One phase of a method's training."""

    inputs: Inputs  # (N, ...)
    state: dict[str, Tensor]  # what changes from epoch to epoch, always in the same memory
    run: Run
    module: nn.Module
    optimizer: torch.optim.Optimizer
    n_clusters: int
    figures: Mapping[str, float]  # what an epoch's report tells besides its losses
    reads_rows: bool  # whether its loss reads other inputs than those of the batch

    def start_epoch(self, epoch: int) -> None:
        """Refresh what is fixed during an epoch, such as targets of all N images."""

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is minimised: stored inputs (B, ...) and their indexes (B,), both on the device."""

    def turn(self) -> Hashable:
        """What kind of step comes next, where there are several: steps of one kind do the same on other values."""

    def end_step(self) -> None:
        """Called on the host after each step."""

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


class ModelStage:
    """What the stages of most methods share: a model's network on the device, and hooks that do nothing."""

    optimizer: torch.optim.Optimizer
    reads_rows = False

    def __init__(self, model: Clusterer, x: NDArray[Any], run: Run) -> None:
        """`x` are the stored inputs (N, ...) that the stage is trained on."""
        self.model, self.run = model, run
        self.inputs = model.inputs_of(x, run)
        self.state: dict[str, Tensor] = {}  # of `EpochState`
        self.config: Any = model.config
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

    def turn(self) -> Hashable:
        """All steps are alike."""
        return None

    def end_step(self) -> None:
        """Nothing to count."""

    def extra_state(self) -> dict[str, Tensor]:
        """Every `EpochState`."""
        return dict(self.state)

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back every `EpochState`, in place."""
        write(self.state, state, self.run.device)

    def adam(self, parameters: Parameters, rate: float, **how: Any) -> torch.optim.Optimizer:
        """Adam for the device of this fit (see `models.training.optimizers`)."""
        return adam(parameters, rate, self.run.device, **how)

    def sgd(self, parameters: Parameters, rate: float, **how: Any) -> torch.optim.Optimizer:
        """SGD for the device of this fit."""
        return sgd(parameters, rate, self.run.device, **how)

    def scale(self, x: Tensor) -> Tensor:
        """Stored inputs as the network takes them."""
        return self.model.serving_graph.scale(x)

    def augment(self, x: Tensor) -> Tensor:
        """Images (B, C, S, S) shifted and turned as far as the config says; vectors (B, D) as they are."""
        return shift_and_rotate(x, self.config.shift, self.config.rotation_degrees) if x.ndim == 4 else x

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
        for at in range(0, len(self.inputs), CODE_BLOCK):
            yield of(self.scale(self.inputs.slice(at, at + CODE_BLOCK)))


class ClusteringStage(ModelStage, ABC):
    """A method's own clustering: after every epoch all images are assigned anew, and targets follow from that."""

    can_collapse: ClassVar[bool] = True  # False: one cluster for all images is no reason to stop

    @abstractmethod
    def recluster(self, epoch: int) -> Tensor:
        """The cluster of every input after an epoch (N,), on the device."""

    def retarget(self) -> None:
        """Refresh what the next epoch is trained towards; called once `recluster` has found more than one cluster."""

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Assign all inputs.

        Raises:
            Collapsed: they all fell into one cluster.
        """
        labels = self.recluster(epoch)
        assignments = labels.to("cpu", copy=True).numpy()  # a copy, since state is written in place
        if self.can_collapse:
            refuse_collapse(labels, self.n_clusters)
        self.retarget()
        return assignments


def refuse_collapse(labels: Tensor, n_clusters: int) -> None:
    """Stop where all inputs (N,) have one cluster.

    Raises:
        Collapsed: with the sizes of the clusters.
    """
    sizes = torch.bincount(labels, minlength=n_clusters)
    if int((sizes > 0).sum()) == 1:
        raise Collapsed(f"all images fell into one cluster; cluster sizes {sizes.tolist()[:MAX_SIZES_TOLD]}")
