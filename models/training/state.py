"""State of a stage that changes from epoch to epoch, always in the same memory."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class EpochState:
    """A tensor attribute of a stage that is written in place.

    A captured step reads the memory that it saw when it was captured. Assigning to this attribute copies the value
    there, unless shape or type change. It is also what a checkpoint keeps, under the attribute's name.
    """

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, stage: Any, _owner: type) -> Tensor:
        try:
            value: Tensor = stage.state[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        return value

    def __set__(self, stage: Any, value: Tensor) -> None:
        write(stage.state, {self._name: value}, stage.run.device)


def write(state: dict[str, Tensor], values: Mapping[str, Tensor], device: str) -> None:
    """Copy values into a state, in place where there is room for them."""
    for name, value in values.items():
        current = state.get(name)
        if current is not None and (current.shape, current.dtype) == (value.shape, value.dtype):
            current.copy_(value.detach())
        else:
            state[name] = value.detach().clone().to(device)
