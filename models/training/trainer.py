"""THE loop: every deep method trains through `train`. Seeding, device, precision, clipping, NaN guard, resume.

A method gives a `Stage` (`models.training.stage`). Batch order, dropout and augmentation of an epoch depend only on
(seed, phase, epoch), so a run that resumes from a checkpoint draws what the undisturbed run would have drawn.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Run, StepState
from models.errors import Cancelled, Collapsed, Diverged, OutOfMemory
from models.start.graph import RULE_VERSION
from models.training.held import HeldState
from models.training.optimizers import set_rate
from models.training.stage import Stage
from models.training.steps import CudaRecorder, StepRule, Steps, Totals

CHECKPOINT_S = 60.0
LOWER_RATE = 0.1
READ_S = 0.25  # between two looks at the device's figures, each of which waits for it
TRAINING_VERSION = 2  # of what a checkpoint means


@dataclass(frozen=True)
class Schedule:
    """How long and how a stage trains.

    `span`: the part of the fit's progress it takes. `clip`: largest gradient norm (0: none). `stop_change`:
    stop once fewer than this share of images change their cluster in an epoch (0: never). `is_annealed`: the rate
    falls along half a cosine from epoch to epoch. `decay_steps`: it is divided by ten after so many batches, and again,
    each time where an epoch begins (0: never). `use_bfloat16`: where the device is fast in it. A checkpoint is due
    every `checkpoint_epochs`, but not within `checkpoint_gap_s` of the last, and every minute.
    """

    phase: str
    n_epochs: int
    batch_size: int
    span: tuple[float, float] = (0.0, 1.0)
    clip: float = 0.0
    stop_change: float = 0.0
    use_bfloat16: bool = False
    checkpoint_epochs: int = 10
    checkpoint_gap_s: float = 2.0
    is_annealed: bool = False
    decay_steps: int = 0


@dataclass
class _Progress:
    """Where a training is; everything but the last epoch's `change` is in a checkpoint."""

    epoch: int = 0
    rate_scale: float = 1.0
    assignments: NDArray[np.int64] | None = None
    change: float | None = None  # share of images whose cluster changed, None without an epoch to compare with


def train(stage: Stage, schedule: Schedule) -> int:
    """Train a stage on its inputs; how many epochs it took.

    Raises:
        Diverged: the loss was not finite, and again at a tenth of the rate.
        OutOfMemory: the device ran out; `run.batch_scale` is what to lower.
        Cancelled: by `run.on_step`; every epoch that was completed can be resumed.
    """
    run = stage.run
    stage.module.to(run.device)
    if torch.device(run.device).index is not None:
        torch.cuda.set_device(run.device)  # streams and graphs are those of the current device
    loop = _Loop(stage, schedule)
    progress = loop.progress
    if _resume(stage, schedule, progress):
        return progress.epoch
    last_saved = time.monotonic()
    saved_epoch = progress.epoch
    while progress.epoch < schedule.n_epochs:
        is_over = False
        try:
            losses = loop.guarded_epoch()
            _end_epoch(stage, progress)
            is_settled = progress.change is not None and progress.change < schedule.stop_change
            is_over = progress.epoch == schedule.n_epochs or is_settled or stage.is_over()
            _report(stage, schedule, progress, losses)
        except Cancelled:
            if run.checkpoints is not None and progress.epoch > saved_epoch:
                _save(stage, schedule, progress, is_over)
            raise
        elapsed = time.monotonic() - last_saved
        is_tenth = progress.epoch % schedule.checkpoint_epochs == 0
        is_due = elapsed > CHECKPOINT_S or (is_tenth and elapsed > schedule.checkpoint_gap_s)
        if run.checkpoints is not None and (is_over or is_due):
            _save(stage, schedule, progress, is_over)
            last_saved, saved_epoch = time.monotonic(), progress.epoch
        if is_over:
            break
    return progress.epoch


def train_or_undo(stage: Stage, schedule: Schedule, held: HeldState | None) -> bool:
    """`train`, undone if it moves too many images out of their clusters, or all into one; returns whether it was.

    After an undo the networks of `held` are what they were, and a report of phase `restore` says so. None: nothing is
    ever undone.

    Raises:
        Collapsed: all images fell into one cluster, and `held` knows nothing better.
    """
    is_collapsed = False
    try:
        train(stage, schedule)
    except Collapsed:
        if held is None or held.is_one_cluster:
            raise
        is_collapsed = True
    if held is None:
        return False
    moved = held.count_moved(stage.labels_now())
    if moved <= held.max_move and not is_collapsed:
        return False
    held.restore()
    labels = held.labels.cpu().numpy()
    report = StepState("restore", schedule.span[1], 1, {"moved": moved}, assignments=labels, is_epoch=True)
    stage.run.on_step(report)
    return True


def origin_of(device: str) -> dict[str, Any]:
    """What a checkpoint says of where it comes from: of other code or another type of device it is not gone on from.

    Starts differ between them, and a network that has learned one start's clusters knows nothing of another's.
    """
    return {"training": TRAINING_VERSION, "start": RULE_VERSION, "device": torch.device(device).type}


def can_resume(facts: Mapping[str, Any], device: str) -> bool:
    """Whether a training on a device can go on from a checkpoint with these facts."""
    return all(facts.get(name) == value for name, value in origin_of(device).items())


def epochs_of(n_steps: int, n: int, batch_size: int) -> int:
    """How many epochs over n rows come nearest to so many batches; at least one."""
    return max(1, round(n_steps / math.ceil(n / batch_size)))


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A random order of 0...n-1 in batches, on the generator's device; the last may be short, no row is left out."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    for start in range(0, n, size):
        yield order[start : start + size]


class _Loop:
    """One call of `train`: where it is, and what its steps share."""

    def __init__(self, stage: Stage, schedule: Schedule) -> None:
        self.stage, self.schedule, self.run = stage, schedule, stage.run
        self.progress = _Progress()
        self.size = max(1, round(schedule.batch_size * self.run.batch_scale))
        self.totals = Totals(self.run.device)
        is_cuda = torch.device(self.run.device).type == "cuda"
        needs_host = stage.reads_rows and stage.inputs.resident is None  # its loss would wait for rows
        recorder = CudaRecorder(self.run.device) if is_cuda and not needs_host else None
        self.steps = Steps(stage, StepRule(schedule.clip, schedule.use_bfloat16), self.totals, recorder)
        if is_cuda and needs_host:
            self.steps.refusal = "its loss reads inputs that do not fit on the device"
        self._is_refusal_told = False
        self._read_at = 0.0

    def guarded_epoch(self) -> dict[str, float]:
        """One epoch; from its beginning again at a lower rate, once, if the loss stops being finite."""
        stage, progress = self.stage, self.progress
        good = _clone(_state(stage))
        try:
            set_rate(stage.optimizer, self._rate_scale())
            losses = self.epoch()
            _check_finite(stage.module)  # the last step's damage shows in no loss
            return losses
        except Cancelled:
            _load_state(stage, good)
            raise
        except (FloatingPointError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            phase = self.schedule.phase
            if progress.rate_scale < 1:
                raise Diverged(f"the loss of phase {phase} is not finite, also at a tenth of the rate") from error
            progress.rate_scale = LOWER_RATE
            _load_state(stage, good)
            return self.guarded_epoch()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"the device ran out of memory in phase {self.schedule.phase}") from error

    def epoch(self) -> dict[str, float]:
        """One pass over all rows; the mean of each loss term over the batches that have it."""
        stage, epoch, n = self.stage, self.progress.epoch, len(self.stage.inputs)
        n_batches = math.ceil(n / self.size)
        self.totals.reset()
        with _drawing_from(self.run, self.schedule.phase, epoch):
            stage.start_epoch(epoch)
            stage.module.train()
            self.steps.begin_epoch()
            order = self.run.generator(self.schedule.phase, "order", epoch, device=stage.inputs.order_device)
            for number, (x, index) in enumerate(stage.inputs.batches(batches(n, self.size, order))):
                self.steps.run(x, index)
                self._report((epoch + (number + 1) / n_batches) / self.schedule.n_epochs)
            self.steps.end_epoch()
        self.totals.check()
        return self.totals.means()

    def _report(self, share: float) -> None:
        """Say how far the phase is after each step; look at the device's figures a few times a second."""
        state = StepState(self.schedule.phase, _at(self.schedule, share), step=self.progress.epoch)
        if self.steps.refusal and not self._is_refusal_told:
            self._is_refusal_told = True
            self.run.on_step(replace(state, event=f"not_captured: {self.steps.refusal}"))
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            self.totals.check()
            state = replace(state, losses=self.totals.latest())
        self.run.on_step(state)

    def _rate_scale(self) -> float:
        """The epoch's learning rate as a share of the optimizer's own."""
        schedule, epoch = self.schedule, self.progress.epoch
        share = epoch / schedule.n_epochs
        scale = self.progress.rate_scale * (0.5 * (1 + math.cos(math.pi * share)) if schedule.is_annealed else 1.0)
        if schedule.decay_steps:
            n_batches = math.ceil(len(self.stage.inputs) / schedule.batch_size)
            scale *= LOWER_RATE ** (epoch * n_batches // schedule.decay_steps)
        return scale


def _check_finite(module: nn.Module) -> None:
    are_finite = [torch.isfinite(parameter).all() for parameter in module.parameters()]
    if are_finite and not bool(torch.stack(are_finite).all()):
        raise FloatingPointError


def _end_epoch(stage: Stage, progress: _Progress) -> None:
    before = progress.assignments
    stage.module.eval()
    with torch.no_grad():
        progress.assignments = stage.end_epoch(progress.epoch)
    progress.epoch += 1
    progress.change = None
    if before is not None and progress.assignments is not None:
        progress.change = float((before != progress.assignments).mean())


def _report(stage: Stage, schedule: Schedule, progress: _Progress, losses: Mapping[str, float]) -> None:
    labels = progress.assignments
    stage.run.on_step(
        StepState(
            schedule.phase,
            _at(schedule, progress.epoch / schedule.n_epochs),
            step=progress.epoch,
            losses={**losses, **stage.figures},
            label_change=progress.change,
            cluster_sizes=None if labels is None else np.bincount(labels, minlength=stage.n_clusters).tolist(),
            assignments=labels,
            is_epoch=True,
        )
    )


@contextmanager
def _drawing_from(run: Run, phase: str, epoch: int) -> Iterator[None]:
    """Give dropout and augmentation their own stream for the epoch; the caller's streams are left as they were."""
    devices = [torch.cuda.current_device()] if run.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(run.generator(phase, "draws", epoch).initial_seed())
        yield


def _at(schedule: Schedule, share: float) -> float:
    start, stop = schedule.span
    return start + (stop - start) * share


def _state(stage: Stage) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    return stage.module.state_dict(), stage.optimizer.state_dict(), stage.extra_state()


def _clone(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _clone(value) for key, value in state.items()}
    return type(state)(_clone(value) for value in state) if isinstance(state, list | tuple) else state


def _load_state(stage: Stage, state: tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]) -> None:
    stage.module.load_state_dict(state[0])
    stage.optimizer.load_state_dict(state[1])
    _lay_out_slots(stage.optimizer)
    stage.load_extra_state(state[2])


def _lay_out_slots(optimizer: torch.optim.Optimizer) -> None:
    """Give slots the strides of their parameters: files hold none, and fused steps refuse others."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _save(stage: Stage, schedule: Schedule, progress: _Progress, is_over: bool) -> None:
    """One checkpoint: parameters, optimizer, extras and where the training is."""
    checkpoints = stage.run.checkpoints
    assert checkpoints is not None
    module, optimizer, extra = _state(stage)
    tensors = {f"module/{name}": value for name, value in module.items()}
    tensors |= {f"extra/{name}": value for name, value in extra.items()}
    numbers: dict[str, dict[str, Any]] = {}
    for number, slots in optimizer["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value
            else:
                numbers.setdefault(str(number), {})[name] = value
    if progress.assignments is not None:
        tensors["assignments"] = torch.from_numpy(progress.assignments)
    facts = {
        "phase": schedule.phase,
        "epoch": progress.epoch,
        "is_over": is_over,
        "rate_scale": progress.rate_scale,
        "numbers": numbers,
        "n_threads": torch.get_num_threads(),
        **origin_of(stage.run.device),
    }
    checkpoints.save(f"{schedule.phase}-{progress.epoch:05d}", tensors, facts)


def _resume(stage: Stage, schedule: Schedule, progress: _Progress) -> bool:
    """Go on from the phase's last checkpoint; True if the phase was already over."""
    run = stage.run
    latest = run.checkpoints.latest(schedule.phase) if run.checkpoints is not None else None
    if latest is None:
        return False
    tensors, facts = latest
    if not can_resume(facts, run.device):
        run.on_step(StepState(schedule.phase, schedule.span[0], event="checkpoint_skipped"))
        return False
    if run.device == "cpu":
        torch.set_num_threads(facts["n_threads"])  # sums over other parts would round differently
    saved: dict[str, dict[str, Tensor]] = {"module": {}, "extra": {}}
    slots: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in facts["numbers"].items()}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if kind == "optimizer":
            number, _, slot = name.partition("/")
            slots.setdefault(int(number), {})[slot] = value
        elif kind in saved:
            saved[kind][name] = value
    groups = stage.optimizer.state_dict()["param_groups"]
    _load_state(stage, (saved["module"], {"state": slots, "param_groups": groups}, saved["extra"]))
    progress.epoch, progress.rate_scale = facts["epoch"], facts["rate_scale"]
    progress.assignments = tensors["assignments"].numpy() if "assignments" in tensors else None
    return bool(facts["is_over"])
