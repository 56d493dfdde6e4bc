"""The Open Inference Protocol, spoken by a client that is not ours to a server on a socket."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from app.store import Database
from app.store.blobs import connect
from tests.factories import add_model


@pytest.fixture
def address(embedded_settings):
    """A server over a fresh set-up with one tiny model."""
    database = Database(embedded_settings.resolved_database_url)
    add_model(database, connect(embedded_settings))
    database.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | embedded_settings.environment())
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_foreign_client_finds_and_uses_a_model(address, is_binary):
    client = triton.InferenceServerClient(address)
    x = np.array([[1, 3], [4, 2], [1, 1]], np.float32)
    sent = triton.InferInput("inputs", list(x.shape), "FP32")
    sent.set_data_from_numpy(x, binary_data=is_binary)
    names = ("cluster", "confidence", "is_outlier", "embedding")
    wanted = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in names]

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mdl_x")
    facts = client.get_model_metadata("mdl_x")
    found = client.infer("mdl_x", [sent], outputs=wanted, request_id="r1")

    assert facts["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 2]}]
    assert found.get_response()["id"] == "r1"
    assert found.as_numpy("cluster").tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.as_numpy("confidence"), [0.75, 4 / 6, 0.5], rtol=1e-6)
    assert found.as_numpy("is_outlier").tolist() == [True, True, False]
    np.testing.assert_array_equal(found.as_numpy("embedding"), x)
    everything = client.infer("mdl_x", [sent])
    assert everything.as_numpy("outlier_score").tolist() == [1.0, 1.0, 0.0]
    client.close()


def test_a_foreign_client_is_told_what_is_wrong(address):
    client = triton.InferenceServerClient(address)
    sent = triton.InferInput("inputs", [1, 3], "FP32")
    sent.set_data_from_numpy(np.zeros((1, 3), np.float32))

    with pytest.raises(InferenceServerException, match="the model takes 'inputs', FP32"):
        client.infer("mdl_x", [sent])
    with pytest.raises(InferenceServerException, match="there is no model mdl_y"):
        client.infer("mdl_y", [sent])
    assert not client.is_model_ready("mdl_y")
    client.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"datatype": "UINT8"}, "wrong_shape"),
        ({"data": [1, 2, 3]}, "wrong_shape"),
        ({"data": [[1, "x"]]}, "wrong_shape"),
        ({"data": [[1, None]]}, "not_finite"),
        ({"data": [[1, 1e39]]}, "not_finite"),
        ({"shape": [0, 2], "data": []}, "wrong_shape"),
        ({"data": None}, "wrong_shape"),
        ({"name": "x"}, "wrong_shape"),
        ({"shape": [True, "2"]}, "wrong_shape"),
    ],
)
def test_a_tensor_that_does_not_fit_is_a_problem(light_client, embedded_settings, change, code):
    parts = light_client.app.state.service
    add_model(parts.database, parts.blobs)
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]], **change}

    response = light_client.post("/v2/models/mdl_x/infer", json={"inputs": [tensor]})

    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.json()["error"] == response.json()["detail"]
