"""A network as it was, to go back to if what follows moves too many images out of their clusters."""

import torch
from torch import Tensor, nn


class HeldState:
    """Parameters of one or more networks at one moment, and the clusters that they gave then."""

    def __init__(self, module: nn.Module, labels: Tensor, max_move: float) -> None:
        """Copy a network.

        Args:
            module: the network.
            labels: (N,) the clusters that it gave.
            max_move: what follows strays where it gives more than this share of the images another cluster.
        """
        self.labels, self.max_move = labels.clone(), max_move
        self._copies: list[tuple[nn.Module, dict[str, Tensor]]] = []
        self.add(module)

    def add(self, module: nn.Module) -> None:
        """Copy another network as it is now, to be restored with the first."""
        self._copies.append((module, {name: value.detach().clone() for name, value in module.state_dict().items()}))

    @property
    def is_one_cluster(self) -> bool:
        """Whether all images had the same cluster."""
        return bool((self.labels == self.labels[0]).all())

    def count_moved(self, labels: Tensor) -> float:
        """Share of the images that have another cluster now: (N,) -> 0...1."""
        return float((labels != self.labels).float().mean())

    def restore(self) -> None:
        """Give the networks back their parameters."""
        for module, state in self._copies:
            with torch.no_grad():
                module.load_state_dict(state)
