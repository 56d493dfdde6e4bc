"""The fuzzy graph by hand and by its definition; layouts by what they keep apart."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from models.start.layout import fuzzy_graph, lay_out, memberships
from models.start.neighbours import Neighbours, search
from tests.models.start.makers import BLOBS, KINDS, generator, on_threads, quiet

NEAR = search(BLOBS, 10, generator(), quiet)
GRAPH = fuzzy_graph(NEAR)


def layout(x: torch.Tensor, seed: int, n_components: int = 3, k: int = 10) -> torch.Tensor:
    graph = fuzzy_graph(search(x, k, generator(), quiet))
    return lay_out([(graph, x, generator(seed))], n_components, quiet)[0]


def test_memberships_of_a_row_sum_to_log_2_of_its_neighbours():
    weight = memberships(NEAR.distance[:, 1:])

    torch.testing.assert_close(weight.sum(dim=1), torch.full((300,), math.log2(10)), rtol=1e-4, atol=0)
    assert (weight[:, 0] == 1).all(), "the nearest is a full member"


def test_the_nearest_row_that_is_no_copy_sets_the_distance_to_subtract():
    # rho = 1; exp(-1 / sigma) makes up the sum: 1 + 1 + x = log2 4 needs x = 0, so sigma is the floor.
    weight = memberships(torch.tensor([[0.0, 1.0, 2.0]]))

    torch.testing.assert_close(weight, torch.tensor([[1.0, 1.0, 0.0]]))


def test_the_union_is_the_hand_worked_one():
    # Distances on a line: 0, 1, 3. With k = 2 every row has one neighbour, a full member: w = 1.
    near = Neighbours(torch.tensor([[0, 1], [1, 0], [2, 1]]), torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]]))

    graph = fuzzy_graph(near)

    assert list(zip(graph.head.tolist(), graph.tail.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert graph.weight.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_the_union_is_symmetric_and_w_plus_w_less_their_product():
    directed = torch.zeros(300, 300)
    directed.scatter_(1, NEAR.index[:, 1:], memberships(NEAR.distance[:, 1:]))
    union = directed + directed.T - directed * directed.T

    found = torch.zeros(300, 300)
    found[GRAPH.head, GRAPH.tail] = GRAPH.weight

    torch.testing.assert_close(found, union)


def test_a_layout_keeps_kinds_apart():
    for n_components in (2, 10):
        z = lay_out([(GRAPH, BLOBS, generator())], n_components, quiet)[0]

        assert z.shape == (300, n_components)
        near = NearestNeighbors(n_neighbors=5).fit(z).kneighbors(return_distance=False)
        assert (KINDS[near] == KINDS[:, None]).mean() > 0.98


def test_layouts_together_are_what_each_is_alone():
    # In float64: in float32 rounding grows to .005 over the epochs, since products are summed in another order.
    blobs, few = BLOBS.double(), torch.randn(70, 20, generator=generator(3), dtype=torch.float64)
    graphs = [(fuzzy_graph(search(x, 5, generator(), quiet)), x) for x in (blobs, few, blobs)]

    together = lay_out([(*graph, generator(seed)) for seed, graph in enumerate(graphs)], 3, quiet)

    for seed, graph in enumerate(graphs):
        (alone,) = lay_out([(*graph, generator(seed))], 3, quiet)
        torch.testing.assert_close(together[seed], alone, rtol=0, atol=1e-8)
    assert not torch.allclose(together[0], together[2], atol=1), "their seeds differ"


def test_a_seed_gives_one_layout_on_any_number_of_threads():
    x = torch.randn(6_000, 20, generator=generator())  # more than one block of rows

    alone, *others = (on_threads(n, layout, [(x, 0), (x, 1)]) for n in (1, 2, 4))

    for other in others:
        assert all(torch.equal(first, second) for first, second in zip(alone, other, strict=True))
    assert not torch.equal(*alone)


@pytest.mark.parametrize(
    "x", [torch.ones(40, 3), torch.arange(30.0)[:, None], torch.tensor([[0.0]] * 20 + [[1.0]] * 20)]
)
def test_copies_and_lines_have_finite_layouts(x):
    assert layout(x, 0, 5, 6).isfinite().all()


def test_components_of_the_graph_that_do_not_touch_stay_apart():
    x = torch.cat([torch.randn(100, 4, generator=generator(i)) + 100 * i for i in range(3)])

    z = layout(x, 0, 2)

    kinds = np.repeat(range(3), 100)
    near = NearestNeighbors(n_neighbors=5).fit(z).kneighbors(return_distance=False)
    assert (kinds[near] == kinds[:, None]).all()


def test_a_caller_can_stop_a_layout():
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        lay_out([(GRAPH, BLOBS, generator())], 2, stop)
