"""Models saved by an earlier release load and answer alike. `old/` holds one of every method and kind of data.

They were fitted and saved by d18e77d on the battery's data, with the answers they gave there. Most weights of the large
networks were set to zero first, so that the files are small.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from models import checkpoint, registry
from models.errors import BadCheckpoint
from tests.models.battery import images, vectors

NEW = {("graph-selflabel", "images")}  # in no release yet
OLD = sorted((Path(__file__).parent / "old").glob("*.zip"))


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def folder(request, tmp_path):
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_there_is_one_of_every_method_on_every_kind_of_data():
    kinds = {"gray": "images", "vectors": "vectors"}
    stored = {(name, kinds[data]) for name, _, data in (path.stem.rpartition("-") for path in OLD)}

    assert stored == {(name, kind) for name, spec in registry.methods().items() for kind in spec.data} - NEW


def test_a_model_of_an_earlier_release_answers_as_it_did(folder):
    expected = np.load(folder / "answers.npz")

    model = registry.load_model(folder)

    x, _ = images() if model.spec.kind == "images" else vectors()
    p, is_outlier, _, distance = model.serving_graph(torch.from_numpy(x))
    np.testing.assert_allclose(p, expected["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(is_outlier, expected["is_outlier"])
    np.testing.assert_allclose(distance, expected["distance"], rtol=1e-5, atol=1e-5)


def test_a_renamed_a_missing_and_a_strange_tensor_are_refused(folder):
    tensors, facts = checkpoint.load(folder, "model")
    name = next(iter(tensors))
    others = {key: value for key, value in tensors.items() if key != name}

    for changed in ({**others, "network.renamed": tensors[name]}, others, {**tensors, "strange": torch.zeros(1)}):
        checkpoint.save(folder, "model", changed, facts)
        with pytest.raises(BadCheckpoint):
            registry.load_model(folder)


def test_a_folder_without_a_model_and_one_of_a_method_that_is_not_installed_are_refused(tmp_path):
    with pytest.raises(BadCheckpoint):
        registry.load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"method": "magic"}))
    with pytest.raises(BadCheckpoint, match="magic"):
        registry.load_model(tmp_path)


def test_what_is_saved_lists_every_file_beside_it(folder):
    model = registry.load_model(folder)
    (folder / "model.onnx").write_bytes(b"graph")

    model.save(folder, {"seed": 7})

    facts = json.loads((folder / "model.json").read_text())
    assert facts["seed"] == 7
    assert facts["files"].keys() == {"answers.npz", "model.onnx", "model.safetensors"}
    assert safetensors.torch.load((folder / "model.safetensors").read_bytes()).keys() == set(
        model.serving_graph.state_dict()
    )
