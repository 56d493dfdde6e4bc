"""The steps of a stage. None waits for the device: what a step yields is added up there and read when a report is due.

On CUDA a step is captured as a graph after three eager ones and replayed from then on. A graph belongs to one length of
batch and one turn of the stage; it reads and writes fixed memory, so it is captured anew once parameters, state or
optimizer slots have moved.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.training.stage import Stage

EAGER_STEPS = 3  # of each kind, before it is captured: libraries choose their kernels and optimizers make their slots
STEPS_AHEAD = 64  # the host is at most twice as many steps ahead of the device, so that a cancel takes effect soon


@cache
def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether halving the precision saves time there, also while other programs run.

    A CPU needs tiles of bfloat16 (AMX). Without such instructions it takes longer. With those of AVX-512 alone it saves
    a quarter at best, and where cores are shared the threads of a convolution's gradient wait for each other in a busy
    loop: a step of DEPICT at 28 pixels on two cores took 193 ms instead of 261, beside two busy programs 1,442 instead
    of 567, beside another training 6,400 instead of 370.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())


class Totals:
    """An epoch's losses, and whether all of them were finite, on the device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._last: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._latest: tuple[str, ...] = ()

    def reset(self) -> None:
        """Begin an epoch, in the same memory."""
        self._finite.fill_(True)
        self._counts = dict.fromkeys(self._counts, 0)
        for values in self._sums.values():
            values.zero_()

    def add(self, names: tuple[str, ...], values: Tensor, total: Tensor) -> None:
        """Add a step's terms (T,) and look at their sum (), both on the device; part of a captured step."""
        if names not in self._sums:
            self._sums[names] = torch.zeros(len(names), dtype=torch.float64, device=self._device)
            self._last[names] = torch.zeros(len(names), dtype=torch.float64, device=self._device)
        self._finite.logical_and_(torch.isfinite(total))
        self._last[names].copy_(values)
        self._sums[names].add_(self._last[names])

    def count(self, names: tuple[str, ...]) -> None:
        """Count a step, on the host."""
        self._latest = names
        self._counts[names] = self._counts.get(names, 0) + 1

    def check(self) -> None:
        """Wait for the device and look.

        Raises:
            FloatingPointError: a loss was not finite.
        """
        if not bool(self._finite):
            raise FloatingPointError

    def latest(self) -> dict[str, float]:
        """The last step's terms; waits for the device."""
        return dict(zip(self._latest, self._last[self._latest].tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """The mean of each term over the steps that had it; waits for the device."""
        sums: dict[str, tuple[float, int]] = {}
        for names, n in self._counts.items():
            for name, value in zip(names, self._sums[names].tolist(), strict=True):
                total, before = sums.get(name, (0.0, 0))
                sums[name] = total + value, before + n
        return {name: total / n for name, (total, n) in sums.items() if n}

    def tensors(self) -> Iterator[Tensor]:
        """What a captured step writes."""
        yield from (self._finite, *self._sums.values(), *self._last.values())


@dataclass(frozen=True)
class StepRule:
    """How a step is made: largest gradient norm (0: none), and bfloat16 where the device is fast in it."""

    clip: float = 0.0
    use_bfloat16: bool = False


def eager_step(stage: Stage, x: Tensor, index: Tensor, rule: StepRule, totals: Totals) -> tuple[str, ...]:
    """Loss, gradients and update on one batch, (B, ...) and (B,), without a look at any value; -> the terms' names."""
    is_halved = rule.use_bfloat16 and is_fast_in_bfloat16(x.device)
    is_cached = x.device.type != "cuda"  # what autocast caches outside of a graph is gone when the graph is replayed
    with torch.autocast(x.device.type, torch.bfloat16, enabled=is_halved, cache_enabled=is_cached):
        terms = stage.loss(x, index)
    values = torch.stack([term.float() for term in terms.values()])
    total = values.sum()
    stage.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if rule.clip:
        trained = [parameter for group in stage.optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(trained, rule.clip)
    stage.optimizer.step()
    names = tuple(terms)
    totals.add(names, values.detach(), total.detach())
    return names


class Recorder(Protocol):
    """What can capture a step and replay it: CUDA, or a stand-in for it."""

    def warm_up(self, step: Callable[[], Any], *, refuses_waits: bool) -> Any:
        """Run a step eagerly, in the way that it will be captured; if asked to, raise where it waits for the device."""

    def renew(self) -> None:
        """Called once all captured steps are forgotten."""

    def record(self, step: Callable[[], Any]) -> Callable[[], None]:
        """Capture a step without running it; what is returned runs it."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self.renew()

    def renew(self) -> None:
        """A pool that lost all its graphs is not to be used again."""
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Callable[[], Any], *, refuses_waits: bool) -> Any:
        """On a side stream. A capture that fails leaves CUDA in a bad state, so waits are looked for before it."""
        current, mode = torch.cuda.current_stream(self._device), torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                if refuses_waits:
                    torch.cuda.set_sync_debug_mode("error")
                value = step()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            current.wait_stream(self._stream)
        return value

    def record(self, step: Callable[[], Any]) -> Callable[[], None]:
        """Other threads may go on copying inputs meanwhile."""
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                step()
        except BaseException:
            torch.cuda.set_stream(before)  # a capture that fails does not leave its stream
            generator = torch.cuda.default_generators[before.device_index]
            generator.graphsafe_set_state(generator.clone_state())  # a state that belongs to no capture
            raise
        return graph.replay


@dataclass
class _Kind:
    """Steps of one length and turn: how many were eager, and the captured one with its inputs."""

    n_eager: int = 0
    names: tuple[str, ...] = ()
    x: Tensor | None = None
    index: Tensor | None = None
    replay: Callable[[], None] | None = None


class Steps:
    """Runs the steps of one stage, eagerly or captured."""

    def __init__(self, stage: Stage, rule: StepRule, totals: Totals, recorder: Recorder | None = None) -> None:
        """Without a recorder every step is eager."""
        self._stage, self._rule, self._totals, self._recorder = stage, rule, totals, recorder
        self._kinds: dict[Hashable, _Kind] = {}
        self._places: tuple[int, ...] = ()
        self._events: list[Any] = []
        self._n_steps = 0
        self.refusal = ""  # why steps could not be captured

    def begin_epoch(self) -> None:
        """Forget captured steps whose memory is no longer that of the stage."""
        self._stage.optimizer.zero_grad(set_to_none=True)
        places = self._find_places()
        if places != self._places:
            self._kinds.clear()  # the first steps are eager again: an optimizer makes its slots in them
            if self._recorder is not None:
                self._recorder.renew()

    def end_epoch(self) -> None:
        """Note where the stage's memory is after an epoch."""
        self._places = self._find_places()

    def run(self, x: Tensor, index: Tensor) -> None:
        """One step on a batch on the device, (B, ...) and (B,)."""
        names = self._eager(x, index) if self._recorder is None else self._captured(self._recorder, x, index)
        self._totals.count(names)
        self._stage.end_step()
        self._n_steps += 1
        if x.is_cuda and self._n_steps % STEPS_AHEAD == 0:
            self._stay_near()

    def _eager(self, x: Tensor, index: Tensor) -> tuple[str, ...]:
        return eager_step(self._stage, x, index, self._rule, self._totals)

    def _captured(self, recorder: Recorder, x: Tensor, index: Tensor) -> tuple[str, ...]:
        kind = self._kinds.setdefault((len(index), self._stage.turn()), _Kind())
        try:
            if kind.n_eager < EAGER_STEPS:
                kind.n_eager += 1
                is_last = kind.n_eager == EAGER_STEPS
                kind.names = recorder.warm_up(lambda: self._eager(x, index), refuses_waits=is_last)
                return kind.names
            if kind.replay is None:
                kind.x, kind.index = x.clone(), index.clone()
                kind.replay = recorder.record(lambda: self._eager(kind.x, kind.index))  # type: ignore[arg-type]
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            # A step that waits does so in its loss, before anything is updated: it is simply run again.
            self._recorder, self.refusal = None, str(error.__context__ or error).partition("\n")[0]
            self._kinds.clear()
            return self._eager(x, index)
        assert kind.x is not None
        assert kind.index is not None
        kind.x.copy_(x)
        kind.index.copy_(index)
        kind.replay()
        return kind.names

    def _find_places(self) -> tuple[int, ...]:
        """Addresses of all that a captured step reads and writes, but its inputs."""
        stage = self._stage
        slots = [value for slot in stage.optimizer.state.values() for value in slot.values()]
        rates = [group["lr"] for group in stage.optimizer.param_groups]
        tensors = [*stage.module.parameters(), *stage.module.buffers(), *stage.state.values()]
        everything = [*tensors, *slots, *rates, *self._totals.tensors()]
        return tuple(value.data_ptr() for value in everything if isinstance(value, Tensor))

    def _stay_near(self) -> None:
        """Wait until the device has done all but the last so many steps."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)
        if len(self._events) > 1:
            self._events.pop(0).synchronize()
