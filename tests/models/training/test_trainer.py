"""The loop, driven by the smallest method that needs all of it: DEC-like centers over a linear encoder."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.base import Run
from models.errors import Cancelled, Diverged, OutOfMemory
from models.parts.inputs import Inputs
from models.training import steps, trainer
from models.training.steps import is_fast_in_bfloat16
from models.training.trainer import Schedule, batches, epochs_of

X = np.random.default_rng(0).normal(size=(103, 4)).astype(np.float32)


def train(toy, x: np.ndarray, schedule: Schedule, run: Run) -> int:
    """The loop over these inputs."""
    toy.inputs, toy.run = Inputs(x, "cpu"), run
    return trainer.train(toy, schedule)


class Toy:
    """Reconstructs through dropout, assigns by the sign of the first code, keeps a running sum as extra state."""

    def __init__(self, spoil: dict[int, float] | None = None) -> None:
        self.module = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.2), nn.Linear(2, 4))
        generator = torch.Generator().manual_seed(1)
        for parameter in self.module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        self.n_clusters, self.figures, self.state, self.reads_rows = 2, {}, {}, False
        self.seen: list[list[int]] = []
        self.rates: list[float] = []
        self.total = torch.zeros(())
        self.spoil = spoil or {}

    def start_epoch(self, epoch: int) -> None:
        self.seen.append([])
        self.rates.append(self.optimizer.param_groups[0]["lr"])

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        self.seen[-1] += index.tolist()
        error = (self.module(x) - x).square().mean()
        return {"reconstruction": error * self.spoil.pop(len(self.seen), 1.0), "nothing": error * 0}

    def turn(self) -> None:
        return None

    def end_step(self) -> None:
        pass

    def end_epoch(self, epoch: int) -> np.ndarray:
        self.total = self.total + epoch
        return (self.module[0](torch.from_numpy(X))[:, 0] > 0).long().numpy()

    def is_over(self) -> bool:
        return False

    def extra_state(self) -> dict[str, Tensor]:
        return {"total": self.total}

    def load_extra_state(self, state) -> None:
        self.total = state["total"].clone()


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[dict, dict]] = {}

    def save(self, name, tensors, facts) -> None:
        self.states[name] = ({key: value.clone() for key, value in tensors.items()}, facts)

    def latest(self, phase):
        return next((state for state in reversed(self.states.values()) if state[1]["phase"] == phase), None)


def weights(toy: Toy) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in toy.module.parameters()])


def test_every_row_is_seen_once_an_epoch_the_last_short_batch_included():
    toy = Toy()

    assert train(toy, X, Schedule("fit", 3, 25), Run()) == 3

    assert [sorted(seen) for seen in toy.seen] == [list(range(103))] * 3
    assert toy.seen[0] != toy.seen[1]


def test_batches_cover_all_rows():
    sizes = [len(batch) for batch in batches(10, 4, torch.Generator().manual_seed(0))]

    assert sizes == [4, 4, 2]


def test_the_seed_decides_everything_and_the_global_state_nothing():
    runs = []
    for seed, disturb in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturb)
        toy = Toy()
        train(toy, X, Schedule("fit", 2, 25), Run(seed=seed))
        runs.append(weights(toy))

    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("at", [9, 12, 15, 18, 24, 27])
def test_a_run_cancelled_anywhere_resumes_bit_for_bit(at):
    undisturbed = Toy()
    train(undisturbed, X, Schedule("fit", 5, 25), Run())
    kept, steps = Kept(), 0

    def stop(state) -> None:
        nonlocal steps
        steps += 1
        if steps == at:  # five batches and the epoch's report in each
            raise Cancelled("stop")

    schedule = Schedule("fit", 5, 25, checkpoint_epochs=1, checkpoint_gap_s=0)
    with pytest.raises(Cancelled):
        train(Toy(), X, schedule, Run(on_step=stop, checkpoints=kept))
    resumed = Toy()
    train(resumed, X, schedule, Run(checkpoints=kept))

    assert torch.equal(weights(resumed), weights(undisturbed))
    assert resumed.total == undisturbed.total == 10
    assert len(resumed.seen) == 5 - at // 6  # no completed epoch again


def test_a_phase_that_was_over_is_not_trained_again():
    kept = Kept()
    train(Toy(), X, Schedule("first", 2, 25), Run(checkpoints=kept))
    toy = Toy()

    assert train(toy, X, Schedule("first", 2, 25), Run(checkpoints=kept)) == 2
    assert toy.seen == []
    assert train(toy, X, Schedule("second", 1, 25), Run(checkpoints=kept)) == 1


@pytest.mark.parametrize("name", ["training", "start", "device"])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_checkpoint_of_other_code_or_another_type_of_device_is_skipped_and_said_so(name, is_old):
    kept, states = Kept(), []
    train(Toy(), X, Schedule("fit", 2, 25), Run(checkpoints=kept))
    for _, facts in kept.states.values():
        facts[name] = "another"
        if is_old:
            del facts[name]  # as before it was noted
    toy = Toy()

    train(toy, X, Schedule("fit", 2, 25), Run(checkpoints=kept, on_step=states.append))

    assert len(toy.seen) == 2
    assert [state.event for state in states if state.event] == ["checkpoint_skipped"]


def test_one_bad_loss_goes_back_to_the_epochs_start_at_a_tenth_of_the_rate():
    toy = Toy(spoil={2: math.nan})

    train(toy, X, Schedule("fit", 3, 25), Run())

    assert toy.rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert torch.isfinite(weights(toy)).all()


def test_parameters_spoilt_by_the_last_step_of_an_epoch_are_taken_back():
    class Spoilt(Toy):
        def loss(self, x, index):
            terms = super().loss(x, index)
            if len(self.seen) == 2 and len(self.seen[-1]) == 103:
                # A finite loss with an infinite gradient.
                terms["nothing"] = (self.module[0].weight.sum() * 0).sqrt()
            return terms

    toy, kept = Spoilt(), Kept()

    train(toy, X, Schedule("fit", 3, 25, checkpoint_epochs=1, checkpoint_gap_s=0), Run(checkpoints=kept))

    assert toy.rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    for tensors, _ in kept.states.values():
        assert all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point())


def test_empty_clusters_count_as_zero():
    states, toy = [], Toy()
    toy.n_clusters = 5

    train(toy, X, Schedule("fit", 1, 50), Run(on_step=states.append))

    assert len(states[-1].cluster_sizes) == 5
    assert states[-1].cluster_sizes[2:] == [0, 0, 0]


def test_two_bad_losses_are_a_divergence():
    with pytest.raises(Diverged):
        train(Toy(spoil={1: math.inf, 2: math.nan}), X, Schedule("fit", 3, 25), Run())


def test_training_stops_when_labels_stop_changing():
    changes = []
    n = train(
        Toy(), X, Schedule("fit", 500, 25, stop_change=0.005), Run(on_step=lambda s: changes.append(s.label_change))
    )

    found = [change for change in changes if change is not None]
    assert n < 500
    assert found[-1] < 0.005 <= min(found[:-1], default=1)


def test_reports_carry_losses_sizes_and_rising_progress_within_the_span():
    states = []
    train(Toy(), X, Schedule("fit", 2, 50, span=(0.2, 0.8)), Run(on_step=states.append))

    progress = [state.progress for state in states]
    assert progress == sorted(progress)
    assert 0.2 < progress[0] < progress[-1] == pytest.approx(0.8)
    assert states[-1].losses.keys() == {"reconstruction", "nothing"}
    assert sum(states[-1].cluster_sizes) == 103


def test_half_the_batch_after_running_out_of_memory():
    sizes = []

    class Counting(Toy):
        def loss(self, x, index):
            sizes.append(len(x))
            return super().loss(x, index)

    train(Counting(), X, Schedule("fit", 1, 50), Run(batch_scale=0.5))

    assert max(sizes) == 25


def test_a_device_out_of_memory_is_our_error():
    class Large(Toy):
        def loss(self, x, index):
            raise torch.OutOfMemoryError("too much")

    with pytest.raises(OutOfMemory):
        train(Large(), X, Schedule("fit", 1, 50), Run())


def test_clipping_looks_only_at_what_is_trained():
    """A gradient that an earlier phase left on another parameter makes no step smaller."""
    steps = []
    for left in (0.0, 1e6):
        toy = Toy()
        toy.optimizer = torch.optim.SGD([toy.module[0].weight], lr=1.0)
        toy.module[2].weight.grad = torch.full_like(toy.module[2].weight, left)
        before = weights(toy)
        train(toy, X, Schedule("fit", 1, 103, clip=0.01), Run())
        steps.append(float((weights(toy) - before).norm()))

    assert steps[0] == steps[1] > 0.009


@pytest.mark.parametrize(
    ("n_steps", "n", "size", "expected"), [(7_500, 70_000, 128, 14), (10, 60, 256, 10), (1, 70_000, 10, 1)]
)
def test_steps_become_the_nearest_number_of_epochs(n_steps, n, size, expected):
    assert epochs_of(n_steps, n, size) == expected


def test_clipping_bounds_the_step():
    toy = Toy()
    toy.optimizer = torch.optim.SGD(toy.module.parameters(), lr=1.0)
    before = weights(toy)

    train(toy, X * 1000, Schedule("fit", 1, 103, clip=0.01), Run())

    assert float((weights(toy) - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_cpu_is_fast_in_bfloat16_if_it_has_tiles_of_it():
    told = Path("/proc/cpuinfo")  # of Linux; no other CPU that torch runs on has them
    can = "amx_tile" in told.read_text() if told.exists() else False

    assert is_fast_in_bfloat16(torch.device("cpu")) == can


@pytest.mark.parametrize("is_asked", [False, True])
@pytest.mark.parametrize("is_fast", [False, True])
def test_precision_is_halved_where_that_is_asked_for_and_fast(monkeypatch, is_asked, is_fast):
    monkeypatch.setattr(steps, "is_fast_in_bfloat16", lambda device: is_fast)
    kinds = set()

    class Watched(Toy):
        def loss(self, x, index):
            kinds.add(self.module(x).dtype)
            return super().loss(x, index)

    train(Watched(), X, Schedule("fit", 1, 50, use_bfloat16=is_asked), Run())

    assert kinds == {torch.bfloat16 if is_asked and is_fast else torch.float32}
