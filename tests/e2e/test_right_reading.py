"""Files that are easily misread give the scores that a right reading gives, from upload to clusters."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.app.intake.makers import encoded, parquet, photo
from tests.factories import npz, zipped

RNG = np.random.default_rng(3)


@pytest.fixture
def trained(client, make_dataset, work):
    """Uploads a file and clusters it: the dataset, the job and the model."""

    def train(data: bytes, n_clusters: int, **config):
        dataset = make_dataset(data)
        body = {
            "kind": "train",
            "dataset_id": dataset["id"],
            "method": "kmeans",
            "config": {"n_clusters": n_clusters, **config},
        }
        created = client.post("/v1/jobs", json=body)
        assert created.status_code == 201, created.json()
        work()
        job = client.get(created.headers["location"]).json()
        assert job["state"] == "succeeded", job["error"]
        return dataset, job, client.get(f"/v1/models/{job['model_id']}").json()

    return train


def two_kinds(noise: float = 15, n_each: int = 30) -> np.ndarray:
    """Gray images of two plainly different patterns, in turns: (2 n, 16, 16)."""
    base = RNG.integers(40, 216, (2, 16, 16))
    return np.clip(base[np.arange(2 * n_each) % 2] + RNG.normal(0, noise, (2 * n_each, 16, 16)), 0, 255).astype(
        np.uint8
    )


def test_a_number_of_the_row_does_not_hide_the_kinds(trained):
    label = RNG.integers(0, 2, 200)
    x = RNG.normal(0, 1, (200, 8)) + label[:, None] * 6
    columns = {f"f{n}": x[:, n] for n in range(8)}

    dataset, _, model = trained(parquet({"id": np.arange(200) * 10, **columns, "label": label}), 2)

    assert dataset["n_features"] == 8
    assert model["scores"]["acc"] == 1.0


def test_a_target_of_floats_neither_leaks_nor_is_lost(trained):
    kinds = np.arange(60) % 3
    x = RNG.normal(0, 1, (60, 6)) + 8 * np.eye(3)[kinds].repeat(2, axis=1)

    dataset, _, model = trained(parquet({**{f"f{n}": x[:, n] for n in range(6)}, "label": kinds.astype(float)}), 3)

    assert (dataset["n_features"], dataset["has_targets"]) == (6, True)
    assert model["scores"]["acc"] == 1.0


def test_splits_are_no_classes(trained):
    images = two_kinds()
    names = [f"ds/{'train' if n % 3 else 'test'}/{('cats', 'dogs')[n % 2]}/{n}.png" for n in range(60)]

    dataset, _, model = trained(zipped(dict(zip(names, map(encoded, map(Image.fromarray, images)), strict=True))), 2)

    assert dataset["target_names"] == ["cats", "dogs"]
    assert model["scores"]["acc"] == 1.0
    assert dataset["facts"]["splits"] == {"train": 40, "test": 20}


def test_low_counts_are_seen_and_new_images_are_read_alike(client, trained):
    counts = two_kinds().astype(np.uint16)
    files = {f"{'ab'[n % 2]}/{n}.tif": encoded(Image.fromarray(one), "TIFF") for n, one in enumerate(counts)}

    dataset, _, model = trained(zipped(files), 2)

    assert model["scores"]["acc"] == 1.0
    assert dataset["facts"]["range"] == {"depth": 16, "low": 0.0, "high": 255.0}
    assert model["input_spec"]["high"] == 255.0
    stored = client.get(f"/v1/assignment-sets/{model['assignment_set_id']}/assignments", params={"limit": 60}).json()
    for name, answers in (("a/0.tif", 0), ("b/1.tif", 1)):
        new = client.post(
            f"/v1/models/{model['id']}/assign", content=files[name], headers={"Content-Type": "image/tiff"}
        )
        assert new.json()["items"][0]["cluster"] == stored["items"][answers]["cluster"]
    array = client.post(f"/v1/models/{model['id']}/assign", content=npz(x=counts[:2])).json()["items"]
    assert [item["cluster"] for item in array] == [item["cluster"] for item in stored["items"][:2]]
    thumbnail = Image.open(io.BytesIO(client.get(f"/v1/datasets/{dataset['id']}/images/0?thumbnail=16").content))
    assert np.array_equal(np.array(thumbnail), counts[0])


def test_copies_of_one_image_are_no_outliers(client, trained):
    noisy = two_kinds()[:, :, :][::2].repeat(2, axis=0)
    noisy = np.clip(noisy + RNG.normal(0, 15, noisy.shape), 0, 255).astype(np.uint8)
    x, y = np.concatenate([noisy, np.zeros((40, 16, 16), np.uint8)]), np.repeat([0, 1], [60, 40])

    dataset, _, model = trained(npz(x=x, y=y), 2)

    assert model["scores"]["acc"] == 1.0
    clusters = client.get(f"/v1/models/{model['id']}/clusters").json()["items"]
    assert {cluster["size"]: cluster["n_outliers"] for cluster in clusters} == {60: 0, 40: 0}
    assert any(note["code"] == "duplicates" and note["count"] == 39 for note in dataset["notes"])


def test_zeros_and_ones_are_seen_as_truth_values_are(trained):
    digits = load_digits()
    found = {}
    for name, images in (("0/1", (digits.images > 7).astype(np.uint8)), ("bool", digits.images > 7)):
        dataset, _, model = trained(npz(x=images, y=digits.target), 10)
        found[name] = model["scores"]["acc"], dataset["facts"]["range"]["high"]

    assert found["0/1"] == found["bool"]
    assert found["0/1"][0] > 0.6
    assert found["0/1"][1] == 1


def test_more_clusters_than_distinct_images_are_refused_in_words(client, make_dataset):
    x = RNG.integers(0, 256, (5, 16, 16), dtype=np.uint8)[np.arange(60) % 5]
    dataset = make_dataset(npz(x=x))
    body = {"kind": "train", "dataset_id": dataset["id"], "method": "kmeans"}

    refused = client.post("/v1/jobs", json={**body, "config": {"n_clusters": 10}})

    assert (refused.status_code, refused.json()["code"]) == (409, "too_few_distinct_images")
    assert refused.json()["detail"] == "only 5 distinct images cannot form 10 clusters"
    assert client.post("/v1/jobs", json={**body, "config": {"n_clusters": 5}}).status_code == 201


def test_images_that_become_alike_at_the_models_size_fail_the_job_in_words(client, make_dataset, work):
    base = np.zeros((6, 64, 64), np.uint8)
    base[np.arange(6), 0, np.arange(6)] = 1  # one pixel in 4096, gone at 8 pixels
    dataset = make_dataset(
        zipped({f"{n}.png": encoded(Image.fromarray(one + np.uint8(100))) for n, one in enumerate(base)})
    )
    body = {
        "kind": "train",
        "dataset_id": dataset["id"],
        "method": "kmeans",
        "config": {"n_clusters": 4, "image_side": 8},
    }
    job = client.post("/v1/jobs", json=body).json()

    work()

    error = client.get(f"/v1/jobs/{job['id']}").json()["error"]
    assert error == {"code": "too_few_distinct_images", "message": "only 1 distinct images cannot form 4 clusters"}


def test_vectors_of_unlike_scale_are_standardized_and_it_is_said(trained):
    kinds = np.arange(90) % 3
    x = (RNG.normal(0, 1, (90, 6)) + 6 * np.eye(3)[kinds].repeat(2, axis=1)).astype(np.float32)
    x = np.concatenate([x, RNG.normal(0, 1000, (90, 1)).astype(np.float32)], axis=1)

    _, job, model = trained(npz(x=x, y=kinds), 3)
    _, plain_job, plain = trained(npz(x=x, y=kinds), 3, standardize="off")

    assert model["scores"]["acc"] == 1.0
    assert plain["scores"]["acc"] < 0.6
    assert [warning["code"] for warning in job["warnings"]] == ["standardized"]
    assert plain_job["warnings"] == []


def test_a_training_on_blank_images_warns(trained):
    x = np.full((30, 16, 16), 7, np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None]

    dataset, job, _ = trained(npz(x=x), 2)

    assert any(note["code"] == "one_colour" for note in dataset["notes"])
    assert "one_colour" in [warning["code"] for warning in job["warnings"]]


def test_the_caller_names_columns_over_http(client, work):
    x = RNG.normal(size=(30, 3))
    table = parquet(
        {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "kind": ["x", "y", "z"] * 10, "who": [f"n{n}" for n in range(30)]}
    )
    params = {"columns": ["a", "c"], "target": "kind", "names": "who"}

    created = client.post("/v1/datasets", content=table, params=params).json()
    work()

    dataset = client.get(f"/v1/datasets/{created['id']}").json()
    assert (dataset["n_features"], dataset["target_names"]) == (2, ["x", "y", "z"])
    assert client.get(f"/v1/datasets/{created['id']}/images").json()["items"][4]["name"] == "n4"
    refused = client.post("/v1/datasets", content=table, params={"columns": ["nowhere"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_column")


def test_a_four_colour_photo_has_a_thumbnail(client, make_dataset):
    cmyk = encoded(Image.open(io.BytesIO(photo(side=80))).convert("CMYK"), "JPEG")
    dataset = make_dataset(zipped({"a.jpg": cmyk, "b.jpg": photo(1, 80, "JPEG")}))

    answer = client.get(f"/v1/datasets/{dataset['id']}/images/0", params={"thumbnail": 64})

    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
