"""A fitted model as one ONNX graph, checked against torch before anyone can see it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.base import Clusterer
from models.errors import ExportMismatch

OUTPUTS = ("probabilities", "is_outlier", "embedding", "distance")
TOLERANCE = 1e-4
N_COMPARED = 256


def export_onnx(model: Clusterer, path: Path, x: NDArray[Any]) -> None:
    """Write the serving graph, any batch size, and compare it with torch on some of the training inputs (N, ...).

    Raises:
        ExportMismatch: a probability differs by more than 1e-4, or a clear best cluster does.
    """
    sample = torch.from_numpy(np.array(x[: max(2, min(len(x), N_COMPARED))]))
    for chatty in ("onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    program = torch.onnx.export(
        model.serving_graph,
        (sample[:2],),
        input_names=["inputs"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        external_data=False,
        verbose=False,
        optimize=True,
    )
    assert program is not None
    strip_metadata(program.model)
    program.save(str(path))
    check_parity(model, path, sample)


def strip_metadata(model: Any) -> None:
    """Remove what the exporter notes of our source from an ONNX model: class names, and paths of this machine."""
    model.producer_name, model.producer_version, model.doc_string = "clusterserve", None, None
    model.metadata_props.clear()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.doc_string = None
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
    for function in model.functions.values():
        function.metadata_props.clear()


@torch.no_grad()
def check_parity(model: Clusterer, path: Path, sample: torch.Tensor) -> None:
    """Compare graph and model on inputs (B, ...), as one batch and one by one.

    Raises:
        ExportMismatch: see `export_onnx`.
    """
    import onnxruntime as ort  # a training's first step does not wait for it

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = model.serving_graph(sample)[0].double().numpy()
    got = session.run(["probabilities"], {"inputs": sample.numpy()})[0]
    alone = session.run(["probabilities"], {"inputs": sample[:1].numpy()})[0]
    difference = max(np.abs(got - expected).max(), np.abs(alone - expected[:1]).max())
    if not difference <= TOLERANCE:
        raise ExportMismatch(f"the graph's probabilities differ by {difference:.2e}")
    best = np.sort(expected, axis=1)
    is_clear = best[:, -1] - best[:, -2] > TOLERANCE
    if (got.argmax(axis=1) != expected.argmax(axis=1))[is_clear].any():
        raise ExportMismatch("the graph's best cluster differs where it is clear")
