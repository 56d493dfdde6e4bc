"""Datasets over HTTP, on both set-ups; ingest jobs run in real runners."""

import gzip
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.factories import (
    blobs_of_pixels,
    cut_picture,
    idx,
    image_parquet,
    npy,
    npz,
    picture,
    tarred,
    zipped,
)


@pytest.fixture
def arrow_memory():
    """Arrow's memory, its peak counted from here on."""
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(usual)


def test_an_npz_becomes_a_dataset_whose_images_come_back_pixel_by_pixel(client, make_dataset):
    x, y = blobs_of_pixels(12)

    dataset = make_dataset(npz(12))

    assert dataset["state"] == "ready"
    facts = {name: dataset[name] for name in ("kind", "n_images", "width", "height", "channels", "has_targets")}
    assert facts == {"kind": "images", "n_images": 12, "width": 8, "height": 8, "channels": 1, "has_targets": True}
    got = client.get(f"/v1/datasets/{dataset['id']}/images/5")
    assert got.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(got.content))), x[5])
    page = client.get(f"/v1/datasets/{dataset['id']}/images", params={"limit": 12}).json()
    assert [image["target"] for image in page["items"]] == y.tolist()
    assert page["items"][5]["sha256"] == hashlib.sha256(got.content).hexdigest()


def test_a_zip_of_folders_keeps_files_as_they_are_and_names_targets_by_folder(client, make_dataset):
    files = {
        f"{kind}/{n}.png": picture(np.full((6, 9, 3), n * 40, np.uint8)) for kind in ("cat", "dog") for n in (1, 2)
    }

    dataset = make_dataset(zipped(files))

    assert (dataset["n_images"], dataset["target_names"], dataset["channels"]) == (4, ["cat", "dog"], 3)
    items = client.get(f"/v1/datasets/{dataset['id']}/images").json()["items"]
    assert [(item["name"], item["target"]) for item in items] == list(zip(files, [0, 0, 1, 1], strict=True))
    assert client.get(f"/v1/datasets/{dataset['id']}/images/3").content == files["dog/2.png"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_refused_files_are_listed_and_the_others_ingested(client, make_dataset):
    files = {"a.png": picture(), "b.png": picture(), "notes.txt": b"hello", "cut.png": cut_picture()}
    files |= {"__MACOSX/a.png": b"", ".hidden": b""}

    dataset = make_dataset(zipped(files))

    assert (dataset["n_images"], dataset["n_rejects"]) == (2, 2)
    rejects = client.get(f"/v1/datasets/{dataset['id']}/rejects").json()["items"]
    assert {reject["name"]: reject["code"] for reject in rejects} == {
        "notes.txt": "not_an_image",
        "cut.png": "broken_image",
    }


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize("form", ["tar", "tar.gz", "idx", "idx pair", "idx.gz pair", "parquet"])
def test_images_in_every_form(client, make_dataset, form):
    x, y = blobs_of_pixels(9)
    files = {f"p{n}.png": picture(image) for n, image in enumerate(x)}
    pair = {"t-images-idx3-ubyte": idx(x), "t-labels-idx1-ubyte": idx(y)}
    data = {
        "tar": tarred(files, "w"),
        "tar.gz": tarred(files),
        "idx": idx(x),
        "idx pair": zipped(pair),
        "idx.gz pair": zipped({f"{name}.gz": gzip.compress(part) for name, part in pair.items()}),
        "parquet": image_parquet(list(files.values()), y.tolist()),
    }[form]

    dataset = make_dataset(data)

    assert (dataset["kind"], dataset["n_images"], dataset["n_rejects"]) == ("images", 9, 0)
    assert dataset["has_targets"] == (form in ("idx pair", "idx.gz pair", "parquet"))
    items = client.get(f"/v1/datasets/{dataset['id']}/images").json()["items"]
    if dataset["has_targets"]:
        assert [item["target"] for item in items] == y.tolist()
    for index in (0, 8):
        got = client.get(f"/v1/datasets/{dataset['id']}/images/{index}").content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(got))), x[index])


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_one_image_file_becomes_a_dataset_of_one_image(client, work, form):
    data = picture(np.full((6, 9), 200, np.uint8), form)
    created = client.post("/v1/datasets", files={"file": (f"holiday.{form.lower()}", data)})
    work()

    dataset = client.get(created.headers["location"]).json()

    facts = {name: dataset[name] for name in ("state", "kind", "n_images", "n_rejects", "width", "height", "name")}
    name = f"holiday.{form.lower()}"
    assert facts == {
        "state": "ready", "kind": "images", "n_images": 1, "n_rejects": 0, "width": 9, "height": 6, "name": name
    }  # fmt: skip
    assert client.get(f"/v1/datasets/{dataset['id']}/images").json()["items"][0]["name"] == name
    stored = Image.open(io.BytesIO(client.get(f"/v1/datasets/{dataset['id']}/images/0").content))
    assert abs(np.asarray(stored.convert("L")).astype(int) - 200).max() <= 2


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_an_image_whose_pixels_are_cut_off_fails_the_job_with_the_reason(client, work):
    created = client.post("/v1/datasets", content=cut_picture())
    assert created.status_code == 201

    work()

    dataset = client.get(created.headers["location"]).json()
    assert (dataset["state"], dataset["error"]["code"]) == ("failed", "no_images")
    assert "damaged or incomplete" in dataset["error"]["message"]


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
@pytest.mark.parametrize("form", ["npy", "npz", "list", "columns"])
def test_vectors_in_every_form(client, make_dataset, form):
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    out = io.BytesIO()
    if form == "list":
        pq.write_table(
            pa.table({"vector": list(vectors), "label": [1] * 20, "name": [f"n{i}" for i in range(20)]}), out
        )
    elif form == "columns":
        pq.write_table(pa.table({f"f{i}": vectors[:, i] for i in range(3)}), out)
    data = {"npy": npy(vectors), "npz": npz(x=vectors)}.get(form) or out.getvalue()

    dataset = make_dataset(data)

    assert (dataset["kind"], dataset["n_images"], dataset["n_features"]) == ("vectors", 20, 3)
    assert dataset["has_targets"] == (form == "list")
    assert client.get(f"/v1/datasets/{dataset['id']}/images/0").json()["code"] == "not_images"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_huge_name_that_many_rows_share_is_cut_and_takes_little_memory(client, make_dataset, arrow_memory):
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * (20 << 20)]))
    vectors, images = io.BytesIO(), io.BytesIO()
    rows = pa.array([{"bytes": picture(), "path": "a.png"}] * 200)
    # Without the Arrow schema a reader takes the names for what they are: 4 GB of plain strings.
    pq.write_table(pa.table({"vector": [[1.0, 2.0]] * 200, "name": names}), vectors, store_schema=False)
    pq.write_table(pa.table({"image": rows, "name": names}), images, store_schema=False)
    before = arrow_memory.max_memory()

    for data in (vectors.getvalue(), images.getvalue()):
        dataset = make_dataset(data)

        items = client.get(f"/v1/datasets/{dataset['id']}/images").json()["items"]
        assert dataset["n_images"] == 200
        assert items[0]["name"] == "x" * 4096
    assert arrow_memory.max_memory() - before < 200 << 20


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_form_and_a_raw_body_give_the_same_dataset(client, make_dataset, work):
    data = npz(6)
    raw = make_dataset(data)
    created = client.post("/v1/datasets?name=mine", files={"file": ("six.npz", data)})
    work()

    form = client.get(created.headers["location"]).json()

    same = ("n_images", "n_bytes", "kind", "width", "height")
    assert [form[name] for name in same] == [raw[name] for name in same]
    assert (form["name"], raw["name"]) == ("mine", "upload")


def test_ingest_leaves_the_published_files_only(client, make_dataset, blobs, settings):
    dataset = make_dataset()
    from app.store import Database
    from app.store.sweep import sweep

    database = Database(settings.resolved_database_url)
    sweep(database, blobs, keep_checkpoints_s=3600)
    database.close()

    assert {key.rsplit("/", 1)[1] for key in blobs.keys("t/")} == {"images-00000.parquet", "rejects.parquet"}
    assert all(dataset["job_id"] in key for key in blobs.keys("t/"))


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_other_tools_read_the_files_as_images(make_dataset, blobs):
    make_dataset()
    key = next(key for key in blobs.keys("t/") if key.endswith("images-00000.parquet"))

    table = pq.read_table(io.BytesIO(blobs.get(key)))

    assert table.schema.field("image").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert Image.open(io.BytesIO(table["image"][0].as_py()["bytes"])).size == (8, 8)


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_thumbnail_is_a_png_of_the_asked_size(client, make_dataset):
    dataset = make_dataset(zipped({"big.jpg": picture(np.zeros((300, 200, 3), np.uint8), "JPEG")}))

    got = client.get(f"/v1/datasets/{dataset['id']}/images/0", params={"thumbnail": 30})

    assert Image.open(io.BytesIO(got.content)).size == (20, 30)
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_thumbnail_waits_for_its_place_in_the_pixel_budget(client, make_dataset):
    dataset = make_dataset(picture())
    url = f"/v1/datasets/{dataset['id']}/images/0"
    with ThreadPoolExecutor() as pool:
        with client.app.state.service.desk.pixels.take(100_000, 100_000):  # all there is
            waiting = pool.submit(client.get, url, params={"thumbnail": 8})
            assert client.get(url).status_code == 200
            with pytest.raises(TimeoutError):
                waiting.result(0.3)

        assert waiting.result(10).status_code == 200


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_images_outside_the_dataset_are_not_found(client, make_dataset):
    dataset = make_dataset()

    for index in (-1, 12):
        response = client.get(f"/v1/datasets/{dataset['id']}/images/{index}")
        assert (response.status_code, response.json()["code"]) == (404, "image_not_found")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_pages_walk_every_image_once(client, make_dataset):
    dataset = make_dataset()
    seen, cursor = [], None
    while True:
        params = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/datasets/{dataset['id']}/images", params=params).json()
        seen += [item["index"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert seen == list(range(12))


def test_a_deleted_dataset_leaves_nothing(client, make_dataset, blobs, settings, database):
    from app.store.sweep import sweep

    dataset = make_dataset()

    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 202

    assert client.get(f"/v1/datasets/{dataset['id']}").json()["code"] == "dataset_not_found"
    assert client.get(f"/v1/jobs/{dataset['job_id']}").json()["code"] == "job_not_found"
    sweep(database, blobs, keep_checkpoints_s=3600)
    assert list(blobs.keys("t/")) == []


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_dataset_being_ingested_cannot_be_deleted_or_read(client):
    created = client.post("/v1/datasets", content=npz(6)).json()

    assert client.delete(f"/v1/datasets/{created['id']}").json()["code"] == "in_use"
    response = client.get(f"/v1/datasets/{created['id']}/images")
    assert (response.status_code, response.json()["code"]) == (409, "dataset_not_ready")


def test_a_cancelled_ingest_can_be_retried(client, work):
    created = client.post("/v1/datasets", content=npz(6)).json()
    assert client.post(f"/v1/jobs/{created['job_id']}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/v1/datasets/{created['id']}").json()["error"]["code"] == "cancelled"

    assert client.post(f"/v1/jobs/{created['job_id']}/retry").status_code == 202
    work()

    assert client.get(f"/v1/datasets/{created['id']}").json()["state"] == "ready"


def test_the_same_idempotency_key_creates_one_dataset(client, blobs):
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/v1/datasets", content=npz(6), headers=headers)
    again = client.post("/v1/datasets", content=npz(6), headers=headers)
    other = client.post("/v1/datasets", content=npz(7), headers=headers)

    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get("/v1/datasets").json()["items"]) == 1
    assert len(list(blobs.keys("t/"))) == 1
