"""The neighbour-graph start: each step against a second implementation, and the whole on images with clear kinds."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import networkx
import numpy as np
import psutil
import pytest
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from models.base import Run
from models.configs import GraphStartConfig
from models.errors import BadImages, Cancelled
from models.pixels import InputSpec
from models.start import neighbours
from models.start.graph import choose_neighbours, choose_view, graph_start, map_2d, second_view, start_key, vote
from models.start.neighbours import Mixture, Neighbours
from models.start.processes import Workshop
from models.worth.metrics import acc, ari
from tests.models.battery import images, spec_of, vectors
from tests.servers import wait_until

BLOBS, KINDS = make_blobs(300, 6, centers=4, cluster_std=0.7, random_state=0)
BLOBS = BLOBS.astype(np.float32)


class Kept:
    """Starts in memory."""

    def __init__(self) -> None:
        self.found: dict[str, tuple] = {}

    def find(self, key):
        return self.found.get(key)

    def keep(self, key, tensors, facts) -> None:
        self.found[key] = (dict(tensors), dict(facts))


@pytest.fixture
def saved(tmp_path):
    np.save(tmp_path / "blobs.npy", BLOBS)
    return tmp_path / "blobs.npy"


def test_a_row_is_its_own_first_neighbour_even_among_copies(tmp_path):
    x = np.repeat(np.arange(5, dtype=np.float32)[:, None], 4, axis=0)  # four copies of each
    np.save(tmp_path / "x.npy", x)

    near = neighbours.search(tmp_path / "x.npy", None, 6, 0)

    assert (near.index[:, 0] == np.arange(20)).all()
    assert (near.distance[:, :4] == 0).all()
    assert all(len(set(row)) == 6 for row in near.index.tolist())


def test_the_approximate_search_finds_nearly_all_true_neighbours(tmp_path):
    x = np.random.default_rng(0).normal(size=(neighbours.EXACT_UNTIL + 500, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    near = neighbours.search(tmp_path / "x.npy", None, 10, 0)

    true = NearestNeighbors(n_neighbors=10).fit(x).kneighbors(x[:1000], return_distance=False)
    found = [len(set(a) & set(b)) for a, b in zip(near.index[:1000].tolist(), true.tolist(), strict=True)]
    assert np.mean(found) > 9.8
    for step in neighbours.steps_kept():
        assert step.stats.cache_hits or step.stats.cache_misses, f"{step.__name__} is compiled in every process"


def test_modularity_is_networkxs():
    near = Neighbours(np.array([[0, 1], [1, 0], [2, 1], [3, 4], [4, 3], [5, 4]]), np.zeros((6, 2), np.float32))
    labels = np.array([0, 0, 0, 1, 1, 1])
    graph = networkx.Graph([(0, 1), (2, 1), (3, 4), (5, 4)])

    found = neighbours.modularity(near, labels)

    assert found == pytest.approx(networkx.community.modularity(graph, [{0, 1, 2}, {3, 4, 5}]))
    assert found == pytest.approx(0.5)
    assert neighbours.modularity(near, np.zeros(6, int)) == pytest.approx(0)


def test_refining_the_best_partition_gives_scikit_learns_likelihood():
    mixture = GaussianMixture(4, random_state=0, n_init=5, tol=1e-6).fit(BLOBS.astype(np.float64))

    found = neighbours.refine((BLOBS,), mixture.predict(BLOBS.astype(np.float64)), 4)

    assert found.log_likelihood == pytest.approx(mixture.score(BLOBS.astype(np.float64)), abs=1e-3)
    assert acc(KINDS, found.labels) > 0.99
    assert found.confidence.min() >= 0.25


def test_two_views_are_one_mixture_with_covariances_of_blocks():
    """Scikit-learn knows no such covariance, but diagonal ones of single columns are just that."""
    columns = [np.ascontiguousarray(BLOBS[:, [i]]) for i in range(BLOBS.shape[1])]
    mixture = GaussianMixture(4, covariance_type="diag", random_state=0, n_init=5, tol=1e-7, max_iter=1_000)
    mixture.fit(BLOBS.astype(np.float64))

    found = neighbours.refine(columns, mixture.predict(BLOBS.astype(np.float64)), 4)

    p = mixture.predict_proba(BLOBS.astype(np.float64))
    assert found.log_likelihood == pytest.approx(mixture.score(BLOBS.astype(np.float64)), abs=1e-3)
    np.testing.assert_array_equal(found.labels, p.argmax(axis=1))
    np.testing.assert_allclose(found.confidence, p.max(axis=1), atol=0.01)


def test_what_one_view_cannot_tell_apart_the_other_does():
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1], 200)
    blind = rng.normal(size=(400, 2)).astype(np.float32)
    seeing = (rng.normal(size=(400, 2)) + 8 * kinds[:, None]).astype(np.float32)
    begun = np.where(rng.random(400) < 0.3, 1 - kinds, kinds)  # as a partition of the blind view might be

    assert acc(kinds, neighbours.refine((blind,), begun, 2).labels) < 0.8
    assert acc(kinds, neighbours.refine((blind, seeing), begun, 2).labels) == 1.0


def test_a_partition_with_an_empty_cluster_is_never_the_likeliest_and_comes_back_as_it_is():
    begun = np.arange(300) % 3

    found = neighbours.refine((BLOBS,), begun, 4)

    assert found.log_likelihood == -np.inf
    np.testing.assert_array_equal(found.labels, begun)


def test_layouts_are_the_same_for_the_same_seed(saved):
    near = neighbours.search(saved, None, 10, 0)

    first, second, other = (neighbours.embed(saved, None, near, 3, seed) for seed in (0, 0, 1))

    assert first.shape == (300, 3)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from models.start import neighbours
from numba.core.dispatcher import Dispatcher
near = neighbours.search(Path(sys.argv[1]), None, 10, 0)
z = neighbours.embed(Path(sys.argv[1]), None, near, 3, 1)
import umap.layouts, umap.umap_
steps = [one for part in (umap.layouts, umap.umap_) for one in vars(part).values() if isinstance(one, Dispatcher)]
found = {one.__name__ for one in steps if one.stats.cache_misses}
print(len(found - {"tau_rand_int"}), z.tobytes().hex())  # compiled by the library's import
"""


def test_another_process_compiles_nothing_and_finds_the_same_layout(saved):
    here = neighbours.embed(saved, None, neighbours.search(saved, None, 10, 0), 3, 1)

    command = [sys.executable, "-c", ANOTHER_PROCESS, str(saved)]
    n_compiled, there = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    assert n_compiled == "0"
    assert bytes.fromhex(there) == here.tobytes()


def test_votes_are_the_hand_worked_ones():
    labels = [np.array([0, 1, 2]), np.array([0, 1, 0]), np.array([0, 2, 1])]
    confidence = [np.array([1.0, 0.4, 0.9]), np.array([0.5, 0.4, 0.3]), np.array([0.6, 0.7, 0.3])]

    found, weight, agreement = vote([Mixture(0.0, *one) for one in zip(labels, confidence, strict=True)])

    # Image 1: cluster 1 has .4 + .4 against .7; image 2: three ways, .9 wins.
    assert found.tolist() == [0, 1, 2]
    np.testing.assert_allclose(weight, [2.1 / 3, 0.8 / 3, 0.9 / 3], rtol=1e-6)
    assert agreement == pytest.approx((3 + 1 + 0) / 9)  # of three pairs on three images


@pytest.mark.parametrize(("n", "k", "expected"), [(70_000, 10, 20), (1440, 20, 8), (400, 40, 5), (6, 3, 5), (3, 2, 2)])
def test_fewer_neighbours_where_clusters_are_small(n, k, expected):
    assert choose_neighbours(n, k) == expected


@pytest.mark.parametrize("n", [5, 12, 25, 60])
def test_few_images_have_a_start_too(n):
    x, _ = images()

    start = graph_start(x[:n], spec_of(x), GraphStartConfig(n_clusters=3), Run(), (0, 1))

    assert start.labels.shape == start.confidence.shape == (n,)
    assert set(start.labels) <= {0, 1, 2}


def test_clear_kinds_are_found_in_images_and_vectors():
    for x, kinds in (images(16, 3), vectors()):
        start = graph_start(x, spec_of(x), GraphStartConfig(n_clusters=3), Run(), (0, 1))

        assert ari(kinds, start.labels) == 1.0
        assert start.agreement == 1.0


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

    start = graph_start(x, spec_of(x), GraphStartConfig(n_clusters=10), Run(on_step=states.append), (0.1, 0.4))

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


def test_more_clusters_than_memory_holds_are_refused_before_any_work():
    x, states = np.zeros((130_000, 1), np.float32), []

    with pytest.raises(BadImages, match="at most 961 clusters"):
        graph_start(x, spec_of(x), GraphStartConfig(n_clusters=1_000), Run(on_step=states.append), (0, 1))

    assert states == []


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


def test_processes_give_the_same_results_as_one_after_the_other():
    tasks = [(BLOBS, 4, seed) for seed in range(3)]

    with Workshop(0, lambda _: None) as here, Workshop(1, lambda _: None) as beside:
        pairs = zip(here.run(neighbours.mixture, tasks), beside.run(neighbours.mixture, tasks), strict=True)

    for first, second in pairs:
        assert first.log_likelihood == second.log_likelihood
        np.testing.assert_array_equal(first.labels, second.labels)


def test_a_cancelled_start_ends_its_processes_at_once():
    before = set(psutil.Process().children())
    calls = itertools.count()

    def stop(_: int) -> None:
        if next(calls) == 2:
            raise Cancelled("enough")

    started = time.monotonic()
    with pytest.raises(Cancelled), Workshop(1, stop) as workshop:
        workshop.run(time.sleep, [(60,)])

    assert time.monotonic() - started < 30
    assert not [child for child in set(psutil.Process().children()) - before if "spawn_main" in str(child.cmdline())]


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\nfrom models.start.processes import Workshop\n"
        "if __name__ == '__main__':\n    with Workshop(1, lambda _: None) as workshop:\n"
        "        print(workshop.run(os.getpid, [()])[0], flush=True)\n        time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    child = psutil.Process(int(parent.stdout.readline()))

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10, "the child's end")


def test_a_map_has_a_point_for_every_row_and_keeps_kinds_apart():
    for n in (2, 150, 300):
        points = map_2d(BLOBS[:n], 0, lambda: None)

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
