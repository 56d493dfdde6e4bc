"""The `fast` recipe, told once: from a partition of the neighbour graph to a network that serves it.

    start ──▶ learn the partition ──▶ the method's own clustering ──▶ undo it if it strays ──▶ keep
    graph     PartitionStage          the paper's stage               HeldState               finish

Where methods differ, the difference is a hook with a name. A method fills the hooks in its `fast.py`; its `method.py`
is the paper and knows nothing of this file but `DeepClusterer`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import registry
from models.base import Clusterer, Run
from models.start.graph import GraphStart, graph_start
from models.training.held import HeldState
from models.training.stage import ModelStage, Stage
from models.training.trainer import Schedule, epochs_of, train, train_or_undo


class DeepClusterer(Clusterer):
    """A method that is fitted as its paper says, or by the `fast` recipe if it starts at the neighbour graph."""

    def _fit(self, x: NDArray[Any], run: Run) -> None:
        config: Any = self.config
        if config.start == "graph":
            registry.get(self.name).load_fast()(self, x, run).fit()
        else:
            self.fit_as_published(x, run)

    @abstractmethod
    def fit_as_published(self, x: NDArray[Any], run: Run) -> None:
        """The paper's recipe on stored inputs (N, ...)."""


class PartitionStage(ModelStage, ABC):
    """Learns a partition that does not change, until the network gives nearly every input its cluster."""

    ends_early: ClassVar[bool] = True  # False: the whole schedule is trained
    partition: Tensor  # (N,)
    agreement = 0.0

    @abstractmethod
    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        """See `models.training.stage.Stage`."""

    @abstractmethod
    def predict_all(self) -> Tensor:
        """The cluster that the network gives every input, not augmented: -> (N,)."""

    def rows_that_count(self) -> Tensor | slice:
        """The rows on which agreement is measured."""
        return slice(None)

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:  # noqa: ARG002 - one signature for every stage
        """Assign all inputs, and measure on how many the network agrees with the partition."""
        labels = self.predict_all()
        self.agreement = float((labels == self.partition)[self.rows_that_count()].float().mean())
        return labels.cpu().numpy()

    def is_over(self) -> bool:
        """Once the network agrees with the partition."""
        return self.ends_early and self.agreement >= self.config.hold_agreement


class FastRecipe(ABC):
    """What one method does with a partition of the neighbour graph."""

    START_SPAN: ClassVar[tuple[float, float]] = (0.0, 0.35)  # parts of the fit's progress
    HOLD_SPAN: ClassVar[tuple[float, float]] = (0.35, 0.75)
    CLUSTER_SPAN: ClassVar[tuple[float, float]] = (0.75, 0.97)

    def __init__(self, model: Any, x: NDArray[Any], run: Run) -> None:
        """`x` are stored inputs (N, ...)."""
        self.model, self.x, self.run = model, x, run
        self.config, self.network = model.config, model.network

    def fit(self) -> None:
        """All of it, in order."""
        self.prepare()
        start = graph_start(self.x, self.model.spec, self.config, self.run, self.START_SPAN)
        hold = self.hold(start)
        train(hold, self.hold_schedule())
        self.cluster(hold)

    def cluster(self, hold: PartitionStage) -> None:
        """The method's own clustering, from a network that has learned the partition."""
        stage = self.clustering(hold)
        is_undone = train_or_undo(stage, self.model.cluster_schedule(self.x, self.CLUSTER_SPAN), self.held(stage))
        self.finish(stage, is_undone)

    def prepare(self) -> None:  # noqa: B027 - a hook that a method may leave alone
        """The network's first weights."""

    @abstractmethod
    def hold(self, start: GraphStart) -> PartitionStage:
        """The stage that learns the start's partition."""

    @abstractmethod
    def clustering(self, hold: PartitionStage) -> Any:
        """The method's clustering stage, once the partition is learned."""

    def held(self, stage: Stage) -> HeldState | None:
        """What to go back to if the clustering strays; None: it is never undone."""
        return state_to_restore(stage, self.config.max_move)

    def finish(self, stage: Any, is_undone: bool) -> None:  # noqa: B027 - as above
        """What is left to do after the clustering, or after it was undone."""

    def hold_batch_size(self) -> int:
        """Inputs in a batch while the partition is learned."""
        size: int = self.config.batch_size
        return size

    def hold_schedule(self) -> Schedule:
        """How long the partition is learned."""
        return self.partition_schedule("hold", self.config.n_hold_steps, self.HOLD_SPAN)

    def partition_schedule(self, phase: str, n_steps: int, span: tuple[float, float]) -> Schedule:
        """So many batches, at a rate that falls along half a cosine."""
        size = self.hold_batch_size()
        use_bfloat16 = getattr(self.config, "use_bfloat16", False)
        n_epochs = epochs_of(n_steps, len(self.x), size)
        return Schedule(phase, n_epochs, size, span, is_annealed=True, use_bfloat16=use_bfloat16)


def state_to_restore(stage: Stage, max_move: float) -> HeldState | None:
    """A stage's network as it is before it clusters; None if `max_move` is 0, so that nothing is ever undone."""
    return HeldState(stage.module, stage.labels_now(), max_move) if max_move > 0 else None


def as_labels(labels: NDArray[np.int64], device: str) -> Tensor:
    """A partition (N,) on the device."""
    return torch.from_numpy(labels).to(device)
