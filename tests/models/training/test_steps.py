"""Steps that never wait for the device, and steps that are captured: on the CPU with a stand-in for CUDA's graphs."""

import copy
import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.base import Run
from models.methods.adaptive_gmm.fast import FastJoint
from models.methods.adaptive_gmm.fast import Hold as HoldGMM
from models.methods.adaptive_gmm.method import RBM, FineTune
from models.methods.adaptive_gmm.method import Joint as JointGMM
from models.methods.dcae.fast import Hold as HoldDCAE
from models.methods.dcae.method import Alternation
from models.methods.depict.fast import Hold as HoldDEPICT
from models.methods.depict.fast import Keep
from models.methods.depict.method import Clustering, Layer, Reconstruction
from models.methods.dual_autoencoder.fast import FastJoint as FastJointDual
from models.methods.dual_autoencoder.fast import Hold as HoldDual
from models.methods.dual_autoencoder.fast import Keep as KeepDual
from models.methods.dual_autoencoder.method import Joint as JointDual
from models.methods.dual_autoencoder.method import Pretrain, Spectral
from models.methods.graph_selflabel.method import Distil, SelfLabelling
from models.methods.graph_selflabel.method import Hold as HoldSelfLabel
from models.methods.precise_feature.fast import FastGame, Imitation
from models.methods.precise_feature.fast import Hold as HoldPrecise
from models.methods.precise_feature.method import Game
from models.parts.inputs import Inputs
from models.start.graph import GraphStart
from models.training.stage import ModelStage
from models.training.state import EpochState
from models.training.steps import EAGER_STEPS, StepRule, Steps, Totals
from tests.models.battery import images, make

X, KINDS = images(16)
LABELS = torch.from_numpy(KINDS)
Q = nn.functional.one_hot(LABELS, 3).float()
U = torch.ones(3)


def model_of(method: str, profile: str = "paper"):
    model = make(method, X, profile)
    if method == "adaptive-gmm":
        zeros = torch.zeros(3, model.config.n_features)
        model.network.take(torch.zeros(3), zeros, zeros)
    return model


def pairs_of(model):
    return model.pairs(X, Run(), 0.0)


STAGES: dict[str, Callable[[], ModelStage]] = {
    "dcae alternation": lambda: Alternation(model_of("dcae"), X, Run(), LABELS),
    "dcae hold": lambda: HoldDCAE(model_of("dcae", "fast"), X, Run(), LABELS),
    "depict reconstruction": lambda: Reconstruction(model_of("depict"), X, Run()),
    **{f"depict layer {n}": lambda n=n: Layer(model_of("depict"), X, Run(), n) for n in range(3)},
    "depict clustering": lambda: Clustering(model_of("depict"), X, Run(), Q, known={0: 1}, u=U),
    "self-label hold": lambda: hold_of_selflabel(),
    "self-label": lambda: SelfLabelling(hold_of_selflabel(), 1),
    "distil": lambda: Distil(SelfLabelling(hold_of_selflabel(), 1)),
    "depict hold": lambda: HoldDEPICT(model_of("depict", "fast"), X, Run(), Q, {}),
    "depict keep": lambda: Keep(model_of("depict", "fast"), X, Run(), Q, {}),
    **{f"rbm {n}": lambda n=n: RBM(model_of("adaptive-gmm"), X, Run(), n) for n in range(4)},
    "fine-tune": lambda: FineTune(model_of("adaptive-gmm"), X, Run()),
    "mixture joint": lambda: JointGMM(model_of("adaptive-gmm"), X, Run()),
    "mixture hold": lambda: HoldGMM(model_of("adaptive-gmm", "fast"), X, Run(), LABELS),
    "mixture fast joint": lambda: FastJoint(model_of("adaptive-gmm", "fast"), X, Run()),
    "dual pretrain": lambda: Pretrain(model_of("dual-autoencoder"), X, Run()),
    "dual hold": lambda: HoldDual(model_of("dual-autoencoder", "fast"), X, Run(), LABELS, LABELS > 0),
    "dual keep": lambda: KeepDual(model_of("dual-autoencoder", "fast"), X, Run(), LABELS, LABELS >= 0),
    "spectral": lambda: Spectral(model := model_of("dual-autoencoder"), X, Run(), pairs_of(model)),
    "dual joint": lambda: JointDual(model := model_of("dual-autoencoder"), X, Run(), pairs_of(model), LABELS),
    "dual fast joint": lambda: FastJointDual(
        model := model_of("dual-autoencoder", "fast"), X, Run(), pairs_of(model), LABELS
    ),
    "precise hold": lambda: HoldPrecise(model_of("precise-feature", "fast"), X, Run(), U, LABELS),
    "imitation": lambda: Imitation(model_of("precise-feature", "fast"), X, Run(), U, LABELS),
    **{f"game {n}": lambda n=n: a_turn(Game, "paper", n) for n in (0, 5, 9)},
    "fast game 5": lambda: a_turn(FastGame, "fast", 5),
}


def hold_of_selflabel() -> HoldSelfLabel:
    start = GraphStart(LABELS.numpy(), np.ones(len(X), np.float32), "raw", 1.0)
    return HoldSelfLabel(model_of("graph-selflabel", "fast"), X, Run(), start)


def a_turn(kind: type[Game], profile: str, n: int) -> Game:
    """The game at the critic's, the classifier's or the generator's turn."""
    game = kind(model_of("precise-feature", profile), X, Run(), U)
    game.n_turns = n
    return game


class NoCopies(TorchDispatchMode):
    """Refuses copies from host to device: a tensor of the CPU next to one of the meta device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            target = kwargs.get("device") or args[0].device
            source = args[-1] if func is torch.ops.aten.copy_.default else args[0]
            assert not (torch.device(target).type == "meta" and source.device.type == "cpu"), f"{func} from the host"
        return func(*args, **kwargs)


def to_meta(value):
    """A stage's tensors where no value can be read."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().to("meta"))
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: to_meta(each) for key, each in value.items()}
    if hasattr(value, "__dataclass_fields__") and not hasattr(value, "start"):
        return type(value)(**{name: to_meta(getattr(value, name)) for name in value.__dataclass_fields__})
    return value


@pytest.mark.parametrize("name", STAGES)
def test_no_step_reads_a_value_or_copies_from_the_host(name):
    stage = STAGES[name]()
    x, index = torch.from_numpy(X).to("meta"), torch.arange(len(X), device="meta")
    stage.module.to("meta")
    for key, value in vars(stage).items():
        if key not in ("model", "config", "inputs", "optimizer", "module"):
            setattr(stage, key, Run(device="meta") if key == "run" else to_meta(value))
    stage.inputs = MetaInputs()

    with NoCopies():
        terms = stage.loss(x, index)
        torch.stack([term.float() for term in terms.values()]).sum().backward()

    assert any(parameter.grad is not None for parameter in stage.module.parameters())


class MetaInputs:
    """Inputs that live on the device."""

    def __init__(self) -> None:
        self.resident = torch.from_numpy(X).to("meta")

    def rows(self, index: Tensor) -> Tensor:
        return self.resident[index]


def test_every_stage_of_the_library_is_among_them():

    def kinds_below(kind: type) -> set[type]:
        return {kind}.union(*(kinds_below(each) for each in kind.__subclasses__()))

    stages = {
        kind
        for kind in kinds_below(ModelStage)
        if kind.__module__.startswith("models.methods") and hasattr(kind, "loss") and not inspect.isabstract(kind)
        if "loss" in vars(kind) or not kind.__subclasses__()
    }
    tested = {type(make_stage()) for make_stage in STAGES.values()}

    assert {kind.__qualname__ for kind in stages - tested} <= {"TargetsStage", "PairStage"}


class Linear:
    """Pulls a weight towards a target that is state; the target moves with every epoch."""

    target = EpochState()

    def __init__(self, *, is_in_place: bool = True) -> None:
        self.run, self.state = Run(), {}
        self.inputs = Inputs(np.zeros((10, 1), np.float32), "cpu")
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.5)
        self.is_in_place = is_in_place
        self.target = torch.ones(1)

    def turn(self):
        return None

    def end_step(self) -> None:
        pass

    def move_target(self, value: float) -> None:
        if self.is_in_place:
            self.target = torch.full((1,), value)
        else:
            self.state["target"] = torch.full((1,), value)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {"distance": (self.module.weight - self.target).square().sum()}


class StandIn:
    """Like a CUDA graph: what is captured goes on reading and writing the memory that it saw then."""

    def __init__(self, stage: Linear) -> None:
        self.stage, self.n_recorded, self.n_warm = stage, 0, 0

    def warm_up(self, step, *, refuses_waits):
        self.n_warm += 1
        assert refuses_waits == (self.n_warm % EAGER_STEPS == 0)
        return step()

    def renew(self) -> None:
        self.n_renewed = getattr(self, "n_renewed", 0) + 1

    def record(self, step):
        self.n_recorded += 1
        weight, target, rate = self.stage.module.weight, self.stage.target, self.stage.optimizer.param_groups[0]["lr"]

        def replay() -> None:
            with torch.no_grad():
                weight.sub_(rate * 2 * (weight - target))

        return replay


def train_two_epochs(stage: Linear, recorder: StandIn | None) -> float:
    totals = Totals("cpu")
    steps = Steps(stage, StepRule(), totals, recorder)
    for target in (1.0, 5.0):
        stage.move_target(target)
        steps.begin_epoch()
        for _ in range(6):
            steps.run(torch.zeros(10, 1), torch.arange(10))
        steps.end_epoch()
    return stage.module.weight.item()


def test_a_captured_step_reads_state_that_is_written_in_place():
    stage = Linear()
    recorder = StandIn(stage)

    assert train_two_epochs(stage, recorder) == train_two_epochs(Linear(), None) == 5.0
    assert (recorder.n_warm, recorder.n_recorded) == (EAGER_STEPS, 1)


def test_state_that_moved_is_captured_anew():
    stage = Linear(is_in_place=False)
    recorder = StandIn(stage)

    assert train_two_epochs(stage, recorder) == 5.0
    assert recorder.n_recorded == 2


def test_optimizer_slots_that_moved_are_captured_anew():
    stage = Linear()
    stage.optimizer = torch.optim.SGD(stage.module.parameters(), lr=0.5, momentum=0.9)
    steps = Steps(stage, StepRule(), Totals("cpu"), recorder := StandIn(stage))
    for _ in range(2):
        steps.begin_epoch()
        for _ in range(5):
            steps.run(torch.zeros(10, 1), torch.arange(10))
        steps.end_epoch()
        stage.optimizer.load_state_dict(copy.deepcopy(stage.optimizer.state_dict()))  # as a retry does

    steps.begin_epoch()
    for _ in range(EAGER_STEPS + 1):
        steps.run(torch.zeros(10, 1), torch.arange(10))

    assert recorder.n_recorded == 3


def test_an_optimizer_that_lost_its_slots_makes_new_ones_in_eager_steps():
    """A captured step would make them anew at every replay: a retry in the first epoch goes back to none at all."""
    stage = Linear()
    stage.optimizer = torch.optim.SGD(stage.module.parameters(), lr=0.5, momentum=0.9)
    without_slots = copy.deepcopy(stage.optimizer.state_dict())
    steps = Steps(stage, StepRule(), Totals("cpu"), recorder := StandIn(stage))
    for _ in range(2):
        steps.begin_epoch()
        for _ in range(EAGER_STEPS + 1):
            steps.run(torch.zeros(10, 1), torch.arange(10))
        stage.optimizer.load_state_dict(without_slots)  # before the epoch's end

    assert (recorder.n_warm, recorder.n_recorded) == (2 * EAGER_STEPS, 2)


def test_a_short_last_batch_is_a_kind_of_its_own():
    stage = Linear()
    steps = Steps(stage, StepRule(), Totals("cpu"), recorder := StandIn(stage))
    for _ in range(6):
        steps.run(torch.zeros(10, 1), torch.arange(10))
    for _ in range(6):
        steps.run(torch.zeros(3, 1), torch.arange(3))

    assert (recorder.n_warm, recorder.n_recorded) == (2 * EAGER_STEPS, 2)


def test_a_step_that_cannot_be_captured_is_run_eagerly_and_says_why():
    stage = Linear()

    class Refusing(StandIn):
        def record(self, step):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    steps = Steps(stage, StepRule(), Totals("cpu"), Refusing(stage))
    for _ in range(6):
        steps.run(torch.zeros(10, 1), torch.arange(10))

    assert steps.refusal == "operation not permitted when stream is capturing"
    assert stage.module.weight.item() == 1.0


def test_losses_are_added_up_by_name_and_what_is_not_finite_is_found():
    totals = Totals("cpu")
    for values in ([1.0, 2.0], [3.0, 5.0]):
        totals.add(("a", "b"), torch.tensor(values), torch.tensor(sum(values)))
        totals.count(("a", "b"))
    totals.add(("a",), torch.tensor([8.0]), torch.tensor(8.0))
    totals.count(("a",))

    assert totals.means() == {"a": 4.0, "b": 3.5}
    assert totals.latest() == {"a": 8.0}
    totals.check()
    totals.add(("a",), torch.tensor([torch.nan]), torch.tensor(torch.nan))
    with pytest.raises(FloatingPointError):
        totals.check()
    totals.reset()
    totals.check()
    assert totals.means() == {}
