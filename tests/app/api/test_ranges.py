"""What range readers, browsers and proxies need: HEAD, forms by name, other origins, paths behind a proxy."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.app.intake.makers import parquet, photo
from tests.factories import client_of, npz

pytestmark = pytest.mark.parametrize("settings", ["embedded"], indirect=True)


@pytest.fixture
def model(client, make_dataset, work):
    """A model of kmeans on small images."""
    body = {"kind": "train", "dataset_id": make_dataset()["id"], "method": "kmeans", "config": {"n_clusters": 2}}
    job = client.post("/v1/jobs", json=body).json()
    work()
    model_id = client.get(f"/v1/jobs/{job['id']}").json()["model_id"]
    return client.get(f"/v1/models/{model_id}").json()


def test_head_says_what_get_would_and_sends_no_body(client, model):
    urls = [
        f"/v1/models/{model['id']}/artifacts/model.onnx",
        f"/v1/assignment-sets/{model['assignment_set_id']}/assignments?format=parquet",
        f"/v1/datasets/{model['dataset_id']}/images/0",
    ]
    for url in urls:
        got, head = client.get(url), client.head(url)

        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(got.content))
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers.get("etag") == got.headers.get("etag")
    part = client.head(urls[0], headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")
    assert client.head("/v1/models/mdl_none/artifacts/model.onnx").status_code == 404


@pytest.mark.parametrize(
    ("form", "media_type"),
    [
        ("json", "application/json"),
        ("csv", "text/csv; charset=utf-8"),
        ("jsonl", "application/x-ndjson"),
        ("arrow", "application/vnd.apache.arrow.stream"),
        ("parquet", "application/vnd.apache.parquet"),
    ],
)
def test_a_form_can_be_named_in_the_address(client, model, form, media_type):
    url = f"/v1/assignment-sets/{model['assignment_set_id']}/assignments"

    named = client.get(url, params={"format": form})
    accepted = client.get(url, headers={"Accept": media_type.partition(";")[0]})

    assert named.headers["content-type"] == media_type
    assert named.content == accepted.content


def test_cursors_belong_to_one_list(client, model):
    lists = [
        "/v1/datasets",
        "/v1/jobs",
        f"/v1/datasets/{model['dataset_id']}/images",
        f"/v1/models/{model['id']}/clusters",
        f"/v1/assignment-sets/{model['assignment_set_id']}/assignments",
        f"/v1/jobs/{model['job_id']}/events",
    ]
    client.post("/v1/datasets", content=npz(6, seed=1))
    cursors = {}
    for url in lists:
        cursors[url] = client.get(url, params={"limit": 1}).json()["next_cursor"]
        assert cursors[url]
        assert client.get(url, params={"cursor": cursors[url]}).status_code == 200
    for url in lists:
        for other in lists:
            answer = client.get(url, params={"cursor": cursors[other]})
            assert answer.status_code == (200 if url == other else 422), (url, other)
            assert url == other or answer.json()["code"] == "bad_cursor"


def test_media_types_are_compared_without_case(client, make_dataset):
    upload = client.post("/v1/uploads", content=b'{"filename": "x"}', headers={"Content-Type": "Application/JSON"})
    assert upload.status_code == 201
    client.put(f"/v1/uploads/{upload.json()['id']}/parts/1", content=npz())
    client.post(f"/v1/uploads/{upload.json()['id']}/complete")
    named = json.dumps({"upload_id": upload.json()["id"]})
    created = client.post("/v1/datasets", content=named, headers={"Content-Type": "APPLICATION/json; charset=utf-8"})
    assert created.status_code == 201, created.json()


def form(*files: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of (field, the rest of the disposition, bytes)."""
    parts = b"".join(
        f"--mark\r\nContent-Disposition: form-data; name={field}; {rest}\r\n\r\n".encode() + data + b"\r\n"
        for field, rest, data in files
    )
    return parts + b"--mark--\r\n", {"Content-Type": "Multipart/Form-Data; boundary=mark"}


def test_a_name_in_the_extended_form_is_read(client, work):
    body, headers = form(("file", "filename*=UTF-8''caf%C3%A9.npz", npz()))

    created = client.post("/v1/datasets", content=body, headers=headers)

    assert created.json()["name"] == "café.npz"


def test_several_files_of_a_form_are_one_dataset(client, work):
    pictures = [photo(n) for n in range(3)]
    body, headers = form(*[("files", f'filename="kind{n % 2}/{n}.png"', data) for n, data in enumerate(pictures)])

    created = client.post("/v1/datasets", content=body, headers=headers).json()
    work()

    dataset = client.get(f"/v1/datasets/{created['id']}").json()
    assert (dataset["n_images"], dataset["target_names"]) == (3, ["kind0", "kind1"])
    assert client.get(f"/v1/datasets/{created['id']}/images/2").content == pictures[2]
    body, headers = form(("file", 'filename="a.png"', pictures[0]), ("file", 'filename="b.png"', pictures[1]))
    refused = client.post("/v1/datasets", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "broken_form")
    assert "name the field `files`" in refused.json()["detail"]


def test_shards_of_a_table_in_one_form_are_one_dataset(client, work):
    x = np.random.default_rng(0).normal(size=(20, 3))
    shards = [parquet({f"f{n}": x[rows, n] for n in range(3)}) for rows in (slice(0, 12), slice(12, 20))]
    body, headers = form(*[("files", f'filename="part-{n}.parquet"', data) for n, data in enumerate(shards)])

    created = client.post("/v1/datasets", content=body, headers=headers).json()
    work()

    dataset = client.get(f"/v1/datasets/{created['id']}").json()
    assert (dataset["n_images"], dataset["n_features"], dataset["state"]) == (20, 3, "ready")


def test_pages_of_named_origins_may_call(settings):
    with client_of(settings.model_copy(update={"cors_origins": "https://a.example, https://b.example"})) as client:
        asked = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
        allowed = client.options("/v1/jobs", headers={**asked, "Access-Control-Request-Headers": "authorization"})
        assert allowed.headers["access-control-allow-origin"] == "https://b.example"
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        got = client.get("/v1/jobs", headers={"Origin": "https://a.example"})
        assert got.headers["access-control-allow-origin"] == "https://a.example"
        assert (
            "access-control-allow-origin" not in client.get("/v1/jobs", headers={"Origin": "https://c.example"}).headers
        )


def test_behind_a_proxy_locations_carry_its_path(settings):
    with client_of(settings.model_copy(update={"root_path": "/clusters"})) as client:
        created = client.post("/v1/uploads", json={"filename": "x"})

        assert created.headers["location"] == f"/clusters/v1/uploads/{created.json()['id']}"
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/clusters"}]


def test_what_is_exported_as_parquet_is_read_by_others(client, model):
    url = f"/v1/assignment-sets/{model['assignment_set_id']}/assignments"

    table = pq.read_table(io.BytesIO(client.get(url, params={"format": "parquet"}).content))

    assert table.num_rows == model["n_images"]
