"""Every stage of the deep methods, ready to train, and its steps a second by the trainer and by hand.

A stage is built without a graph start: image i belongs to cluster i % K.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from benchmarks.loops import HandLoop, time_trainer
from models import registry
from models.base import Run
from models.methods.adaptive_gmm import method as adaptive_gmm
from models.methods.dcae import method as dcae
from models.methods.depict import fast as depict_fast
from models.methods.depict import method as depict
from models.methods.dual_autoencoder import method as dual
from models.methods.graph_selflabel import method as selflabel
from models.methods.precise_feature import fast as precise_fast
from models.methods.precise_feature import method as precise
from models.parts.encoders import xavier
from models.pixels import InputSpec
from models.start.graph import GraphStart
from models.training.trainer import Schedule

Images = NDArray[np.uint8]  # (N, C, S, S)
LOW_RATE = 1e-3  # of a stage's own rate: from random weights an RBM diverges at that, and speed is the same
N_EPOCHS = 2  # of the trainer; the first is not counted


class Setting:
    """One method on some images: its model, its fast recipe, and a partition that took no computing."""

    def __init__(self, case: "Case", x: Images, run: Run, config: Any) -> None:
        self.x, self.run, self.config = x, run, config
        self.spec = registry.get(case.method)
        self.model = self.spec.load()(config, InputSpec("images", side=x.shape[-1], channels=x.shape[1]))
        self.labels = np.arange(len(x)) % config.n_clusters
        self.partition = torch.from_numpy(self.labels).to(run.device)

    @property
    def start(self) -> GraphStart:
        """The partition as a start that is sure of every image."""
        return GraphStart(self.labels, np.ones(len(self.x), np.float32), "raw", 1.0)

    @cached_property
    def recipe(self) -> Any:
        """The fast recipe, its network ready to learn a partition."""
        recipe = self.spec.load_fast()(self.model, self.x, self.run)
        recipe.prepare()
        return recipe

    def hold(self) -> Any:
        """The recipe's stage that learns the partition."""
        return self.recipe.hold(self.start)

    def clustering(self) -> Any:
        """The recipe's clustering stage; the partition was not learned before."""
        return self.recipe.clustering(self.hold())


@dataclass(frozen=True)
class Case:
    """One stage of a method's profile.

    `batch` names the config field with its batch size. `is_halved`: it runs in bfloat16 where the config asks for that.
    """

    method: str
    profile: str
    stage: str
    build: Callable[[Setting], Any]
    batch: str = "batch_size"
    is_halved: bool = False

    @property
    def name(self) -> str:
        """As the benchmark's lines call it."""
        return f"{self.method} {self.profile} {self.stage}"


def _alternation(setting: Setting) -> Any:
    xavier(setting.model.network, setting.run.generator("benchmark"))
    return dcae.Alternation(setting.model, setting.x, setting.run, None)


def _depict_clustering(setting: Setting) -> Any:
    k = setting.config.n_clusters
    q = F.one_hot(torch.from_numpy(setting.labels), k).float()
    return depict.Clustering(setting.model, setting.x, setting.run, q, known={}, u=torch.ones(k))


def _keep(setting: Setting) -> Any:
    q = F.one_hot(torch.from_numpy(setting.labels), setting.config.n_clusters).float()
    return depict_fast.Keep(setting.model, setting.x, setting.run, q, {})


def _layer(number: int) -> Callable[[Setting], Any]:
    return lambda s: depict.Layer(s.model, s.x, s.run, number)


def _rbm(number: int) -> Callable[[Setting], Any]:
    return lambda s: adaptive_gmm.RBM(s.model, s.x, s.run, number)


def _gmm_joint(setting: Setting) -> Any:
    """From random weights and the anchors of the fast recipe as means."""
    setting.hold()
    return adaptive_gmm.Joint(setting.model, setting.x, setting.run)


def _spectral(setting: Setting) -> Any:
    pairs = setting.model.pairs(setting.x, setting.run, 0.0)
    return dual.Spectral(setting.model, setting.x, setting.run, pairs)


def _dual_joint(setting: Setting) -> Any:
    pairs = setting.model.pairs(setting.x, setting.run, 0.0)
    return dual.Joint(setting.model, setting.x, setting.run, pairs, setting.partition)


def _game(setting: Setting) -> Any:
    return precise.Game(setting.model, setting.x, setting.run, torch.ones(setting.config.n_clusters))


def _imitation(setting: Setting) -> Any:
    prior = torch.ones(setting.config.n_clusters)
    return precise_fast.Imitation(setting.model, setting.x, setting.run, prior, setting.partition)


def _fast_game(setting: Setting) -> Any:
    return precise_fast.FastGame(setting.model, setting.x, setting.run, torch.ones(setting.config.n_clusters))


def _selflabel_hold(setting: Setting) -> selflabel.Hold:
    return selflabel.Hold(setting.model, setting.x, setting.run, setting.start)


def _selflabel_rounds(setting: Setting) -> selflabel.SelfLabelling:
    """In one round that does not end; weights as drawn would give all images one cluster. `Distil` takes such steps."""
    return selflabel.SelfLabelling(_selflabel_hold(setting), N_EPOCHS + 1)


CASES = (
    Case("graph-selflabel", "fast", "Hold", _selflabel_hold),
    Case("graph-selflabel", "fast", "SelfLabelling", _selflabel_rounds),
    Case("depict", "fast", "Hold", Setting.hold, is_halved=True),
    Case("depict", "fast", "Clustering", Setting.clustering, is_halved=True),
    Case("depict", "fast", "Keep", _keep, is_halved=True),
    Case("depict", "paper", "Reconstruction", lambda s: depict.Reconstruction(s.model, s.x, s.run)),
    Case("depict", "paper", "Clustering", _depict_clustering),
    Case("dcae", "fast", "Hold", Setting.hold),
    Case("dcae", "fast", "Alternation", Setting.clustering),
    Case("dcae", "paper", "Alternation", _alternation),
    Case("adaptive-gmm", "fast", "Hold", Setting.hold, is_halved=True),
    Case("adaptive-gmm", "fast", "FastJoint", Setting.clustering),
    Case("dual-autoencoder", "fast", "Hold", Setting.hold, "pretrain_batch_size"),
    Case("dual-autoencoder", "fast", "FastJoint", Setting.clustering, "anchors"),
    Case("precise-feature", "fast", "Hold", Setting.hold),
    Case("precise-feature", "fast", "Imitation", _imitation),
    Case("precise-feature", "fast", "FastGame", _fast_game),
    *(Case("adaptive-gmm", "paper", f"RBM {n + 1}", _rbm(n), "pretrain_batch_size") for n in range(4)),
    Case(
        "adaptive-gmm", "paper", "FineTune", lambda s: adaptive_gmm.FineTune(s.model, s.x, s.run), "pretrain_batch_size"
    ),
    Case("adaptive-gmm", "paper", "Joint", _gmm_joint),
    Case("dual-autoencoder", "paper", "Pretrain", lambda s: dual.Pretrain(s.model, s.x, s.run), "pretrain_batch_size"),
    Case("dual-autoencoder", "paper", "Spectral", _spectral, "anchors"),
    Case("dual-autoencoder", "paper", "Joint", _dual_joint, "anchors"),
    Case("precise-feature", "paper", "Game", _game),
    *(Case("depict", "paper", f"Layer {n + 1}", _layer(n)) for n in range(3)),
)


def measure(case: Case, x: Images, n_clusters: int, device: str, batch_size: int | None = None) -> dict[str, Any]:
    """Steps a second of the trainer and by hand on images (N, ...); `batch_size` replaces the profile's."""
    values = {name: batch_size for name in ("batch_size", "pretrain_batch_size") if batch_size}
    spec = registry.get(case.method)
    fields = {name: value for name, value in values.items() if hasattr(spec.config, name)}
    config: Any = spec.make_config(case.profile, {"n_clusters": n_clusters, **fields})
    size = dual.anchors_of(config, len(x)) if case.batch == "anchors" else getattr(config, case.batch)
    x = x[: len(x) // size * size]  # no short batch, which no graph takes
    use_bfloat16 = case.is_halved and config.use_bfloat16
    n_steps = len(x) // size

    def built() -> Any:
        torch.manual_seed(0)
        stage = case.build(Setting(case, x, Run(device=device), config))
        for group in stage.optimizer.param_groups:
            group["lr"] = group["lr"] * LOW_RATE
        return stage

    ours_s, end_s = time_trainer(built(), Schedule(case.stage, N_EPOCHS, size, use_bfloat16=use_bfloat16))
    ours = {
        "batch_size": size,
        "steps": n_steps,
        "ours_per_s": round(n_steps / ours_s, 1),
        "end_epoch_s": round(end_s, 3),
    }
    try:
        loop = HandLoop(built(), size, use_bfloat16)
        hand_s = loop.time_epoch()
    except RuntimeError as error:  # the other figure still counts
        return {**ours, "error": f"by hand: {error}"[:500]}
    return {
        **ours,
        "hand_per_s": round(n_steps / hand_s, 1),
        "ours_over_hand": round(hand_s / ours_s, 3),
        "hand": "CUDA graph" if loop.graphs else "eager",
        **({"not_captured": loop.obstacle} if loop.obstacle else {}),
    }
