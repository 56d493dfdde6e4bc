"""The neighbour-graph start: a partition of all images before any network is trained, which every method can take up.

Images -> a view of them -> nearest neighbours -> UMAP layouts -> Gaussian mixtures -> one partition -> the same seen
by a second view. What decides:

* The view is judged without targets: on at most 10,000 rows, by the modularity of its own partition on its own
  neighbour graph. Gradients (`hog`) are taken unless another view is clearly better, by more than `VIEW_MARGIN`.
* How many neighbours show the clusters depends on the data, too. So there are layouts of many numbers of neighbours
  (`COUNTS`), from one or two seeds, and several mixtures on each. The best mixture of every layout is then polished on
  all the others: the partition whose likelihood, summed over the layouts, is highest wins. A partition that only one
  layout favours does not. Each image takes the cluster its layouts are surest of.
* Where views were judged, one mixture of each layout and a layout of a second view, independent within a cluster, goes
  on from that partition: gradients do not see how bright a surface is, pixels do. It is not sought anew: from other
  beginnings Fashion-MNIST has partitions likelier under both views, and worse.

Steps run in threads with one torch thread each, so a seed gives one start on any number of cores; on an accelerator
they run one after the other. On the CPU umap-learn lays out sets of `UMAP_FROM` rows and more.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run, StepState, start_state
from models.configs import GraphConfig
from models.pixels import InputSpec
from models.start import umap_layout
from models.start.crew import Crew
from models.start.layout import fuzzy_graph, lay_out
from models.start.mixture import Mixture, Vote, distinct, joint_likelihood, mixture, refine, vote
from models.start.neighbours import Neighbours, modularity, overruled, search
from models.start.processes import run_in_process
from models.start.reduction import Components
from models.start.views import VIEWS, blocks_of_view

RULE_VERSION = 7  # raised with everything that changes a start, the libraries it uses included
VIEW_MARGIN = 0.02  # Fashion-MNIST: contrast .811, HOG .799, and HOG's partition is the better one
N_COMPONENTS = 10
COUNTS = (3, 4, 5, 6, 8, 10, 12, 15, 20)  # neighbours of an image, itself included
TWICE_UNTIL = 3_000  # rows; two layouts of each number of neighbours take seconds
MAX_LAYOUTS = 64
MIN_NEIGHBOURS, MAX_NEIGHBOURS = 5, 20
JUDGED_ROWS, JUDGED_INITS = 10_000, 3
BASIS_ROWS, BASIS_ENTRIES = 4_096, 2**26  # of the sample that a view's principal components are found from
TOGETHER_UNTIL = 1_000  # rows; steps of fewer are so small that threads would wait for the GIL
MAPPED_ROWS = 200  # a neighbour graph says little of fewer
# Rows. A layout of so many takes a minute, so one number of neighbours is tried. On the CPU umap-learn makes it:
UMAP_FROM = 30_000  # Fashion-MNIST has .6511 .6300 by our layouts, .6664 by its

Labels = NDArray[np.int64]


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


def start_key(spec: InputSpec, config: GraphConfig, seed: int, device: str) -> str:
    """A name for everything that decides a start on one dataset: rule, input, config, seed and type of device."""
    names = ("n_clusters", "view", "n_neighbors", "n_starts", "n_init")
    chosen = {name: getattr(config, name) for name in names}
    text = json.dumps([RULE_VERSION, asdict(spec), chosen, seed, torch.device(device).type], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def graph_start(
    x: NDArray[Any], spec: InputSpec, config: GraphConfig, run: Run, span: tuple[float, float]
) -> GraphStart:
    """A partition of stored inputs (N, ...) into K, found or taken from `run.starts`; sees no targets.

    `span` is the part of the fit's progress it takes.

    Raises:
        Cancelled: by `run.on_step`.
    """
    key = start_key(spec, config, run.seed, run.device)
    stored = run.starts.find(key) if run.starts is not None else None
    if stored is not None:
        tensors, facts = stored
        kept = GraphStart(tensors["labels"].numpy(), tensors["confidence"].numpy(), **facts)
        return _told(kept, config.n_clusters, run, span)
    views: list[str] = ["raw"] if spec.kind == "vectors" else list(VIEWS) if config.view == "auto" else [config.view]
    plan = choose_plan(len(x), config)
    n_steps = _count_steps(len(views), plan)

    def report(n_done: int) -> None:
        share = min(1.0, n_done / n_steps)
        run.on_step(StepState("graph", span[0] + (span[1] - span[0]) * share, step=n_done))

    with Crew(_count_threads(len(x), run.device), report) as crew:
        start = _Builder(x, config.n_clusters, plan, run, crew).build(views)
    if run.starts is not None:
        run.starts.keep(key, start.tensors(), start.facts())
    return _told(start, config.n_clusters, run, span)


def _count_threads(n: int, device: str) -> int:
    """One for a small set, and on an accelerator."""
    return torch.get_num_threads() if n > TOGETHER_UNTIL and torch.device(device).type == "cpu" else 1


@dataclass(frozen=True)
class Plan:
    """What a start tries: layouts of each of several numbers of neighbours, and mixtures on each layout.

    Views are judged with `judged_count` neighbours.
    """

    judged_count: int
    counts: tuple[int, ...]
    n_starts: int
    n_init: int


def _count_steps(n_views: int, plan: Plan) -> int:
    n, n_judging = len(plan.counts) * plan.n_starts, n_views * (4 + JUDGED_INITS) if n_views > 1 else 0
    return n_judging + 3 + n * (1 + plan.n_init + n) + (2 + n if n_views > 1 else 0)


def choose_plan(n: int, config: GraphConfig) -> Plan:
    """What to try on N images: what the config says, or all numbers of neighbours where time allows."""
    judged = min(n, config.n_neighbors or choose_neighbours(n, config.n_clusters))
    if config.n_neighbors is not None or n >= UMAP_FROM:
        return Plan(judged, (judged,), config.n_starts or 2, config.n_init or 10)
    counts = tuple(count for count in COUNTS if count < n) or (judged,)
    n_starts = min(config.n_starts or (2 if n <= TWICE_UNTIL else 1), MAX_LAYOUTS // len(counts))
    return Plan(judged, counts, n_starts, config.n_init or 5)


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
    with Crew(1, lambda _: on_beat()) as crew:
        return crew.run(_map, [(torch.from_numpy(z), seed, crew.beat)])[0].numpy()


def _map(z: Tensor, seed: int, on_beat: Callable[[], None]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = Components.of(z, generator).project(z)
    near = search(x, min(len(x), MAX_NEIGHBOURS), generator, on_beat)
    return _embed([(_Sight(x, near), near.index.shape[1], seed)], 2, on_beat)[0]


@dataclass(frozen=True)
class _Sight:
    """Inputs as one view shows them: principal components (N, n), and their neighbours."""

    x: Tensor
    near: Neighbours


def _embed(wanted: Sequence[tuple[_Sight, int, int]], n_components: int, on_beat: Callable[[], None]) -> list[Tensor]:
    """Layouts of as many rows each, from a sight, a number of its neighbours and a seed: -> (N, d) each."""
    n, device = wanted[0][0].x.shape[0], wanted[0][0].x.device
    n_components = max(1, min(n_components, n - 2))
    if n < UMAP_FROM or device.type != "cpu":
        tasks = [
            (fuzzy_graph(sight.near.first(count)), sight.x, torch.Generator().manual_seed(seed))
            for sight, count, seed in wanted
        ]
        return lay_out(tasks, n_components, on_beat)
    return [
        _embed_by_umap(sight.x, sight.near.first(count), n_components, seed, on_beat) for sight, count, seed in wanted
    ]


def _embed_by_umap(x: Tensor, near: Neighbours, n_components: int, seed: int, on_beat: Callable[[], None]) -> Tensor:
    task = (x.numpy(), near.index.numpy(), near.distance.numpy(), n_components, seed)
    return torch.from_numpy(run_in_process(umap_layout.embed, *task, on_beat=on_beat))


def _mixture(z: Tensor, n_clusters: int, seed: int, on_beat: Callable[[], None]) -> Mixture:
    return mixture(z, n_clusters, torch.Generator().manual_seed(seed), on_beat)


class _Wanted(NamedTuple):
    """What decides a layout."""

    view: str
    n_neighbours: int
    seed: int


class _Builder:
    """The steps of one start, in order."""

    def __init__(self, x: NDArray[Any], n_clusters: int, plan: Plan, run: Run, crew: Crew) -> None:
        self._x, self._k, self._plan, self._seed, self._device = x, n_clusters, plan, run.seed, run.device
        self._crew = crew
        self._rows = np.random.default_rng(run.seed).permutation(len(x))  # the first of them are judged
        self._layouts: dict[_Wanted, Tensor] = {}  # of all rows, that were made to judge or settle something

    def build(self, views: list[str]) -> GraphStart:
        components = self._components(views)
        sights, judged = self._judge(components) if len(views) > 1 else ({}, {})
        view = choose_view(judged) if judged else views[0]
        seen = [view, second_view(view)] if judged else [view]
        if not self._is_all_judged or not judged:
            sights = self._see({one: components[one] for one in seen}, np.arange(len(self._x)))
        plan = self._settle_counts(sights, view, len(views))
        wanted = [
            _Wanted(view, count, self._number(start)) for start in range(plan.n_starts) for count in plan.counts
        ] + [_Wanted(one, plan.judged_count, self._number(0)) for one in seen[1:]]
        laying, n = self._lay_out(sights, wanted), plan.n_starts * len(plan.counts)
        layouts = self._finish(laying[:n])  # large ones of the second view go on while mixtures are sought
        labels, confidence, agreement = self._agree(
            layouts[:n], self._mixtures(layouts[:n], plan.n_init), sights[view].near
        )
        if seen[1:]:
            *layouts, other = layouts + self._finish(laying[n:])
            labels, confidence, agreement = vote(self._refine([((z, other), labels) for z in layouts]))
        modularities = judged or {
            view: self._crew.run(modularity, [(sights[view].near.first(plan.judged_count), labels)])[0]
        }
        return GraphStart(labels.cpu().numpy(), confidence.cpu().numpy(), view, agreement, modularities)

    def _settle_counts(self, sights: Mapping[str, _Sight], view: str, n_views: int) -> Plan:
        """The plan, or a layout of the fewest neighbours and one of the most if those show one partition."""
        ends = replace(self._plan, counts=self._plan.counts[:: max(1, len(self._plan.counts) - 1)], n_starts=1)
        if ends.counts == self._plan.counts:
            return self._plan
        wanted = [_Wanted(view, count, self._number(0)) for count in ends.counts]
        layouts = self._finish(self._lay_out(sights, wanted))
        self._layouts.update(zip(wanted, layouts, strict=True))
        if len(distinct(self._mixtures_from(layouts, range(1)))) > 1:
            return self._plan
        self._crew.skip(_count_steps(n_views, self._plan) - _count_steps(n_views, ends))
        return ends

    @property
    def _is_all_judged(self) -> bool:
        return len(self._x) <= JUDGED_ROWS

    def _components(self, views: list[str]) -> dict[str, Components]:
        """Principal components of each view, from a sample of all rows."""
        n_rows = max(1, min(BASIS_ROWS, BASIS_ENTRIES // math.prod(self._x.shape[1:])))
        sample = np.sort(self._rows[:n_rows])

        def components(view: str) -> Components:
            seen = torch.cat(list(blocks_of_view(view, self._x, sample, self._device, self._crew.beat)))
            return Components.of(seen, torch.Generator().manual_seed(self._number()))

        return dict(zip(views, self._crew.run(components, [(view,) for view in views]), strict=True))

    def _see(self, components: Mapping[str, Components], rows: Labels) -> dict[str, _Sight]:
        """The rows as each of the views shows them."""

        def see(view: str) -> _Sight:
            beat, generator = self._crew.beat, torch.Generator().manual_seed(self._number())
            blocks = blocks_of_view(view, self._x, rows, self._device, beat)
            x = torch.cat([components[view].project(block) for block in blocks])
            near = search(x, max(self._plan.judged_count, *self._plan.counts), generator, beat)
            return _Sight(x, near)

        return dict(zip(components, self._crew.run(see, [(view,) for view in components]), strict=True))

    def _lay_out(self, sights: Mapping[str, _Sight], wanted: list[_Wanted]) -> list[Future[list[Tensor]]]:
        """Begin layouts of a view, a number of neighbours and a seed: small ones together, others each by itself."""
        size = len(wanted) if len(self._x) <= TOGETHER_UNTIL else 1
        groups = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        self._crew.skip(len(wanted) - len(groups))
        return self._crew.begin(self._embed, [(sights, group) for group in groups])

    def _embed(self, sights: Mapping[str, _Sight], wanted: list[_Wanted]) -> list[Tensor]:
        """Layouts; those that were made before are taken as they are."""
        new = [one for one in wanted if one not in self._layouts]
        tasks = [(sights[view], count, seed) for view, count, seed in new]
        made = dict(zip(new, _embed(tasks, N_COMPONENTS, self._crew.beat), strict=True)) if new else {}
        return [made[one] if one in made else self._layouts[one] for one in wanted]

    def _finish(self, laying: list[Future[list[Tensor]]]) -> list[Tensor]:
        return [z for layouts in self._crew.finish(laying) for z in layouts]

    def _judge(self, components: Mapping[str, Components]) -> tuple[dict[str, _Sight], dict[str, float]]:
        """Modularity of each view's own partition on its own graph, on at most 10,000 rows, with their sights."""
        sights = self._see(components, np.sort(self._rows[:JUDGED_ROWS]))
        wanted = [_Wanted(view, self._plan.judged_count, self._number(0)) for view in sights]
        layouts = self._finish(self._lay_out(sights, wanted))
        if self._is_all_judged:
            self._layouts = dict(zip(wanted, layouts, strict=True))
        best = self._mixtures(layouts, JUDGED_INITS)
        count = self._plan.judged_count
        tasks = [(sight.near.first(count), one.labels) for sight, one in zip(sights.values(), best, strict=True)]
        return sights, dict(zip(sights, self._crew.run(modularity, tasks), strict=True))

    def _mixtures(self, layouts: list[Tensor], n_init: int) -> list[Mixture]:
        """The likeliest of `n_init` mixtures on each layout, or its first if all layouts' first are one partition."""
        first = self._mixtures_from(layouts, range(1))
        if len(distinct(first)) == 1:
            self._crew.skip(len(layouts) * (n_init - 1))
            return first
        more = self._mixtures_from(layouts, range(1, n_init))
        tried = [first[i :: len(layouts)] + more[i :: len(layouts)] for i in range(len(layouts))]
        return [max(of_layout, key=lambda one: one.log_likelihood) for of_layout in tried]

    def _mixtures_from(self, layouts: list[Tensor], starts: range) -> list[Mixture]:
        """A mixture from each start on each layout, in order of starts."""
        tasks = [
            (z, self._k, self._number(i, start), self._crew.beat) for start in starts for i, z in enumerate(layouts)
        ]
        return self._crew.run(_mixture, tasks)

    def _refine(self, tasks: list[tuple[tuple[Tensor, ...], Tensor]]) -> list[Mixture]:
        return self._crew.run(refine, [(layouts, labels, self._k, self._crew.beat) for layouts, labels in tasks])

    def _agree(self, layouts: list[Tensor], best: list[Mixture], near: Neighbours) -> Vote:
        """The partition that all layouts together find likeliest, or the nearest neighbours, and how far they agree."""
        different = distinct(best)
        self._crew.skip((len(best) - len(different)) * len(layouts))
        likelihoods, votes = [], []
        for one in different:
            refined = self._refine([((z,), one.labels) for z in layouts])
            likelihoods.append(joint_likelihood(refined))
            votes.append(vote(refined))
        likeliest = max(range(len(votes)), key=likelihoods.__getitem__)
        return votes[overruled(near, [labels for labels, _, _ in votes], likeliest)]

    def _number(self, *names: int) -> int:
        return int(np.random.SeedSequence([self._seed, *names]).generate_state(1)[0])
