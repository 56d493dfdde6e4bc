"""A model as it is served: its ONNX graph and what it takes. No torch."""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.pixels import InputSpec

CHUNK = 64
OUTPUTS = ("probabilities", "is_outlier")


@dataclass(frozen=True)
class Assigned:
    """Clusters int32 (N,), confidences float32 (N,) in 0...1, outlier flags bool (N,)."""

    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    is_outlier: NDArray[np.bool_]


class ServedModel:
    """One loaded graph. Thread-safe: ONNX Runtime sessions are."""

    def __init__(self, graph: bytes, spec: InputSpec, n_threads: int = 1) -> None:
        import onnxruntime as ort  # with the first model, not with the API

        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.spec = spec
        self.n_bytes = len(graph)
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def load(cls, graph: bytes, input_spec: dict[str, Any], n_threads: int = 1) -> Self:
        """From a published graph and the input spec its row carries."""
        known = {field.name for field in fields(InputSpec)}
        return cls(graph, InputSpec(**{k: v for k, v in input_spec.items() if k in known}), n_threads)

    def assign(self, batch: NDArray[Any]) -> Assigned:
        """uint8 (N, C, S, S) or float32 (N, D) -> the cluster of each, in chunks of 64."""
        parts = [
            self._session.run(OUTPUTS, {self._input: np.ascontiguousarray(batch[start : start + CHUNK])})
            for start in range(0, len(batch), CHUNK)
        ]
        probabilities = np.concatenate([part[0] for part in parts])
        cluster = probabilities.argmax(axis=1).astype(np.int32)
        confidence = np.take_along_axis(probabilities, cluster[:, None], axis=1)[:, 0].astype(np.float32)
        return Assigned(cluster, confidence, np.concatenate([part[1] for part in parts]))
