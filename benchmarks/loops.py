"""The two loops that are compared: a stage in the trainer, and the same steps written by hand.

The loop by hand takes the stage's own loss and optimizer. Its batches lie on the device; it has no reports and no
guards. On CUDA its step is captured in a CUDA graph.
"""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import wait_for
from models.methods.precise_feature.method import Game
from models.training.steps import is_fast_in_bfloat16
from models.training.trainer import Schedule, train

N_WARM_UP = 3  # steps before a capture: libraries and optimizers allocate what they keep


def time_trainer(stage: Any, schedule: Schedule) -> tuple[float, float]:
    """Seconds of the last epoch's steps with all that the trainer does beside them, and of the pass that ends it.

    Raises:
        RuntimeError: the trainer repeated an epoch, because its loss was not finite.
    """
    device, begins, ends, n_started = stage.run.device, [0.0], [0.0], 0
    start_epoch, end_epoch = stage.start_epoch, stage.end_epoch

    def count_start(epoch: int) -> None:
        nonlocal n_started
        n_started += 1
        start_epoch(epoch)

    def timed_end(epoch: int) -> Any:
        wait_for(device)
        ends.append(time.perf_counter())
        labels = end_epoch(epoch)
        wait_for(device)
        begins.append(time.perf_counter())
        return labels

    stage.start_epoch, stage.end_epoch = count_start, timed_end
    stage.is_over = lambda: False
    stage.can_collapse = False  # a partition drawn by number teaches nothing
    train(stage, schedule)
    if n_started != schedule.n_epochs:
        raise RuntimeError("the loss was not finite, so an epoch was repeated")
    return ends[-1] - begins[-2], begins[-1] - ends[-1]


class HandLoop:
    """The steps of a stage as one would write them down, captured in CUDA graphs where that can be done."""

    def __init__(self, stage: Any, size: int, use_bfloat16: bool) -> None:
        self.stage, self.size, self.device = stage, size, torch.device(stage.run.device)
        self.use_bfloat16 = use_bfloat16 and is_fast_in_bfloat16(self.device)
        self.x = torch.from_numpy(stage.inputs.array).to(self.device)
        self.inputs = self.x[:size].clone()  # a graph reads its batch here
        self.index = torch.arange(size, device=self.device)
        self.n_steps = 0
        self.graphs: list[torch.cuda.CUDAGraph] = []
        self.obstacle = ""  # why nothing could be captured
        stage.module.to(self.device)
        stage.start_epoch(0)
        stage.module.train()
        if self.device.type == "cuda":
            self._capture()
        else:
            self._step()

    def time_epoch(self) -> float:
        """Seconds of one epoch."""
        wait_for(str(self.device))
        begun = time.perf_counter()
        order = torch.randperm(len(self.x), device=self.device)
        for index in torch.split(order, self.size):
            self.index.copy_(index)
            torch.index_select(self.x, 0, index, out=self.inputs)
            if self.graphs:
                self.graphs[self.n_steps % len(self.graphs)].replay()
            else:
                self._step()
            self.n_steps += 1
        wait_for(str(self.device))
        return time.perf_counter() - begun

    def _step(self) -> None:
        self.stage.optimizer.zero_grad(set_to_none=True)
        is_cached = self.device.type != "cuda"  # a graph must not read what autocast cached before it
        with torch.autocast(self.device.type, torch.bfloat16, self.use_bfloat16, is_cached):
            terms = self.stage.loss(self.inputs, self.index)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self.stage.optimizer.step()
        self.stage.end_step()

    def _capture(self) -> None:
        """One graph, or one for each turn of a game."""
        n_turns = len(self.stage.turns) if isinstance(self.stage, Game) else 1
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(max(N_WARM_UP, n_turns)):
                    self._step()
                with _refusing_waits():
                    for _ in range(n_turns):
                        self._step()
            torch.cuda.current_stream().wait_stream(side)
            self.graphs = [self._captured() for _ in range(n_turns)]
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.graphs, self.obstacle = [], _told(error)

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph


@contextmanager
def _refusing_waits() -> Iterator[None]:
    """Raise where a step waits for the GPU: a capture that fails may leave torch's generator unusable."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _told(error: BaseException) -> str:
    """The first line of a message, and the last line of this repository that led to it."""
    root = Path(__file__).parents[1]
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(root)]
    place = f"{Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno}: " if frames else ""
    return place + str(error).strip().partition("\n")[0][:300]
