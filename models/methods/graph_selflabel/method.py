"""`graph-selflabel`, our own: a network learns the neighbour graph's partition, and then corrects it.

    start ──▶ hold ─────────────────▶ self-label ─────────────────▶ distil ──▶ serve
    graph     what the start is       what the network is sure of   all images
              sure of                 itself, round after round

The start knows which images lie near each other. A network that sees images moved and turned learns what does not
matter in one. Trained on the images that the start is sure of, it answers for those between two clusters by what it
learned of the others. Where it is sure, its answer becomes the label. Where it is not, the start's label stays. It also
stays where many images would go from one cluster to another together: that moves a border, and corrects nothing
(`models.training.corrections`). Rounds end when labels settle, or when they do not: one that changes about as much as
the one before corrects nothing any more.

The network that answers is the teacher, a running mean of the one that is trained. Ideas are from: pseudo-labels (Lee,
2013), mean teachers (Tarvainen & Valpola, 2017), self-labelling after another clustering (Van Gansbeke et al., *SCAN*,
2020).
"""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.base import Clusterer, Network, Run
from models.methods.graph_selflabel.network import SelfLabelNetwork
from models.methods.graph_selflabel.spec import GraphSelfLabelConfig
from models.parts.known import match_known
from models.parts.losses import weighted_mean
from models.start.graph import GraphStart, graph_start
from models.start.sure import sure_rows
from models.training.corrections import CorrectionRule, corrected
from models.training.fast import PartitionStage
from models.training.stage import ModelStage, refuse_collapse
from models.training.state import EpochState
from models.training.trainer import Schedule, epochs_of, train

START_SPAN, HOLD_SPAN, LABEL_SPAN, DISTIL_SPAN = (0.0, 0.35), (0.35, 0.5), (0.5, 0.8), (0.8, 0.97)
N_FIRST_STEPS = 10  # about as many, weights as they were drawn count in the teacher
SETTLED = 0.001  # share of the images; a round that changes fewer labels is the last


class GraphSelfLabel(Clusterer):
    """See the module."""

    name = "graph-selflabel"
    config: GraphSelfLabelConfig

    def build(self) -> Network:
        """See `SelfLabelNetwork`."""
        return SelfLabelNetwork(self.spec.channels, self.spec.side, self.config.n_clusters)

    def _fit(self, x: NDArray[np.uint8], run: Run) -> None:
        config = self.config
        start = graph_start(x, self.spec, config, run, START_SPAN)
        hold = Hold(self, x, run, start)
        train(hold, self._schedule("hold", len(x), config.n_hold_steps, HOLD_SPAN))
        a_round = self._schedule("self-label", len(x), config.n_round_steps, LABEL_SPAN)
        rounds = SelfLabelling(hold, a_round.n_epochs)
        if config.n_rounds:
            train(rounds, replace(a_round, n_epochs=config.n_rounds * a_round.n_epochs))
        distil = Distil(rounds)
        train(distil, replace(self._schedule("distil", len(x), config.n_distil_steps, DISTIL_SPAN), is_annealed=True))

    def _schedule(self, phase: str, n: int, n_steps: int, span: tuple[float, float]) -> Schedule:
        return Schedule(phase, epochs_of(n_steps, n, self.config.batch_size), self.config.batch_size, span)


class Pair(nn.Module):
    """The network that is trained, and the one that answers: a running mean of it."""

    def __init__(self, teacher: SelfLabelNetwork) -> None:
        super().__init__()
        self.teacher, self.student = teacher, copy.deepcopy(teacher)
        self.teacher.requires_grad_(False)

    def follow(self, decay: float) -> None:
        """Move the teacher toward the student; `decay` is the share of it that stays.

        `AveragedModel` of torch would do it, but it reads its count on the host at every step.
        """
        get_ema_multi_avg_fn(decay)(_figures(self.teacher), _figures(self.student), None)  # type: ignore[no-untyped-call]

    def embed(self, x: Tensor) -> Tensor:
        """As the teacher does."""
        return self.teacher.embed(x)

    def assign(self, z: Tensor) -> Tensor:
        """As the teacher does."""
        return self.teacher.assign(z)


def _figures(network: nn.Module) -> list[Tensor]:
    """Parameters and batch norm's figures, without its counters."""
    return [value for value in (*network.parameters(), *network.buffers()) if value.is_floating_point()]


class PairStage(ModelStage):
    """Cross-entropy with labels, of which some teach: those of images with a known target always, and as it says."""

    rule: CorrectionRule
    labels = EpochState()  # (N,)
    teaches = EpochState()  # (N,) 0 or 1

    def __init__(self, model: Clusterer, x: NDArray[Any], run: Run, pair: Pair) -> None:
        super().__init__(model, x, run)
        self.module = pair.to(run.device)
        self.optimizer = self.adam(pair.student.parameters(), self.config.learning_rate)

    def teach(self, labels: Tensor, is_sure: Tensor) -> None:
        """Take labels (N,) for what follows, and which of them are sure enough to teach (N,)."""
        rows, clusters = self.rule.known_on(labels.device)
        labels[rows], is_sure[rows] = clusters, True
        self.labels, self.teaches = labels, is_sure.float()

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        student, smoothing = self.module.student, self.config.label_smoothing
        logits = student.logits(student.features_of(self.augment(student.shrink(self.scale(x)))))
        errors = F.cross_entropy(logits, self.labels[index], reduction="none", label_smoothing=smoothing)
        return {"labels": weighted_mean(errors, self.teaches[index])}

    def end_step(self) -> None:
        """The teacher follows."""
        self.module.follow(self.config.teacher_decay)

    def answers(self) -> tuple[Tensor, Tensor]:
        """The teacher's cluster of every image (N,), and its probability (N,)."""
        likeliest = [self.module.assign(z).max(dim=1) for z in self.blocks_of_codes()]
        return torch.cat([each.indices for each in likeliest]), torch.cat([each.values for each in likeliest])


class Hold(PairStage, PartitionStage):
    """Learns the start's partition from the images that the start is sure of."""

    def __init__(self, model: GraphSelfLabel, x: NDArray[Any], run: Run, start: GraphStart) -> None:
        super().__init__(model, x, run, Pair(model.network))
        known = match_known(start.labels, model.known, self.n_clusters)
        self.rule = CorrectionRule(self.n_clusters, self.config.max_flow, known)
        self.start = torch.from_numpy(start.labels)
        is_sure = sure_rows(self.start, torch.from_numpy(start.confidence), self.config.min_confidence)
        self.teach(self.start.clone(), is_sure)
        self.partition = self.labels.clone()
        self.n_batches = math.ceil(len(x) / max(1, round(self.config.batch_size * run.batch_scale)))

    def start_epoch(self, epoch: int) -> None:
        """Count the steps that were made before."""
        self.n_steps = epoch * self.n_batches

    def end_step(self) -> None:
        """The teacher is a plain mean at first, so that weights as they were drawn do not linger in it."""
        self.n_steps += 1
        self.module.follow(min(self.config.teacher_decay, self.n_steps / (self.n_steps + N_FIRST_STEPS)))

    def predict_all(self) -> Tensor:
        return self.answers()[0]

    def rows_that_count(self) -> Tensor:
        return self.teaches > 0


class SelfLabelling(PairStage):
    """What the teacher is sure of becomes what the student learns, round after round."""

    moved = EpochState()  # (2,) shares of the images whose label the last round changed, and the one before it

    def __init__(self, hold: Hold, epochs_a_round: int) -> None:
        """Begin from what the network has learned of the start."""
        super().__init__(hold.model, hold.inputs.array, hold.run, hold.module)
        self.rule, self.start = hold.rule, hold.start.to(hold.run.device)
        self.epochs_a_round = epochs_a_round
        self.moved = torch.tensor([1.0, math.inf])
        self.relabel()

    def relabel(self) -> Tensor:
        """Take the teacher's answers where it is sure and corrects single images; -> the answers (N,)."""
        answers, confidence = self.answers()
        least = self.config.min_confidence
        labels = corrected(self.start, answers, confidence >= least, self.rule)
        self.teach(labels, sure_rows(answers, confidence, least))
        return answers

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        """The labels; at the end of a round all images are assigned anew."""
        if (epoch + 1) % self.epochs_a_round == 0:
            before = self.labels.clone()
            refuse_collapse(self.relabel(), self.n_clusters)
            self.moved = torch.stack([(self.labels != before).float().mean(), self.moved[0]])
        return self.labels.to("cpu", copy=True).numpy()

    def is_over(self) -> bool:
        """Once labels settle, or stop settling."""
        last, before = self.moved.tolist()
        return bool(last < SETTLED or last > self.config.settling * before)


class Distil(PairStage):
    """Learns the last labels, from every image as it is."""

    def __init__(self, rounds: SelfLabelling) -> None:
        super().__init__(rounds.model, rounds.inputs.array, rounds.run, rounds.module)
        self.rule = rounds.rule
        self.teach(rounds.labels.clone(), torch.ones_like(rounds.labels, dtype=torch.bool))

    def augment(self, x: Tensor) -> Tensor:
        """Images are not moved: these are the ones to answer for."""
        return x

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Assign all images."""
        labels = self.labels_now()
        refuse_collapse(labels, self.n_clusters)
        return labels.to("cpu", copy=True).numpy()
