"""What every clustering method is: fit, assign, predict, embed, save, load.

A method supplies a `Network` (how an input becomes an embedding, and an embedding probabilities of K
clusters) and `_fit`, which finds its parameters. All else is inherited. Nothing here logs or prints.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import checkpoint, registry
from models.configs import ClusteringConfig
from models.errors import BadCheckpoint, BadImages, TooFewDistinctImages
from models.parts.inputs import MEMORY_SHARE, Inputs
from models.pixels import InputSpec
from models.rows import count_distinct, row_keys
from models.worth.calibration import Calibration

BATCH = 256


@dataclass(frozen=True)
class StepState:
    """How far a fit is.

    `progress` is of the whole fit, 0...1; `label_change` the share of images that moved; `is_epoch` marks the one
    report that closes an epoch (or the start, as step 0), with the epoch's mean losses. `event` names something that
    a person should know of, such as `checkpoint_skipped`.
    """

    phase: str
    progress: float
    step: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)
    label_change: float | None = None
    cluster_sizes: list[int] | None = None
    assignments: NDArray[np.int64] | None = None
    is_epoch: bool = False
    event: str | None = None


def start_state(
    phase: str, progress: float, labels: NDArray[np.int64], n_clusters: int, facts: Mapping[str, float] | None = None
) -> StepState:
    """The report of the partition (N,) that a fit goes on from: what comes of it is judged against it."""
    sizes = np.bincount(labels, minlength=n_clusters).tolist()
    return StepState(phase, progress, losses=facts or {}, cluster_sizes=sizes, assignments=labels, is_epoch=True)


Known = Mapping[int, int]  # image index -> target
OnStep = Callable[[StepState], None]


def ignore(_: StepState) -> None:
    """An `on_step` that does nothing."""


@dataclass(frozen=True)
class Run:
    """Circumstances of one fit, none of which is a hyperparameter.

    `on_step` may raise `Cancelled`. `batch_scale` shrinks batches after an out-of-memory error. Inputs are kept on a
    GPU if they take at most `memory_share` of its free memory. `checkpoints` keeps and finds the state to resume from
    (None: no resume); `starts` the neighbour-graph starts of the dataset (None: each fit computes its own).
    """

    seed: int = 0
    device: str = "cpu"
    on_step: OnStep = ignore
    batch_scale: float = 1.0
    memory_share: float = MEMORY_SHARE
    checkpoints: checkpoint.Checkpoints | None = None
    starts: checkpoint.Starts | None = None

    def generator(self, *names: str | int, device: str = "cpu") -> torch.Generator:
        """A generator of its own for each purpose, so that one draw more here changes nothing there."""
        seed = np.random.SeedSequence([self.seed, *(_number(name) for name in names)]).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(seed >> np.uint64(1)))


class Network(nn.Module, ABC):
    """Inputs in float32 (images scaled to 0...1) -> embedding (B, D) -> probabilities (B, K)."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) or (B, D_in) -> (B, D)."""

    @abstractmethod
    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K), rows summing to 1."""


class ServingGraph(nn.Module):
    """What a model file holds: stored inputs in, probabilities and outlier flags out.

    An image is an outlier when it lies farther from its cluster's center, in the embedding, than 99 % of
    the cluster's training images.
    """

    centers: Tensor  # (K, D)
    radii: Tensor  # (K,)

    def __init__(self, network: Network, is_image: bool) -> None:
        super().__init__()
        self.network = network
        self.is_image = is_image
        self.register_buffer("centers", torch.zeros(0))
        self.register_buffer("radii", torch.zeros(0))

    def scale(self, inputs: Tensor) -> Tensor:
        """Stored inputs (uint8 images or float32 vectors) as the network takes them."""
        return inputs.float() / 255 if self.is_image else inputs

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> probabilities (B, K), is_outlier (B,), embedding (B, D), distance to the cluster's center in it (B,)."""
        z = self.network.embed(self.scale(inputs))
        p = self.network.assign(z)
        cluster = p.argmax(dim=1)
        distance = (z - self.centers[cluster]).square().sum(dim=1).sqrt()
        return p, distance > self.radii[cluster], z, distance


class Clusterer(ABC):
    """A clustering method with one config over one kind of input."""

    name: ClassVar[str]
    profile: str = "paper"
    distances: NDArray[np.float32]  # (N,) of every fitted image to its cluster's center in the embedding
    calibration: Calibration  # of these distances; what confidence is worth is found by `models.worth.stability`

    def __init__(self, config: Any, spec: InputSpec) -> None:
        self.config: ClusteringConfig = config
        self.spec = spec
        self.known: dict[int, int] = {}
        self.warnings: list[tuple[str, str]] = []  # of the last fit: a stable code and a sentence
        self._inputs: Inputs | None = None  # while a fit lasts
        self.serving_graph = self._new_serving_graph(seed=0)

    @property
    def network(self) -> Any:
        """The method's own network."""
        return self.serving_graph.network

    @abstractmethod
    def build(self) -> Network:
        """The network for this config and input, parameters not yet found."""

    @abstractmethod
    def _fit(self, x: NDArray[Any], run: Run) -> None:
        """Find the network's parameters from stored inputs (N, ...). Sees no targets."""

    def fit(self, x: NDArray[Any], run: Run | None = None, known: Known | None = None) -> Self:
        """Cluster images uint8 (N, C, S, S) or vectors float32 (N, D).

        Args:
            x: stored inputs.
            run: circumstances of this fit.
            known: targets of some images, for a method that can be told them; no other target may come in here.

        Raises:
            BadImages: wrong shape or type, not finite, or fewer than K.
            TooFewDistinctImages: fewer than K of them differ.
            UnknownTargets: `known` does not fit the method, the images or K.
            Diverged, Collapsed, OutOfMemory, Cancelled: see `models.errors`.
        """
        run = run or Run()
        self.warnings = []
        self._check(x)
        self.known = dict(known or {})
        if self.known:
            registry.get(self.name).check_known(self.known, len(x), self.config.n_clusters)
        self.serving_graph = self._new_serving_graph(run.generator("network").initial_seed())
        self._fit(x, run)
        self.serving_graph.requires_grad_(False).eval().to(run.device)
        run.on_step(StepState("summarise", 0.98))
        self._summarise(x, run)
        self.serving_graph.to("cpu")
        self._inputs = None
        return self

    def inputs_of(self, x: NDArray[Any], run: Run) -> Inputs:
        """Stored inputs (N, ...) on the device of a fit; they are copied there once for all its stages."""
        if self._inputs is None or self._inputs.array is not x:
            self._inputs = Inputs(x, run.device, run.memory_share)
        return self._inputs

    def assign(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Probability of each cluster: stored inputs (N, ...) -> (N, K)."""
        return np.concatenate([self.network.assign(z).float().cpu().numpy() for z in self._embeddings(x)])

    def predict(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """The likeliest cluster of each input: (N, ...) -> (N,)."""
        return np.concatenate([self.network.assign(z).argmax(dim=1).cpu().numpy() for z in self._embeddings(x)])

    def embed(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """(N, ...) -> (N, D)."""
        return np.concatenate([z.cpu().numpy() for z in self._embeddings(x)])

    def reconstruct(self, _x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """What the model makes of images it has encoded: (N, C, S, S) -> the same, None where it cannot."""
        return None

    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:  # noqa: ARG002 - for those who can
        """At most n images the model itself makes of each cluster: -> (K, n, C, S, S), None where it makes none."""
        return None

    def save(self, folder: Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write `model.safetensors` and then `model.json`, without which the folder holds no model.

        Args:
            folder: may hold other files already; `model.json` lists the SHA-256 of each.
            facts: what else `model.json` tells, such as seed and data set.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self.serving_graph.state_dict().items()}
        own = {
            "method": self.name,
            "profile": self.profile,
            "config": asdict(self.config),
            "input": asdict(self.spec),
        }
        checkpoint.save(folder, "model", tensors, {**own, **(facts or {})}, lists_files=True)

    @classmethod
    def load(cls, folder: Path, config_class: type[ClusteringConfig]) -> Self:
        """A fitted model of this method from its folder; `models.registry.load_model` finds the method as well.

        Raises:
            BadCheckpoint: incomplete, altered, of another method, or with other tensors than the network has.
        """
        tensors, facts = checkpoint.load(folder, "model")
        if facts.get("method") != cls.name:
            raise BadCheckpoint(f"the folder holds a model of {facts.get('method')!r}")
        model = cls(config_class(**facts["config"]), InputSpec(**facts["input"]))
        model.profile = facts["profile"]
        for name in ("centers", "radii"):  # how many there are is the file's to say
            setattr(model.serving_graph, name, torch.empty_like(tensors.get(name, torch.empty(0))))
        try:
            model.serving_graph.load_state_dict(tensors)
        except RuntimeError as error:
            raise BadCheckpoint("the parameters are not those of the network that the config describes") from error
        model.serving_graph.requires_grad_(False).eval()
        return model

    def _new_serving_graph(self, seed: int) -> ServingGraph:
        """The network with seeded weights; torch's own generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ServingGraph(self.build(), self.spec.kind == "images")

    @contextmanager
    def on(self, device: str) -> Iterator[None]:
        """Have the network on a device for a while; what it is asked is computed there."""
        self.serving_graph.to(device)
        try:
            yield
        finally:
            self.serving_graph.to("cpu")

    @torch.no_grad()
    def _embeddings(self, x: NDArray[Any]) -> Iterator[Tensor]:
        """Embeddings (B, D) of stored inputs, block by block, on the device that the network is on."""
        self.serving_graph.eval()
        inputs = self._inputs
        if inputs is None or inputs.array is not x:
            inputs = Inputs(x, str(self.serving_graph.centers.device), memory_share=0)
        for start in range(0, len(x), BATCH):
            yield self.network.embed(self.serving_graph.scale(inputs.slice(start, start + BATCH)))

    def _check(self, x: NDArray[Any]) -> None:
        dtype = np.uint8 if self.spec.kind == "images" else np.float32
        if x.shape[1:] != self.spec.shape or x.dtype != dtype:
            raise BadImages(f"inputs are {np.dtype(dtype)} (N, {self.spec.shape}), not {x.dtype} {x.shape}")
        if len(x) < self.config.n_clusters:
            raise BadImages(f"{len(x)} inputs cannot form {self.config.n_clusters} clusters")
        if dtype is np.float32 and not all(np.isfinite(x[i : i + BATCH]).all() for i in range(0, len(x), BATCH)):
            raise BadImages("the vectors hold NaN or infinite values")
        n_distinct = count_distinct(row_keys(x))
        if n_distinct < self.config.n_clusters:
            raise TooFewDistinctImages(n_distinct, self.config.n_clusters, self.spec.kind)

    @torch.no_grad()
    def _summarise(self, x: NDArray[Any], run: Run) -> None:
        """Centers and radii of the clusters in the embedding, for outliers."""
        k, device = self.config.n_clusters, run.device
        cluster = torch.from_numpy(self.predict(x)).to(device)
        sums: Tensor | None = None
        n_done = 0
        for z in self._embeddings(x):
            sums = torch.zeros(k, z.shape[1], dtype=torch.float64, device=device) if sums is None else sums
            sums.index_add_(0, cluster[n_done : n_done + len(z)], z.double())
            n_done += len(z)
        assert sums is not None
        sizes = torch.bincount(cluster, minlength=k)
        self.serving_graph.centers = (sums / sizes.clamp(min=1).unsqueeze(1)).float()
        distances, n_done = [], 0
        for z in self._embeddings(x):
            to_own = z - self.serving_graph.centers[cluster[n_done : n_done + len(z)]]
            distances.append(to_own.square().sum(dim=1).sqrt().float())
            n_done += len(z)
        self.distances = torch.cat(distances).cpu().numpy()
        self.calibration = Calibration.of_distances(self.distances, cluster.cpu().numpy(), k)
        self.serving_graph.radii = torch.from_numpy(self.calibration.radii())


def _number(name: str | int) -> int:
    return name if isinstance(name, int) else int.from_bytes(name.encode(), "little") % 2**63
