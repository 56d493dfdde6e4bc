"""Features of classical methods, and the vote that serves those which cannot assign."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from models import registry
from models.base import Run
from models.classical.features import Autoencoder
from models.errors import BadImages
from models.parts.heads import NeighbourVote
from models.worth.metrics import ari
from tests.models.battery import images, make

BASELINES = ("kmeans", "gmm", "spectral", "agglomerative", "hdbscan")


@pytest.mark.parametrize("method", BASELINES)
def test_every_baseline_works_on_the_codes_of_an_auto_encoder(method):
    x, kinds = images()

    model = make(method, x, features="autoencoder", n_feature_epochs=60).fit(x)

    assert model.embed(x).shape == (60, 10)
    assert ari(kinds, model.predict(x)) == 1.0


def test_nmf_takes_fewer_features_than_clusters():
    x, _ = images()

    model = make("nmf", x, features="autoencoder", n_feature_epochs=5, n_clusters=12).fit(x)

    assert len(np.unique(model.predict(x))) > 1


def test_as_many_clusters_as_inputs_are_too_many_for_spectral_clustering():
    x, _ = images()

    with pytest.raises(BadImages, match="more inputs than clusters"):
        make("spectral", x, n_clusters=60).fit(x)


def test_codes_are_dec_s_and_vectors_are_standardised():
    network = Autoencoder((7,))

    assert [layer.out_features for layer in network.encoder if hasattr(layer, "out_features")] == [500, 500, 2000, 10]
    network.standard.fit(np.random.default_rng(0).normal(5, 3, (500, 7)).astype(np.float32))
    flat = network.flat(torch.full((1, 7), 5.0))
    assert float(flat.detach().abs().max()) < 0.5


def test_the_vote_is_scikit_learns():
    rng = np.random.default_rng(0)
    stored, labels = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(0, 4, 300)
    new = rng.normal(size=(80, 5)).astype(np.float32)
    head = NeighbourVote(4, 5)
    head.take(torch.from_numpy(stored), torch.from_numpy(labels))

    expected = KNeighborsClassifier(15, weights="distance").fit(stored, labels).predict_proba(new)

    np.testing.assert_allclose(head(torch.from_numpy(new)), expected, atol=1e-4)


def test_a_stored_image_keeps_its_own_cluster():
    stored = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 1000
    head = NeighbourVote(50, 3)
    head.take(stored, torch.arange(50))

    assert head(stored).argmax(dim=1).tolist() == list(range(50))


def test_a_vote_is_among_at_most_twenty_thousand():
    x = np.random.default_rng(0).normal(size=(20_500, 2)).astype(np.float32)
    x[1::2, 0] += 20
    x[::2, 1] += 20
    x = np.abs(x)

    voted = make("nmf", x, n_clusters=2).fit(x)

    assert len(voted.network.head.stored) == 20_000
    assert ari(voted.predict(x[:2_000]), np.arange(2_000) % 2) > 0.99


def test_hdbscan_keeps_the_largest_regions_and_gives_noise_to_the_nearest():
    rng = np.random.default_rng(0)
    sizes, centers = (60, 40, 20), (0, 30, 60)
    x = np.concatenate([rng.normal(c, 1, (n, 2)) for n, c in zip(sizes, centers, strict=True)]).astype(np.float32)
    kinds = np.repeat([0, 1, 2], sizes)

    found = make("hdbscan", x, n_clusters=2, min_cluster_size=10).fit(x).predict(x)
    more = make("hdbscan", x, n_clusters=5, min_cluster_size=10).fit(x).predict(x)

    assert [set(found[kinds == k]) for k in (0, 1)] == [{0}, {1}]
    assert set(found[kinds == 2]) == {1}  # the third region is not kept; its images lie nearer to the second
    assert ari(kinds, more) == 1.0
    assert more.max() == 2


def test_nmf_tells_parts_apart_also_where_features_go_below_zero():
    kinds = np.arange(60) % 3
    x = np.random.default_rng(0).random((60, 6)).astype(np.float32)
    for k in range(3):
        x[kinds == k, 2 * k : 2 * k + 2] += 10

    for shift in (0, -20):
        assert (
            ari(kinds, make("nmf", x + np.float32(shift)).fit(x + np.float32(shift)).predict(x + np.float32(shift)))
            == 1
        )


@pytest.mark.parametrize(("method", "limit"), [("spectral", 100_000), ("agglomerative", 20_000), ("hdbscan", 20_000)])
def test_methods_that_compare_all_pairs_say_how_many_images_they_take(method, limit):
    assert registry.get(method).max_images == limit
    assert registry.get(method).profiles.keys() == {"paper"}


def test_average_linkage_is_another_partition_than_wards():
    """Two near groups and one far image: Ward would rather split what is many, average linkage what is far."""
    x = np.array([[0.0]] * 50 + [[4.0]] * 50 + [[16.0]], np.float32)
    x += np.random.default_rng(0).normal(scale=0.1, size=x.shape).astype(np.float32)

    sizes = {
        linkage: np.bincount(make("agglomerative", x, n_clusters=2, linkage=linkage).fit(x, Run()).network.head.labels)
        for linkage in ("ward", "average")
    }

    assert sorted(sizes["ward"]) == [50, 51]
    assert sorted(sizes["average"]) == [1, 100]
