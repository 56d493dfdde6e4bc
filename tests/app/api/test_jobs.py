"""Jobs and models over HTTP, on both set-ups, with real runners."""

import numpy as np
import pytest

from models.worth.metrics import ari
from tests.factories import add_model, blobs_of_pixels, npy, npz, picture
from tests.marks import production_first


def train(client, dataset, **more):
    body = {"kind": "train", "dataset_id": dataset["id"], "method": "kmeans", "config": {"n_clusters": 3}, **more}
    return client.post("/v1/jobs", json=body)


@production_first
def test_the_main_job_from_upload_to_cluster_ids(client, make_dataset, work):
    x, y = blobs_of_pixels(30)
    dataset = make_dataset(npz(30))
    job = train(client, dataset, seed=1).json()
    assert (job["state"], job["config"]["n_clusters"]) == ("queued", 3)

    work()

    job = client.get(f"/v1/jobs/{job['id']}").json()
    assert (job["state"], job["progress"], job["attempt"]) == ("succeeded", 1.0, 1)
    model = client.get(f"/v1/models/{job['model_id']}").json()
    assert model["scores"]["acc"] == 1.0
    clusters = client.get(f"/v1/models/{model['id']}/clusters").json()["items"]
    assert sorted(cluster["size"] for cluster in clusters) == [10, 10, 10]

    page = client.get(f"/v1/assignment-sets/{job['assignment_set_id']}/assignments", params={"limit": 30}).json()
    stored = [item["cluster"] for item in page["items"]]
    assert ari(y, stored) == 1.0
    new, kinds = blobs_of_pixels(9, seed=5)
    files = [("file", (f"{n}.png", picture(image))) for n, image in enumerate(new)]
    answers = client.post(f"/v1/models/{model['id']}/assign", files=files).json()["items"]
    assert ari(kinds, [answer["cluster"] for answer in answers]) == 1.0
    same = client.post(f"/v1/models/{model['id']}/assign", content=picture(x[4]), headers={"content-type": "image/png"})
    assert same.json()["items"][0]["cluster"] == stored[4]
    assert same.json()["items"][0]["confidence"] == pytest.approx(page["items"][4]["confidence"], abs=1e-5)


def test_clusters_list_their_images_surest_first(trained):
    client, model_id, _ = trained
    cluster = client.get(f"/v1/models/{model_id}/clusters").json()["items"][1]

    page = client.get(f"/v1/models/{model_id}/clusters/1/images", params={"limit": 2}).json()
    rest = client.get(f"/v1/models/{model_id}/clusters/1/images", params={"cursor": page["next_cursor"]}).json()

    items = page["items"] + rest["items"]
    assert len(items) == cluster["size"]
    assert {item["cluster"] for item in items} == {1}
    confidences = [item["confidence"] for item in items]
    assert confidences == sorted(confidences, reverse=True)
    assert [item["index"] for item in items[:3]] == cluster["exemplars"][:3]
    assert client.get(f"/v1/models/{model_id}/clusters/3/images").json()["code"] == "cluster_not_found"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_vectors_are_clustered_and_assigned(client, make_dataset, work):
    centers = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float32), 10, axis=0)
    points = centers + np.random.default_rng(0).normal(scale=0.1, size=(30, 2))
    job = train(client, make_dataset(npy(points)), method="gmm").json()
    work()
    model_id = client.get(f"/v1/jobs/{job['id']}").json()["model_id"]

    answers = client.post(f"/v1/models/{model_id}/assign", json={"vectors": [[0, 0], [9, 0], [0, 9], [0.1, 9]]}).json()

    ids = [item["cluster"] for item in answers["items"]]
    assert len(set(ids[:3])) == 3
    assert ids[3] == ids[2]
    assert all(item["confidence"] > 0.99 for item in answers["items"])


@production_first
def test_a_model_assigns_another_dataset_as_it_assigns_single_images(client, make_dataset, work):
    job = train(client, make_dataset(npz(30))).json()
    work()
    model_id = client.get(f"/v1/jobs/{job['id']}").json()["model_id"]
    other = make_dataset(npz(21, seed=3))

    created = client.post("/v1/jobs", json={"kind": "assign", "model_id": model_id, "dataset_id": other["id"]}).json()
    work()

    done = client.get(f"/v1/jobs/{created['id']}").json()
    assert done["state"] == "succeeded"
    found = client.get(f"/v1/assignment-sets/{done['assignment_set_id']}").json()
    assert (found["n_images"], found["scores"]["acc"], found["model_id"]) == (21, 1.0, model_id)
    items = client.get(f"/v1/assignment-sets/{found['id']}/assignments").json()["items"]
    files = [("file", (str(n), client.get(f"/v1/datasets/{other['id']}/images/{n}").content)) for n in range(21)]
    single = client.post(f"/v1/models/{model_id}/assign", files=files).json()["items"]
    assert [item["cluster"] for item in items] == [item["cluster"] for item in single]


def test_a_jobs_events_tell_its_story_in_order(trained):
    client, model_id, _ = trained
    job_id = client.get(f"/v1/models/{model_id}").json()["job_id"]

    page = client.get(f"/v1/jobs/{job_id}/events", params={"limit": 200}).json()

    assert page["next_cursor"] is None
    states = [event["data"]["state"] for event in page["items"] if event["type"] == "state"]
    phases = [event["data"]["phase"] for event in page["items"] if event["type"] == "phase"]
    assert states == ["queued", "running", "succeeded"]
    assert phases == ["load", "embed", "cluster", "summarise", "export", "assign", "draw", "publish"]
    progress = [event["data"]["progress"] for event in page["items"] if "progress" in event["data"]]
    assert progress == sorted(progress)
    assert [event["id"] for event in page["items"]] == sorted(event["id"] for event in page["items"])


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_an_unchanged_job_is_not_sent_again(client, make_dataset):
    job = train(client, make_dataset()).json()
    first = client.get(f"/v1/jobs/{job['id']}")

    again = client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]})
    client.post(f"/v1/jobs/{job['id']}/cancel")
    changed = client.get(f"/v1/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_cancelled_job_can_be_retried_and_an_ended_one_not_cancelled(client, make_dataset, work, database, blobs):
    dataset = make_dataset(npy(np.eye(2)))
    body = {"kind": "assign", "model_id": add_model(database, blobs), "dataset_id": dataset["id"]}
    job = client.post("/v1/jobs", json=body).json()
    assert client.post(f"/v1/jobs/{job['id']}/retry").json()["code"] == "wrong_state"
    assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 202
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["code"] == "wrong_state"
    work()
    assert client.get(f"/v1/jobs/{job['id']}").json()["attempt"] == 0

    retried = client.post(f"/v1/jobs/{job['id']}/retry").json()
    work()

    assert retried["state"] == "queued"
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize("settings", ["embedded"], indirect=True)
def test_a_job_on_an_unfinished_dataset_is_a_conflict(client):
    created = client.post("/v1/datasets", content=npz()).json()

    assert train(client, created).json()["code"] == "dataset_not_ready"


def test_one_idempotency_key_makes_one_job(client, make_dataset):
    dataset = make_dataset()
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3}}
    answers = [client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"}) for _ in range(3)]
    other = client.post("/v1/jobs", json={**body, "seed": 9}, headers={"Idempotency-Key": "k"})

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get("/v1/jobs", params={"kind": "train"}).json()["items"]) == 1


@production_first
def test_models_are_renamed_listed_downloaded_and_deleted(client, make_dataset, work, blobs, database):
    import hashlib

    import onnxruntime

    from app.store.sweep import sweep

    dataset = make_dataset()
    train(client, dataset, name="first")
    work()
    model = client.get("/v1/models").json()["items"][0]
    assert model["name"] == "first"
    assert client.patch(f"/v1/models/{model['id']}", json={"description": "good"}).json()["description"] == "good"

    graph = client.get(f"/v1/models/{model['id']}/artifacts/model.onnx")
    assert hashlib.sha256(graph.content).hexdigest() == model["artifacts"]["model.onnx"]["sha256"]
    outputs = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"]).get_outputs()
    assert [output.name for output in outputs] == ["probabilities", "is_outlier", "embedding", "distance"]
    assert client.get(f"/v1/models/{model['id']}/artifacts/nope").json()["code"] == "artifact_not_found"

    assert client.delete(f"/v1/datasets/{dataset['id']}").json()["code"] == "dataset_has_models"
    assert client.delete(f"/v1/models/{model['id']}").status_code == 202
    assert client.get(f"/v1/models/{model['id']}").status_code == 404
    assert client.get("/v1/assignment-sets").json()["items"] == []
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 202
    sweep(database, blobs, keep_checkpoints_s=3600)
    assert list(blobs.keys("t/")) == []
