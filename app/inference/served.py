"""A model as it is served: its ONNX graph, what it takes, and what its answers are worth. No torch."""

import os
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.pixels import InputSpec
from models.worth.calibration import OUTLIER_SCORE, Calibration

CHUNK = 64
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


@dataclass(frozen=True)
class Assigned:
    """Columns of N answers: clusters int32, confidences float32 in 0...1, outlier scores float64 in 0...1.

    The score is the share of the cluster's training images that lie nearer to its center. `is_outlier` is what the
    training's threshold makes of it; `embedding` (N, D), where it was asked for.
    """

    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    is_outlier: NDArray[np.bool_]
    outlier_score: NDArray[np.float64]
    embedding: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.cluster)

    @classmethod
    def none(cls, n: int) -> "Assigned":
        """Rows that mean nothing, in the place of answers there are none of."""
        return cls(np.zeros(n, np.int32), np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n))

    @classmethod
    def joined(cls, parts: "list[Assigned]") -> "Assigned":
        """Answers one after the other."""
        if len(parts) == 1:
            return parts[0]
        width = next((part.embedding.shape[1] for part in parts if part.embedding is not None), None)
        embeddings = [
            np.zeros((len(part), width or 0), np.float32) if part.embedding is None else part.embedding
            for part in parts
        ]
        return cls(
            np.concatenate([part.cluster for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.is_outlier for part in parts]),
            np.concatenate([part.outlier_score for part in parts]),
            None if width is None else np.concatenate(embeddings),
        )

    def part(self, start: int, stop: int) -> "Assigned":
        """Answers `start`...`stop` - 1."""
        embedding = None if self.embedding is None else self.embedding[start:stop]
        rows = slice(start, stop)
        return Assigned(
            self.cluster[rows], self.confidence[rows], self.is_outlier[rows], self.outlier_score[rows], embedding
        )


class ServedModel:
    """One loaded graph. Thread-safe: ONNX Runtime sessions are."""

    def __init__(
        self, graph: bytes, spec: InputSpec, n_threads: int = 1, calibration: Calibration | None = None
    ) -> None:
        """`calibration` is None for a model of a release that kept none: it has flags, but no scores."""
        import onnxruntime as ort  # with the first model, not with the API

        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait for work by spinning take the cores from those that have some.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [name for name in _PROVIDERS if name in ort.get_available_providers()]
        self.spec = spec
        self.calibration = calibration
        self.n_bytes = len(graph)
        self._session = ort.InferenceSession(graph, options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        self._outputs = {output.name for output in self._session.get_outputs()}

    @classmethod
    def load(
        cls, graph: bytes, input_spec: dict[str, Any], n_threads: int = 1, calibration: bytes | None = None
    ) -> Self:
        """From a published graph and calibration, and the input spec that the model's row carries."""
        known = {field.name for field in fields(InputSpec)}
        spec = InputSpec(**{k: v for k, v in input_spec.items() if k in known})
        return cls(graph, spec, n_threads, Calibration.from_bytes(calibration) if calibration else None)

    @property
    def has_embedding(self) -> bool:
        """Whether the graph gives its embedding; those of early releases do not."""
        return "embedding" in self._outputs

    def assign(self, batch: NDArray[Any], with_embedding: bool = False) -> Assigned:
        """uint8 (N, C, S, S) or float32 (N, D) -> the cluster of each, in chunks of 64."""
        chunks = range(0, len(batch), CHUNK)
        return Assigned.joined([self._assign(batch[at : at + CHUNK], with_embedding) for at in chunks])

    def _assign(self, batch: NDArray[Any], with_embedding: bool) -> Assigned:
        names = ["probabilities", "is_outlier" if self.calibration is None else "distance"]
        if with_embedding and self.has_embedding:
            names.append("embedding")
        outputs = self._session.run(names, {self._input: np.ascontiguousarray(batch)})
        probabilities, embedding = outputs[0], outputs[2] if len(outputs) > 2 else None
        cluster = probabilities.argmax(axis=1).astype(np.int32)
        confidence = np.take_along_axis(probabilities, cluster[:, None], axis=1)[:, 0].astype(np.float32)
        if self.calibration is None:
            is_outlier, score = outputs[1], outputs[1].astype(np.float64)
        else:
            score = self.calibration.outlier_score(cluster, outputs[1])
            confidence = self.calibration.confidence(confidence)
            is_outlier = score > OUTLIER_SCORE
        is_lost = ~np.isfinite(confidence)
        if is_lost.any():
            # An input so far off that the model's own numbers overflow belongs nowhere.
            confidence, score = np.where(is_lost, np.float32(0), confidence), np.where(is_lost, 1.0, score)
            cluster, is_outlier = np.where(is_lost, np.int32(0), cluster), is_outlier | is_lost
        return Assigned(cluster, confidence, is_outlier, score, embedding)


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
