"""Where the inputs of a fit live: on the device if they fit, else in host memory, from which batches are prefetched."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEMORY_SHARE = 0.5  # of the device's free memory that inputs may take
BATCHES_AHEAD = 8  # batches that are gathered and copied as one block while earlier ones are trained on


class Inputs:
    """Stored inputs (N, ...) of one fit, and batches of them on the device."""

    def __init__(self, array: NDArray[Any], device: str, memory_share: float = MEMORY_SHARE) -> None:
        """Copy the inputs to the device if they take at most `memory_share` of its free memory.

        Args:
            array: stored inputs (N, ...), in memory or a memory map.
            device: such as `cpu` or `cuda:0`.
            memory_share: 0...1; 0 keeps all inputs in host memory.
        """
        self.array, self.device = array, torch.device(device)
        self.resident: Tensor | None = None
        if self.device.type == "cuda" and array.nbytes <= memory_share * torch.cuda.mem_get_info(self.device)[0]:
            self.resident = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    @property
    def order_device(self) -> str:
        """Where the order of an epoch's batches is drawn: on the device if the inputs lie there."""
        return "cpu" if self.resident is None else str(self.device)

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, index: Tensor) -> Tensor:
        """Some inputs on the device, by their indexes (B,): -> (B, ...)."""
        if self.resident is not None:
            return self.resident[index.to(self.device)]
        return self._copied(self.array[index.cpu().numpy()])

    def slice(self, start: int, stop: int) -> Tensor:
        """Inputs `start`...`stop` - 1 on the device."""
        if self.resident is not None:
            return self.resident[start:stop]
        return self._copied(np.array(self.array[start:stop]))

    def batches(self, indexes: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (B, ...) and indexes (B,) on the device, one pair for each tensor of indexes."""
        if self.resident is not None or self.device.type == "cpu":
            for index in indexes:
                yield self.rows(index), index.to(self.device)
        else:
            yield from self._prefetched(list(indexes))

    def _prefetched(self, indexes: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of batches: a thread gathers and copies the next while the device works on the last."""
        blocks = [indexes[at : at + BATCHES_AHEAD] for at in range(0, len(indexes), BATCHES_AHEAD)]
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._block, blocks[0])
            for number, block in enumerate(blocks):
                rows, index = coming.result()
                if number + 1 < len(blocks):
                    coming = pool.submit(self._block, blocks[number + 1])
                sizes = [len(each) for each in block]
                yield from zip(torch.split(rows, sizes), torch.split(index, sizes), strict=True)

    def _block(self, indexes: list[Tensor]) -> tuple[Tensor, Tensor]:
        index = torch.cat([each.cpu() for each in indexes])
        return self._copied(self.array[index.numpy()]), self._copied(index.numpy())

    def _copied(self, rows: NDArray[Any]) -> Tensor:
        """Rows on the device. For a GPU they pass through pinned memory, so that the copy does not block the host."""
        host = torch.from_numpy(rows)
        if self.device.type != "cuda":
            return host.to(self.device)
        return host.pin_memory().to(self.device, non_blocking=True)
