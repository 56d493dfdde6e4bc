"""The neighbour-graph start: a partition of all images before any network is trained, which every method can take up.

Images -> a view of them -> nearest neighbours -> UMAP layouts -> Gaussian mixtures -> one partition -> the same seen
by a second view. What decides:

* The view is judged without targets: on at most 10,000 rows, by the modularity of its own partition on its own
  neighbour graph. Gradients (`hog`) are taken unless another view is clearly better, by more than `VIEW_MARGIN`.
* Several layouts, each from a seed of its own, and several mixtures on each. The best mixture of every layout is then
  polished on all the others: the partition whose likelihood, summed over the layouts, is highest wins. A partition
  that only one layout favours does not. Each image takes the cluster its layouts are surest of.
* Where views were judged, one mixture of each layout and a layout of a second view, independent within a cluster, goes
  on from that partition: gradients do not see how bright a surface is, pixels do. It is not sought anew: from other
  beginnings Fashion-MNIST has partitions likelier under both views, and worse.

Steps run in processes of their own, one thread each, so a seed gives one start on any number of cores.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run, StepState, start_state
from models.configs import GraphStartConfig
from models.errors import BadImages
from models.pixels import InputSpec
from models.start import neighbours
from models.start.neighbours import Labels, Mixture, Neighbours
from models.start.processes import INLINE_UNTIL, Workshop
from models.start.views import VIEWS, look

RULE_VERSION = 4  # raised with everything that changes a start, the libraries it uses included
VIEW_MARGIN = 0.02  # Fashion-MNIST: contrast .811, HOG .799, and HOG's partition is the better one
N_COMPONENTS = 10
MIN_NEIGHBOURS, MAX_NEIGHBOURS = 5, 20
JUDGED_ROWS, JUDGED_INITS = 10_000, 3
MAX_RESPONSIBILITIES = 125_000_000  # N * K; a process of a mixture holds about three gigabytes at that
MAPPED_ROWS = 200  # a neighbour graph says little of fewer


@dataclass(frozen=True)
class GraphStart:
    """A partition to start from.

    `labels` (N,), `confidence` (N,) in 0...1; `agreement` is the mean share of images on which two layouts agree;
    `modularity` that of each judged view.
    """

    labels: Labels
    confidence: NDArray[np.float32]
    view: str
    agreement: float
    modularity: Mapping[str, float] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """What a cache keeps, with `facts`."""
        return {"labels": torch.from_numpy(self.labels), "confidence": torch.from_numpy(self.confidence)}

    def facts(self) -> dict[str, Any]:
        """See `tensors`."""
        return {"view": self.view, "agreement": self.agreement, "modularity": dict(self.modularity)}


def start_key(spec: InputSpec, config: GraphStartConfig, seed: int, device: str) -> str:
    """A name for everything that decides a start on one dataset: rule, input, config, seed and type of device."""
    names = ("n_clusters", "view", "n_neighbors", "n_starts", "n_init")
    chosen = {name: getattr(config, name) for name in names}
    text = json.dumps([RULE_VERSION, asdict(spec), chosen, seed, torch.device(device).type], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def graph_start(
    x: NDArray[Any], spec: InputSpec, config: GraphStartConfig, run: Run, span: tuple[float, float]
) -> GraphStart:
    """A partition of stored inputs (N, ...) into K, found or taken from `run.starts`; sees no targets.

    `span` is the part of the fit's progress it takes.

    Raises:
        BadImages: so many images and clusters that a mixture of them would not fit into memory.
        Cancelled: by `run.on_step`.
    """
    key = start_key(spec, config, run.seed, run.device)
    found = run.starts.find(key) if run.starts is not None else None
    if found is not None:
        tensors, facts = found
        kept = GraphStart(tensors["labels"].numpy(), tensors["confidence"].numpy(), **facts)
        return _told(kept, config.n_clusters, run, span)
    refuse_too_many(len(x), config.n_clusters)
    views: list[str] = ["raw"] if spec.kind == "vectors" else list(VIEWS) if config.view == "auto" else [config.view]
    n_processes = torch.get_num_threads() if len(x) > INLINE_UNTIL else 0
    n_steps = _count_steps(len(views), config)

    def report(n_done: int) -> None:
        share = min(1.0, n_done / n_steps)
        run.on_step(StepState("graph", span[0] + (span[1] - span[0]) * share, step=n_done))

    with tempfile.TemporaryDirectory() as folder, Workshop(n_processes, report) as workshop:
        start = _Builder(x, config, run.seed, Path(folder), workshop).build(views)
    if run.starts is not None:
        run.starts.keep(key, start.tensors(), start.facts())
    return _told(start, config.n_clusters, run, span)


def refuse_too_many(n: int, n_clusters: int) -> None:
    """Refuse so many inputs and clusters that their probabilities would not fit into memory.

    Raises:
        BadImages: with how many clusters there may be.
    """
    if n * n_clusters > MAX_RESPONSIBILITIES:
        raise BadImages(f"of {n} images at most {MAX_RESPONSIBILITIES // n} clusters can be formed by this method")


def _count_steps(n_views: int, config: GraphStartConfig) -> int:
    n_judging = n_views * (2 + JUDGED_INITS) if n_views > 1 else 0
    n_second = 2 + config.n_starts if n_views > 1 else 0
    return n_judging + 1 + config.n_starts * (1 + config.n_init + config.n_starts) + n_second


def choose_neighbours(n: int, n_clusters: int) -> int:
    """How many neighbours to look at: about the square root of a mean cluster's size, 5 to 20, fewer than N."""
    wanted = round(math.sqrt(n / n_clusters))
    return max(2, min(n - 1, max(MIN_NEIGHBOURS, min(MAX_NEIGHBOURS, wanted))))


def choose_view(judged: Mapping[str, float]) -> str:
    """The view to trust, by the modularity of each: `hog`, or the best that exceeds it by more than the margin."""
    best = max(judged, key=lambda name: judged[name])
    return best if judged[best] > judged.get("hog", 0.0) + VIEW_MARGIN else "hog"


def second_view(chosen: str) -> str:
    """The view that refines a partition of the chosen one: pixels as they are, or, of a partition of those, `hog`."""
    return "hog" if chosen == "raw" else "raw"


def _told(start: GraphStart, n_clusters: int, run: Run, span: tuple[float, float]) -> GraphStart:
    facts = {"agreement": start.agreement, **{f"modularity_{view}": value for view, value in start.modularity.items()}}
    run.on_step(start_state("graph", span[1], start.labels, n_clusters, facts))
    return start


def map_2d(z: NDArray[np.float32], seed: int, on_beat: Callable[[], None]) -> NDArray[np.float32]:
    """A picture of an embedding (N, D): -> (N, 2), UMAP's, or principal components of under 200 rows.

    `on_beat` is called twice a second and may raise.
    """
    if len(z) < MAPPED_ROWS:
        away = z - z.mean(axis=0)
        points = away @ np.linalg.svd(away, full_matrices=False)[2][:2].T
        flat: NDArray[np.float32] = np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float32)
        return flat
    n_processes = 1 if len(z) > INLINE_UNTIL else 0
    with tempfile.TemporaryDirectory() as folder, Workshop(n_processes, lambda _: on_beat()) as workshop:
        path = Path(folder) / "embedding.npy"
        np.save(path, z)
        (near,) = workshop.run(neighbours.search, [(path, None, MAX_NEIGHBOURS, seed)])
        found: NDArray[np.float32] = workshop.run(neighbours.embed, [(path, None, near, 2, seed)])[0]
    return found


class _Builder:
    """The steps of one start, in order."""

    def __init__(self, x: NDArray[Any], config: GraphStartConfig, seed: int, folder: Path, workshop: Workshop) -> None:
        self._x, self._config, self._seed = x, config, seed
        self._folder, self._workshop, self._run = folder, workshop, workshop.run
        self._k = config.n_clusters
        self._n_neighbours = min(len(x), config.n_neighbors or choose_neighbours(len(x), self._k))

    def build(self, views: list[str]) -> GraphStart:
        for view in views:
            look(view, self._x, self._path(view), self._workshop.beat)
        judged = self._judge(views) if len(views) > 1 else {}
        view = choose_view(judged) if judged else views[0]
        seen = [view, second_view(view)] if judged else [view]
        graphs = self._run(neighbours.search, [(self._path(one), None, self._n_neighbours, self._seed) for one in seen])
        seeds = [self._number(start) for start in range(self._config.n_starts)]
        laying = self._lay_out(view, graphs[0], seeds)
        beside = self._lay_out(seen[1], graphs[1], seeds[:1]) if judged else []  # while mixtures are sought
        layouts = self._workshop.finish(laying)
        labels, confidence, agreement = self._agree(layouts, self._mixtures(layouts, self._config.n_init))
        if beside:
            (other,) = self._workshop.finish(beside)
            tasks = [((z, other), labels, self._k) for z in layouts]
            labels, confidence, agreement = vote(self._run(neighbours.refine, tasks))
        modularity = judged or {view: neighbours.modularity(graphs[0], labels)}
        return GraphStart(labels, confidence, view, agreement, modularity)

    def _lay_out(self, view: str, near: Neighbours, seeds: list[int]) -> list[Future[Any]]:
        """Begin a layout of a view from each seed."""
        return self._workshop.begin(
            neighbours.embed, [(self._path(view), None, near, N_COMPONENTS, seed) for seed in seeds]
        )

    def _judge(self, views: list[str]) -> dict[str, float]:
        """Modularity of each view's own partition on its own graph, over at most 10,000 rows."""
        n = len(self._x)
        rows = np.sort(np.random.default_rng(self._seed).permutation(n)[:JUDGED_ROWS]) if n > JUDGED_ROWS else None
        graphs = self._run(
            neighbours.search, [(self._path(view), rows, self._n_neighbours, self._seed) for view in views]
        )
        steps = [
            (self._path(view), rows, near, N_COMPONENTS, self._number(0))
            for view, near in zip(views, graphs, strict=True)
        ]
        best = self._mixtures(self._run(neighbours.embed, steps), JUDGED_INITS)
        return {
            view: neighbours.modularity(near, found.labels)
            for view, near, found in zip(views, graphs, best, strict=True)
        }

    def _mixtures(self, layouts: list[NDArray[np.float32]], n_init: int) -> list[Mixture]:
        """The likeliest of `n_init` mixtures on each layout."""
        tasks = [(z, self._k, self._number(start, init)) for start, z in enumerate(layouts) for init in range(n_init)]
        found = self._run(neighbours.mixture, tasks)
        return [
            max(found[start * n_init : (start + 1) * n_init], key=lambda one: one.log_likelihood)
            for start in range(len(layouts))
        ]

    def _agree(self, layouts: list[NDArray[np.float32]], best: list[Mixture]) -> "Vote":
        """The partition that all layouts together find likeliest, and how far they agree on it."""
        refined = self._run(neighbours.refine, [((z,), one.labels, self._k) for one in best for z in layouts])
        n = len(layouts)
        rounds = [refined[start * n : (start + 1) * n] for start in range(n)]
        return vote(max(rounds, key=lambda found: sum(one.log_likelihood for one in found)))

    def _path(self, view: str) -> Path:
        return self._folder / f"{view}.npy"

    def _number(self, *names: int) -> int:
        return int(np.random.SeedSequence([self._seed, *names]).generate_state(1)[0])


Vote = tuple[Labels, NDArray[np.float32], float]


def vote(found: list[Mixture]) -> Vote:
    """Partitions that several layouts gave in the same numbering as one: the cluster with most confidence.

    Returns labels (N,), their mean confidence over the layouts (N,), and the mean share on which two layouts agree.
    """
    all_labels, all_confidence = np.stack([one.labels for one in found]), np.stack([one.confidence for one in found])
    same = all_labels[:, None] == all_labels[None]  # (S, S, N)
    weight = (same * all_confidence[None]).sum(axis=1)  # (S, N)
    best = weight.argmax(axis=0)
    rows = np.arange(all_labels.shape[1])
    n = len(found)
    agreement = 1.0 if n == 1 else float((same.sum() - n * len(rows)) / (n * (n - 1) * len(rows)))
    return all_labels[best, rows], (weight[best, rows] / n).astype(np.float32), agreement
