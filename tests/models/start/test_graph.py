"""The neighbour-graph start as a whole, on images with clear kinds and on inputs that have none."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.neighbors import NearestNeighbors

from models.base import Run
from models.configs import GraphStartConfig
from models.errors import Cancelled
from models.pixels import InputSpec
from models.start import graph
from models.start.graph import (
    COUNTS,
    Plan,
    choose_neighbours,
    choose_plan,
    choose_view,
    graph_start,
    map_2d,
    second_view,
    start_key,
    vote,
)
from models.start.mixture import Mixture, joint_likelihood
from models.worth.metrics import acc, ari
from tests.models.battery import images, spec_of, vectors
from tests.models.start.makers import BLOBS, KINDS, broad_blobs, rings

POINTS = BLOBS.numpy()


class Kept:
    """Starts in memory."""

    def __init__(self) -> None:
        self.found: dict[str, tuple] = {}

    def find(self, key):
        return self.found.get(key)

    def keep(self, key, tensors, facts) -> None:
        self.found[key] = (dict(tensors), dict(facts))


def test_votes_are_the_hand_worked_ones():
    labels = [[0, 1, 2], [0, 1, 0], [0, 2, 1]]
    confidence = [[1.0, 0.4, 0.9], [0.5, 0.4, 0.3], [0.6, 0.7, 0.3]]

    found, weight, agreement = vote(
        [Mixture(0.0, torch.tensor(a), torch.tensor(b)) for a, b in zip(labels, confidence, strict=True)]
    )

    # Image 1: cluster 1 has .4 + .4 against .7; image 2: three ways, .9 wins.
    assert found.tolist() == [0, 1, 2]
    torch.testing.assert_close(weight, torch.tensor([2.1 / 3, 0.8 / 3, 0.9 / 3]))
    assert agreement == pytest.approx((3 + 1 + 0) / 9)  # of three pairs on three images


def test_a_layout_without_a_likelihood_neither_votes_nor_decides():
    two, other = torch.tensor([0, 1]), torch.tensor([1, 1])
    collapsed = Mixture(-np.inf, other, torch.ones(2))
    weak = Mixture(-3.0, two, torch.full((2,), 0.6))

    assert vote([weak, collapsed, collapsed])[0].tolist() == [0, 1]
    assert vote([collapsed, collapsed])[0].tolist() == [1, 1]
    assert joint_likelihood([weak, collapsed, weak]) == (2, -6.0)
    assert joint_likelihood([weak] * 3) > joint_likelihood([collapsed, collapsed, weak])


@pytest.mark.parametrize(("n", "k", "expected"), [(70_000, 10, 20), (1440, 20, 8), (400, 40, 5), (6, 3, 5), (3, 2, 2)])
def test_fewer_neighbours_where_clusters_are_small(n, k, expected):
    assert choose_neighbours(n, k) == expected


@pytest.mark.parametrize(
    ("n", "values", "expected"),
    [
        (2, {}, Plan(2, (2,), 2, 5)),
        (7, {}, Plan(5, (3, 4, 5, 6), 2, 5)),
        (3_000, {}, Plan(17, COUNTS, 2, 5)),
        (3_001, {}, Plan(17, COUNTS, 1, 5)),
        (29_999, {"n_starts": 64}, Plan(20, COUNTS, 7, 5)),
        (30_000, {}, Plan(20, (20,), 2, 10)),
        (3_000, {"n_neighbors": 7, "n_starts": 4}, Plan(7, (7,), 4, 10)),
        (4, {"n_neighbors": 7, "n_init": 4}, Plan(4, (4,), 2, 4)),
        (3_000, {"n_starts": 1, "n_init": 1}, Plan(17, COUNTS, 1, 1)),
    ],
)
def test_small_sets_are_laid_out_with_many_numbers_of_neighbours(n, values, expected):
    assert choose_plan(n, GraphStartConfig(n_clusters=10 if n > 9 else 2, **values)) == expected


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 12, 16, 18, 20, 25, 40, 60])
@pytest.mark.parametrize("n_neighbors", [None, 2, 3])
def test_few_images_and_few_neighbours_have_a_start_too(n, n_neighbors):
    x, _ = images()
    k = min(n, 3)

    config = GraphStartConfig(n_clusters=k, n_neighbors=n_neighbors, n_init=2)
    start = graph_start(x[:n], spec_of(x), config, Run(), (0, 1))

    assert start.labels.shape == start.confidence.shape == (n,)
    assert set(start.labels) <= set(range(k))
    assert np.isfinite(start.confidence).all()


def test_clear_kinds_are_found_in_images_and_vectors():
    for x, kinds in (images(16, 3), vectors()):
        start = graph_start(x, spec_of(x), GraphStartConfig(n_clusters=3), Run(), (0, 1))

        assert ari(kinds, start.labels) == 1.0
        assert start.agreement == 1.0


@pytest.mark.parametrize(("made", "wrong_count"), [(rings(30), 20), (broad_blobs(), 3)])
def test_a_number_of_neighbours_that_shows_no_kinds_does_not_decide(made, wrong_count):
    """Of rings, twenty neighbours lie on several; of broad blobs, two of a point's own leave pieces of them."""
    x, kinds = made

    def found(n_neighbors: int | None) -> float:
        config = GraphStartConfig(n_clusters=int(kinds.max()) + 1, n_neighbors=n_neighbors, n_starts=1)
        return acc(kinds, graph_start(x, spec_of(x), config, Run(), (0, 1)).labels)

    assert found(wrong_count) < 0.8
    assert found(None) > 0.95


def test_where_few_and_many_neighbours_show_one_partition_no_other_number_is_tried(monkeypatch):
    broad, _ = broad_blobs()
    clear, _ = make_blobs(400, 8, centers=6, cluster_std=0.1, random_state=1)
    laid_out, lay_out = set(), graph._embed

    def noted(wanted, *more):
        laid_out.update(count for _, count, _ in wanted)
        return lay_out(wanted, *more)

    monkeypatch.setattr(graph, "_embed", noted)
    for x, counts in ((clear.astype(np.float32), {3, 20}), (broad, set(COUNTS))):
        laid_out.clear()
        graph_start(x, spec_of(x), GraphStartConfig(n_clusters=6, n_starts=1), Run(), (0, 1))

        assert laid_out == counts


@pytest.mark.parametrize(
    ("judged", "view"),
    [
        ({"raw": 0.80, "contrast": 0.78, "hog": 0.84}, "hog"),
        ({"raw": 0.80, "contrast": 0.81, "hog": 0.80}, "hog"),
        ({"raw": 0.83, "contrast": 0.81, "hog": 0.80}, "raw"),
    ],
)
def test_gradients_are_trusted_unless_another_view_is_clearly_better(judged, view):
    assert choose_view(judged) == view


@pytest.mark.parametrize(("chosen", "second"), [("hog", "raw"), ("contrast", "raw"), ("raw", "hog")])
def test_pixels_refine_what_other_views_found(chosen, second):
    assert second_view(chosen) == second


def test_real_digits_are_found_and_every_judged_view_is_told():
    digits = load_digits()
    x = (digits.images * (255 / 16)).astype(np.uint8)[:, None]
    states = []

    start = graph_start(
        x, spec_of(x), GraphStartConfig(n_clusters=10, n_starts=1), Run(on_step=states.append), (0.1, 0.4)
    )

    assert acc(digits.target, start.labels) > 0.85  # k-means on the pixels reaches .79
    assert start.modularity.keys() == {"raw", "contrast", "hog"}
    assert start.view == choose_view(start.modularity)
    progress = [state.progress for state in states]
    assert progress == sorted(progress)
    assert progress[-1] == pytest.approx(0.4)
    assert states[-1].is_epoch
    assert (states[-1].assignments == start.labels).all()


def test_a_kept_start_is_not_computed_again():
    x, _ = images()
    kept, config, states = Kept(), GraphStartConfig(n_clusters=3), []
    first = graph_start(x, spec_of(x), config, Run(starts=kept), (0, 1))

    second = graph_start(x, spec_of(x), config, Run(starts=kept, on_step=states.append), (0, 1))

    assert len(states) == 1
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (second.view, second.agreement) == (first.view, first.agreement)


def test_the_key_of_a_start_names_all_that_decides_it():
    spec, config = InputSpec("images", side=28, channels=1), GraphStartConfig(n_clusters=3)
    changes = [
        (InputSpec("images", side=32, channels=1), config, 0, "cpu"),
        (spec, GraphStartConfig(n_clusters=4), 0, "cpu"),
        (spec, GraphStartConfig(n_clusters=3, view="hog"), 0, "cpu"),
        (spec, GraphStartConfig(n_clusters=3, n_starts=3), 0, "cpu"),
        (spec, GraphStartConfig(n_clusters=3, n_init=3), 0, "cpu"),
        (spec, GraphStartConfig(n_clusters=3, n_neighbors=9), 0, "cpu"),
        (spec, config, 1, "cpu"),
        (spec, config, 0, "cuda:1"),
    ]

    keys = {start_key(*change) for change in [(spec, config, 0, "cpu"), *changes]}

    assert len(keys) == len(changes) + 1
    assert start_key(spec, config, 0, "cuda:0") == start_key(spec, config, 0, "cuda:1")


def test_a_seed_gives_one_start_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(graph, "TOGETHER_UNTIL", 0)  # else a set so small is left to one thread
    digits = load_digits()
    x = (digits.images[:300] * (255 / 16)).astype(np.uint8)[:, None]
    before, starts = torch.get_num_threads(), []
    try:
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            starts.append(graph_start(x, spec_of(x), GraphStartConfig(n_clusters=10, n_starts=1), Run(), (0, 1)))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)

    for one in starts[1:]:
        np.testing.assert_array_equal(one.labels, starts[0].labels)
        np.testing.assert_array_equal(one.confidence, starts[0].confidence)
        assert one.facts() == starts[0].facts()


NONE = np.random.default_rng(0)
DEGENERATE = {
    "all the same": np.full((30, 1, 8, 8), 7, np.uint8),
    "two distinct": np.repeat(NONE.integers(0, 255, (2, 1, 8, 8), np.uint8), 20, axis=0),
    "copies of ten": np.repeat(NONE.integers(0, 255, (10, 3, 16, 16), np.uint8), 12, axis=0),
    "noise": NONE.integers(0, 255, (40, 1, 8, 8), np.uint8),
    "as many as clusters": NONE.integers(0, 255, (4, 1, 8, 8), np.uint8),
    "one dimension": np.linspace(0, 1, 50, dtype=np.float32)[:, None],
    "one point of vectors": np.ones((50, 5), np.float32),
    "large numbers": NONE.normal(1e6, 1, (60, 4)).astype(np.float32),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_inputs_without_kinds_have_a_partition_too(name):
    x = DEGENERATE[name]

    start = graph_start(x, spec_of(x), GraphStartConfig(n_clusters=4), Run(), (0, 1))

    assert start.labels.shape == start.confidence.shape == (len(x),)
    assert start.labels.dtype == np.int64
    assert start.confidence.dtype == np.float32
    assert set(start.labels) <= set(range(4))
    assert np.isfinite(start.confidence).all()
    assert start.confidence.max() <= 1.0001


def test_a_cancelled_start_ends_at_once():
    digits = load_digits()
    x = (digits.images * (255 / 16)).astype(np.uint8)[:, None]
    calls = itertools.count()

    def stop(_: object) -> None:
        if next(calls) == 5:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        graph_start(x, spec_of(x), GraphStartConfig(n_clusters=10), Run(on_step=stop), (0, 1))
    assert next(calls) == 6


def test_a_map_has_a_point_for_every_row_and_keeps_kinds_apart():
    for n in (2, 150, 300):
        points = map_2d(POINTS[:n], 0, lambda: None)

        assert points.shape == (n, 2)
        assert points.dtype == np.float32
    near = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(return_distance=False)[:, 0]
    assert (KINDS[near] == KINDS).mean() > 0.98


def test_a_map_of_few_rows_shows_their_principal_components():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32) * [9, 3, 1, 0.1]

    points = map_2d(x.astype(np.float32), 0, lambda: None)

    assert abs(np.corrcoef(points[:, 0], x[:, 0])[0, 1]) > 0.98
    assert abs(np.corrcoef(points[:, 1], x[:, 1])[0, 1]) > 0.98


def test_nothing_reads_torchs_own_generator():
    x, _ = images()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    graph_start(x, spec_of(x), GraphStartConfig(n_clusters=3), Run(), (0, 1))

    assert torch.equal(torch.rand(1), expected)


def test_large_sets_are_laid_out_by_umap_learn_on_the_cpu(monkeypatch):
    x, kinds = vectors()
    monkeypatch.setattr(graph, "UMAP_FROM", 60)
    monkeypatch.delattr(graph, "lay_out")

    start = graph_start(x, spec_of(x), GraphStartConfig(n_clusters=3, n_starts=1), Run(), (0, 1))

    assert ari(kinds, start.labels) == 1.0
