"""Neighbours against scikit-learn's, modularity against networkx's."""

import math

import networkx
import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from models.start import neighbours
from models.start.neighbours import Neighbours, advantage, modularity, overruled, search
from tests.models.start.makers import generator, quiet


def test_few_rows_have_scikit_learns_neighbours():
    x = np.random.default_rng(0).normal(size=(700, 8)).astype(np.float32) + 1000

    near = search(torch.from_numpy(x), 10, generator(), quiet)

    distance, index = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(x.astype(np.float64)).kneighbors(x)
    assert (near.index.numpy() == index).mean() > 0.999
    np.testing.assert_allclose(near.distance.numpy(), distance, atol=1e-3)
    assert near.distance.dtype == torch.float32


def test_a_row_is_its_own_first_neighbour_even_among_copies():
    x = torch.arange(5.0).repeat_interleave(4)[:, None]  # four copies of each

    near = search(x, 6, generator(), quiet)

    assert (near.index[:, 0] == torch.arange(20)).all()
    assert (near.distance[:, :4] == 0).all()
    assert all(len(set(row)) == 6 for row in near.index.tolist())
    assert near.index[1, :4].tolist() == [1, 0, 2, 3], "copies are in the order of their indexes"


def test_cells_find_nearly_all_true_neighbours(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_UNTIL", 2_000)
    monkeypatch.setattr(neighbours, "CELL_ROWS", 100)
    x = np.random.default_rng(0).normal(size=(8_000, 6)).astype(np.float32)

    near = search(torch.from_numpy(x), 10, generator(), quiet)

    true = NearestNeighbors(n_neighbors=10).fit(x).kneighbors(x, return_distance=False)
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(near.index.tolist(), true.tolist(), strict=True)]
    assert np.mean(shares) > 0.9  # noise in six dimensions: no cell has an inside
    assert (near.index[:, 0] == torch.arange(8_000)).all()
    assert (near.distance.diff(dim=1) >= 0).all()


def test_cells_do_not_grow_with_the_number_of_copies(monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_UNTIL", 1_000)
    monkeypatch.setattr(neighbours, "CELL_ROWS", 100)
    x = torch.ones(3_000, 2)

    near = search(x, 5, generator(), quiet)

    assert (near.index[:, 0] == torch.arange(3_000)).all()
    assert (near.distance == 0).all()
    assert max(map(len, neighbours._cells(x, generator(), quiet))) <= 200


def test_a_caller_can_stop_a_search():
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        search(torch.zeros(50, 2), 5, generator(), stop)


def test_modularity_is_networkxs():
    index = torch.tensor([[0, 1], [1, 0], [2, 1], [3, 4], [4, 3], [5, 4]])
    near = Neighbours(index, torch.zeros(6, 2))
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    graph = networkx.Graph([(0, 1), (2, 1), (3, 4), (5, 4)])

    found = modularity(near, labels)

    assert found == pytest.approx(networkx.community.modularity(graph, [{0, 1, 2}, {3, 4, 5}]))
    assert found == pytest.approx(0.5)
    assert modularity(near, torch.zeros(6, dtype=torch.long)) == pytest.approx(0)


def kinds_and_halves(n_each: int = 60) -> tuple[Neighbours, torch.Tensor, torch.Tensor]:
    """Neighbours of three far kinds; the kinds, and a partition that gives half of the first to the second."""
    x = torch.randn(3 * n_each, 2, generator=generator()) + 100 * torch.arange(3).repeat_interleave(n_each)[:, None]
    kinds = torch.arange(3).repeat_interleave(n_each)
    halved = kinds.clone()
    halved[: n_each // 2] = 1
    return search(x, 5, generator(), quiet), kinds, halved


def test_an_advantage_is_networkxs_difference_in_standard_errors_of_the_edges_that_change_sides():
    near, kinds, halved = kinds_and_halves()
    graph = networkx.Graph([(row, int(other)) for row in range(180) for other in near.index[row, 1:]])
    parts = [[set(torch.nonzero(labels == k).flatten().tolist()) for k in range(3)] for labels in (kinds, halved)]
    difference = networkx.community.modularity(graph, parts[0]) - networkx.community.modularity(graph, parts[1])
    n_changed = sum((kinds[a] == kinds[b]) != (halved[a] == halved[b]) for a, b in graph.edges)

    found = advantage(near, kinds, halved)

    assert found == pytest.approx(difference * graph.number_of_edges() / math.sqrt(n_changed))
    assert advantage(near, halved, kinds) == pytest.approx(-found)
    assert advantage(near, (kinds + 1) % 3, kinds) == 0  # other names, the same edges


def test_neighbours_overrule_the_likeliest_partition_only_where_they_clearly_prefer_another():
    near, kinds, halved = kinds_and_halves()
    nearly = kinds.clone()
    nearly[0] = 1  # one image on the wrong side

    assert overruled(near, [halved, kinds, nearly], 0) == 1
    assert overruled(near, [kinds, halved], 0) == 0
    assert overruled(near, [nearly, kinds], 0) == 0  # better, and not clearly
    assert overruled(near.first(4), [halved, kinds], 0) == 0  # four nearest neighbours are not known
