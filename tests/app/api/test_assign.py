"""Cluster ids of new images: every kind of body, what may be asked for beside the cluster, and what load does."""

import io
import threading

import numpy as np
import pyarrow as pa
import pytest

from app.inference.desk import Desk
from tests.factories import blobs_of_pixels, npy, npz, picture

ARROW = "application/vnd.apache.arrow.stream"


def arrow(table: pa.Table, **options) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return out.getvalue()


def tensor(x: np.ndarray) -> pa.Table:
    return pa.table({"pixels": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))})


def post(client, model: str, content: bytes, **params):
    return client.post(f"/v1/models/{model}/assign", content=content, params=params)


def one_by_one(client, model: str, x: np.ndarray) -> list[tuple[int, float]]:
    answers = [post(client, model, picture(image)).json()["items"][0] for image in x]
    return [(answer["cluster"], answer["confidence"]) for answer in answers]


def test_arrays_and_arrow_give_the_answers_of_single_files(trained):
    client, model, _ = trained
    x, _ = blobs_of_pixels(9, seed=5)
    expected = one_by_one(client, model, x)
    files = pa.table({"image": [picture(image) for image in x], "name": [f"n{i}" for i in range(9)]})
    bodies = {
        "npz": npz(x=x),
        "tensor": arrow(tensor(x)),
        "files": arrow(files),
        "struct": arrow(pa.table({"image": [{"bytes": picture(image), "path": "p"} for image in x]})),
    }

    for name, body in bodies.items():
        items = post(client, model, body).json()["items"]
        assert [item["cluster"] for item in items] == [cluster for cluster, _ in expected], name
        np.testing.assert_allclose([i["confidence"] for i in items], [c for _, c in expected], atol=1e-6)
    assert [item["name"] for item in post(client, model, bodies["files"]).json()["items"]] == [
        f"n{i}" for i in range(9)
    ]


def test_arrays_of_another_size_and_color_are_brought_to_the_models_input(trained):
    client, model, _ = trained
    x = np.random.default_rng(0).integers(0, 255, (4, 20, 30, 3), np.uint8)

    by_array = post(client, model, npz(x=x)).json()["items"]

    assert [(item["cluster"], item["confidence"]) for item in by_array] == one_by_one(client, model, x)


def test_vectors_come_as_json_arrays_or_arrow(trained):
    client, _, model = trained
    vectors = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    expected = client.post(f"/v1/models/{model}/assign", json={"vectors": vectors.tolist()}).json()["items"]

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 2)
    for body in (npz(x=vectors), npy(vectors), arrow(pa.table({"v": column}))):
        assert post(client, model, body).json()["items"] == expected


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (npz(x=np.zeros((2, 3), np.float32)), 422, "wrong_data"),
        (npz(x=np.zeros((2, 8, 8), np.complex64)), 422, "unsupported_dtype"),
        (npz(x=np.zeros((10_001, 8, 8), np.uint8)), 413, "too_many_items"),
        (npz(x=np.zeros((2, 6000, 6000), np.uint8)), 413, "too_large"),
        (npz()[:200], 422, "broken_archive"),
        (arrow(tensor(np.zeros((3, 8, 8), np.uint8)))[:-300], 422, "broken_archive"),
        (arrow(tensor(np.zeros((300, 8, 8), np.uint8)), compression="zstd"), 422, "suspicious_compression"),
        (arrow(pa.table({"image": pa.array([b"x"]).dictionary_encode()})), 422, "unsupported_dtype"),
        (arrow(pa.table({"a": ["x"]})), 422, "wrong_shape"),
        (arrow(pa.table({"image": pa.array([], pa.binary())})), 422, "empty_body"),
        (b"\xff\xff\xff\xff" + b"\x40\0\0\0" + b"\xf0" * 64, 422, "broken_archive"),
        (b"PK\x03\x04rubbish", 422, "broken_archive"),
    ],
)
def test_a_batch_that_cannot_be_read_is_a_problem(trained, body, status, code):
    client, model, _ = trained

    response = post(client, model, body)

    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_bad_file_in_a_batch_gets_its_own_error(trained):
    client, model, _ = trained

    items = post(client, model, arrow(pa.table({"image": [picture(), b"text", None]}))).json()["items"]

    assert "cluster" in items[0]
    assert [item["error"]["code"] for item in items[1:]] == ["not_an_image", "not_an_image"]


def test_the_outlier_threshold_is_the_callers(trained):
    client, model, _ = trained
    x, _ = blobs_of_pixels(12)

    scores = [item["outlier_score"] for item in post(client, model, npz(x=x)).json()["items"]]
    strict = post(client, model, npz(x=x), outlier_score=0.5).json()["items"]

    assert [item["is_outlier"] for item in strict] == [score > 0.5 for score in scores]
    assert 0 < sum(item["is_outlier"] for item in strict) < 12
    assert post(client, model, npz(x=x), outlier_score=2).status_code == 422


def test_an_image_of_the_training_is_its_own_nearest(trained):
    client, model, _ = trained
    x, _ = blobs_of_pixels(12)

    items = post(client, model, npz(x=x), nearest=3, embedding=True).json()["items"]

    assert [item["nearest"][0]["index"] for item in items] == list(range(12))
    assert max(item["nearest"][0]["distance"] for item in items) < 1e-3
    z = np.array([item["embedding"] for item in items])
    second = [np.sort(np.linalg.norm(z - own, axis=1))[1] for own in z]
    np.testing.assert_allclose([item["nearest"][1]["distance"] for item in items], second, rtol=1e-5)


def test_numbers_near_the_largest_are_answered_as_outliers(trained):
    client, _, model = trained

    answer = client.post(f"/v1/models/{model}/assign", json={"vectors": [[3e38, -3e38]]})

    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    assert item["is_outlier"]
    assert 0 <= item["confidence"] <= 1


def test_a_picture_sent_again_is_answered_from_memory(trained):
    client, model, _ = trained
    data = picture(np.random.default_rng(7).integers(0, 255, (8, 8), np.uint8))
    first = post(client, model, data).json()
    serving = dict(client.app.state.service.shelf.cache.entries())[model]
    runs = []
    run, serving.batcher._run = serving.batcher._run, lambda *args: runs.append(args) or run(*args)

    again = post(client, model, data).json()
    serving.batcher._run = run

    assert again == first
    assert runs == []


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_a_file_is_decoded_as_ingest_and_training_decode_it(trained, work_on, form):
    """The pixels of a stored image, through every format, are those the service sees."""
    client, model, _ = trained
    x = np.random.default_rng(3).integers(0, 255, (24, 20), np.uint8)
    data = picture(x, form)
    dataset = client.post("/v1/datasets", content=data).json()
    work_on(client)
    stored = client.get(f"/v1/datasets/{dataset['id']}/images/0").content

    answers = [post(client, model, body, embedding=True).json()["items"][0] for body in (data, stored)]

    assert answers[0]["embedding"] == answers[1]["embedding"]  # k-means' embedding is the pixels


def test_drift_is_seen_in_the_metrics(trained):
    client, model, _ = trained

    post(client, model, npz(x=np.full((500, 8, 8), 10, np.uint8)))

    line = next(
        line for line in client.get("/metrics").text.splitlines()
        if line.startswith("clusterserve_model_drift") and model in line
    )  # fmt: skip
    assert float(line.split()[-1]) > 0.25


def test_what_does_not_fit_is_refused_with_429_and_everything_else_answered(embedded_settings, trained):
    """64 clients on a service that takes 40 images at once: only 200 and 429, and afterwards all is as before."""
    client, model, _ = trained
    parts = client.app.state.service
    small = Desk(max_images=40, max_bytes=1 << 20, deadline_s=10, pixels=parts.desk.pixels)
    object.__setattr__(parts, "desk", small)
    x = np.random.default_rng(0).integers(0, 255, (64, 8, 8), np.uint8)
    bodies = [npz(x=np.roll(x, n, axis=0)[:20]) for n in range(64)]
    statuses: list[tuple[int, str | None]] = []

    def send(body: bytes) -> None:
        response = post(client, model, body)
        statuses.append((response.status_code, response.headers.get("retry-after")))

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {status for status, _ in statuses} <= {200, 429}
    assert all(wait == "1" for status, wait in statuses if status == 429)
    assert (small._n_images, small._n_bytes) == (0, 0)
    assert post(client, model, bodies[0]).status_code == 200
