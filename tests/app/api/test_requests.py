"""Requests to a service with trained models: what is answered, and what is refused with which code."""

import numpy as np
import pytest
from sqlalchemy import event

from tests.factories import cut_picture, picture


def test_a_bad_file_among_good_ones_gets_its_own_error(trained):
    client, model, _ = trained
    files = [("file", ("a.png", picture())), ("file", ("b.txt", b"text")), ("file", ("c.png", cut_picture()))]

    items = client.post(f"/v1/models/{model}/assign", files=files).json()["items"]

    assert [item["name"] for item in items] == ["a.png", "b.txt", "c.png"]
    assert items[0]["cluster"] in (0, 1, 2)
    assert [item["error"]["code"] for item in items[1:]] == ["not_an_image", "broken_image"]


@pytest.mark.parametrize(
    ("which", "request_", "status", "code"),
    [
        (0, {"content": b""}, 422, "empty_body"),
        (0, {"content": b"text", "headers": {"content-type": "image/png"}}, 422, "not_an_image"),
        (0, {"json": {"vectors": [[1, 2]]}}, 422, "wrong_data"),
        (1, {"content": b"text"}, 422, "wrong_data"),
        (1, {"json": {"vectors": [[1, 2, 3]]}}, 422, "wrong_shape"),
        (1, {"json": {"vectors": []}}, 422, "wrong_shape"),
        (1, {"json": {"vectors": "x"}}, 422, "wrong_shape"),
        (1, {"json": {"vectors": [["1", "2"]]}}, 422, "wrong_shape"),
        (1, {"content": b"{", "headers": {"content-type": "application/json"}}, 422, "wrong_shape"),
        (
            1,
            {"content": b'{"vectors": [[NaN, 1]]}', "headers": {"content-type": "application/json"}},
            422,
            "not_finite",
        ),
        (1, {"json": {"vectors": [[1e39, 1]]}}, 422, "not_finite"),
        (0, {"data": {"a": "b"}, "files": {}}, 422, "not_an_image"),
    ],
)
def test_a_request_that_cannot_be_answered_is_a_problem(trained, which, request_, status, code):
    client, *models = trained

    response = client.post(f"/v1/models/{models[which]}/assign", **request_)

    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"config": {"n_clusters": 13}}, 409, "too_few_images"),
        ({"config": {"n_clusters": 1}}, 422, "invalid_config"),
        ({"config": {}}, 422, "invalid_config"),
        ({"config": {"n_clusters": 3, "n_clutsers": 3}}, 422, "invalid_config"),
        ({"config": {"n_clusters": "many"}}, 422, "invalid_config"),
        ({"method": "magic"}, 422, "unknown_method"),
        ({"profile": "turbo"}, 422, "unknown_profile"),
        ({"dataset_id": "ds_none"}, 404, "dataset_not_found"),
        ({"kind": "dance"}, 422, "validation_failed"),
        ({"colour": "red"}, 422, "validation_failed"),
        ({"seed": -1}, 422, "validation_failed"),
        ({"seed": True}, 422, "validation_failed"),
        ({"dataset_id": "ds_\0"}, 422, "validation_failed"),
        ({"priority": "1"}, 422, "validation_failed"),
        ({"config": {"n_clusters": "3"}}, 422, "invalid_config"),
        ({"config": {"n_clusters": 3, "n_init": True}}, 422, "invalid_config"),
        ({"config": {"n_clusters": 3, "tol": "1e-3"}}, 422, "invalid_config"),
    ],
)
def test_a_job_that_cannot_be_is_a_problem_and_queues_nothing(trained, change, status, code):
    client, *_ = trained
    dataset = client.get("/v1/datasets").json()["items"][-1]
    before = client.get("/v1/jobs").json()

    body = {"kind": "train", "dataset_id": dataset["id"], "method": "kmeans", "config": {"n_clusters": 3}, **change}
    response = client.post("/v1/jobs", json=body)

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/jobs").json() == before


def test_numbers_without_a_fraction_are_integers_as_in_json_schema(trained):
    client, *_ = trained
    dataset = client.get("/v1/datasets").json()["items"][-1]
    config = {"n_clusters": 3.0, "n_init": 2.0, "tol": 1}
    body = {"kind": "train", "dataset_id": dataset["id"], "method": "kmeans", "config": config, "seed": 4.0}

    response = client.post("/v1/jobs", json=body, params={"dry_run": True})

    assert response.status_code == 200
    assert response.json()["config"] == {**response.json()["config"], "n_clusters": 3, "n_init": 2, "tol": 1.0}


def test_an_invalid_config_names_the_field(trained):
    client, *_ = trained
    dataset = client.get("/v1/datasets").json()["items"][-1]
    body = {"kind": "train", "method": "kmeans", "dataset_id": dataset["id"], "config": {"n_clusters": 3, "n_init": 0}}

    response = client.post("/v1/jobs", json=body)

    assert response.json()["errors"][0]["field"] == "config.n_init"


@pytest.mark.parametrize(
    "config",
    [b'{"n_clusters": 3, "tol": 1e999}', b'{"n_clusters": 3, "tol": -1}', b'{"n_clusters": 1e99}']
    + [b'{"n_clusters": %s3%s}' % (b"[" * depth, b"]" * depth) for depth in (1, 300, 900)],
)
def test_values_no_database_can_hold_are_refused(trained, config):
    client, *_ = trained
    dataset = client.get("/v1/datasets").json()["items"][-1]["id"].encode()
    body = b'{"kind": "train", "method": "kmeans", "dataset_id": "%s", "config": %s}' % (dataset, config)

    response = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

    assert (response.status_code, response.json()["code"]) == (422, "invalid_config")


@pytest.mark.parametrize("path", ["models?dataset_id", "jobs?dataset_id", "assignment-sets?model_id"])
def test_an_id_no_database_can_hold_is_refused(trained, path):
    client, *_ = trained

    response = client.get(f"/v1/{path}=%00")

    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


def test_json_is_small_and_says_how_long_it_is(trained):
    client, *_ = trained
    headers = {"content-type": "application/json"}

    large = client.post("/v1/jobs", content=b" " * (2 << 20), headers=headers)
    unknown = client.post("/v1/jobs", content=iter([b"{}"]), headers=headers)

    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    assert (unknown.status_code, unknown.json()["code"]) == (411, "length_required")


def test_a_cluster_number_no_column_can_hold_is_refused(trained):
    client, model, _ = trained

    assert client.get(f"/v1/models/{model}/clusters/{2**70}/images").status_code == 422


def test_an_unknown_model_is_not_found(trained):
    client, *_ = trained

    assert client.post("/v1/models/mdl_none/assign", content=picture()).json()["code"] == "model_not_found"


def test_color_and_size_are_brought_to_what_the_model_takes(trained):
    client, model, _ = trained
    bright = np.full((50, 70, 3), 230, np.uint8)
    small = np.full((8, 8), 230, np.uint8)
    files = [("file", ("color.jpg", picture(bright, "JPEG"))), ("file", ("gray.png", picture(small)))]

    items = client.post(f"/v1/models/{model}/assign", files=files).json()["items"]

    assert items[0]["cluster"] == items[1]["cluster"]


def test_an_image_unlike_any_other_is_an_outlier(trained):
    client, model, _ = trained
    checkers = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    files = [("file", ("odd.png", picture(checkers))), ("file", ("normal.png", picture(np.full((8, 8), 20, np.uint8))))]

    items = client.post(f"/v1/models/{model}/assign", files=files).json()["items"]

    assert [item["is_outlier"] for item in items] == [True, False]


def test_a_warm_assign_touches_no_sql(trained):
    client, model, _ = trained
    client.post(f"/v1/models/{model}/assign", content=picture())
    statements = []
    engine = client.app.state.service.database._engine
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    response = client.post(f"/v1/models/{model}/assign", content=picture())

    assert response.status_code == 200
    assert statements == []


def test_every_problem_of_the_framework_is_problem_json(trained):
    client, *_ = trained
    for response, status, code in (
        (client.get("/nowhere"), 404, "not_found"),
        (client.delete("/v1/methods"), 405, "method_not_allowed"),
        (client.get("/v1/jobs", params={"limit": 0}), 422, "validation_failed"),
        (client.get("/v1/jobs", params={"cursor": "???"}), 422, "bad_cursor"),
        (client.get("/v1/datasets", params={"cursor": "NQ"}), 422, "bad_cursor"),
        (client.post("/v1/jobs", content=b"{", headers={"content-type": "application/json"}), 422, "validation_failed"),
    ):
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, response.json()["status"], response.json()["code"]) == (status, status, code)


def test_methods_carry_the_schema_of_their_config(trained):
    client, *_ = trained

    methods = {method["name"]: method for method in client.get("/v1/methods").json()}

    assert {kind: name for name, method in methods.items() for kind in method["default_of"]} == {
        "images": "graph-selflabel", "vectors": "kmeans",
    }  # fmt: skip
    schema = methods["gmm"]["config_schema"]
    assert schema["required"] == ["n_clusters"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["n_clusters"]["minimum"] == 2


def test_the_service_is_live_ready_and_described(trained):
    client, *_ = trained

    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/v1/datasets", "/v1/jobs/{job_id}"}
