"""Cluster ids for new images and vectors, from the exported graph inside the API process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import Invalid
from app.inference.batcher import Batcher
from app.inference.cache import ModelCache
from app.inference.desk import Desk
from app.inference.nearest_images import NearestImages
from app.inference.served import CHUNK, Assigned, ServedModel
from app.inference.serving import Drift, Recent, Row, Serving
from app.intake.batches import Batch
from app.services import models
from app.store import Database, DBAPIError, PoolTimeout, is_passing
from app.store import models as model_rows
from app.store.blobs import Blobs
from app.store.model_files import CALIBRATION_NAME, NEIGHBOURS_NAME
from models import pixels
from models.pixels import Pixels
from models.worth.calibration import OUTLIER_SCORE


@dataclass(frozen=True)
class Wants:
    """What a request asks for beyond the cluster: images scoring above `outlier_score` are flagged."""

    outlier_score: float = OUTLIER_SCORE
    with_embedding: bool = False
    n_nearest: int = 0

    @property
    def needs_embedding(self) -> bool:
        """Whether the graph's embedding is needed."""
        return self.with_embedding or self.n_nearest > 0


@dataclass(frozen=True)
class Shelf:
    """Where models come from."""

    cache: ModelCache
    database: Database
    blobs: Blobs

    async def get(self, tenant_id: str, model_id: str, desk: Desk) -> Serving:
        """The tenant's model, loaded on first use.

        Raises:
            NotFound: `model_not_found`.
            TimedOut: `model_loading`.
        """

        def check() -> None:
            try:
                with self.database.read() as session:
                    models.get(session, tenant_id, model_id)
            except (DBAPIError, PoolTimeout) as error:
                if not is_passing(error):  # a model at hand serves on while the database is away
                    raise

        return await self.cache.get(tenant_id, model_id, lambda: self._load(tenant_id, model_id, desk), check)

    def _load(self, tenant_id: str, model_id: str, desk: Desk) -> Serving:
        with self.database.read() as session:
            row = models.get(session, tenant_id, model_id)
            prefix, spec, names = row.prefix, row.input_spec, set(row.artifacts)
            sizes = model_rows.cluster_sizes(session, row.assignment_set_id)
        calibration = self.blobs.get(f"{prefix}/{CALIBRATION_NAME}") if CALIBRATION_NAME in names else None
        model = ServedModel.load(self.blobs.get(f"{prefix}/model.onnx"), spec, calibration=calibration)

        def load_nearest_images() -> NearestImages | None:
            has_some = NEIGHBOURS_NAME in names
            return NearestImages.from_bytes(self.blobs.get(f"{prefix}/{NEIGHBOURS_NAME}")) if has_some else None

        batcher = Batcher(model.assign, desk.threads, n_lanes=desk.n_lanes, max_batch=CHUNK)
        return Serving(model, batcher, Drift(np.array(sizes)), load_nearest_images)


async def assign_files(
    serving: Serving, desk: Desk, items: Sequence[tuple[str, bytes]], wants: Wants
) -> list[dict[str, Any]]:
    """Answers for named image files, in order; a file that is no image gets its own error.

    Raises:
        Invalid: `wrong_data` where the model takes vectors; see `_require_embedding`.
        Overloaded, TimedOut: see `Desk.run`.
    """
    _require_kind(serving.model, "images")
    files = _Files(serving, desk, items, wants)
    return files.answers(await _run(serving, desk, len(items), files.decode, wants))


async def assign_batch(serving: Serving, desk: Desk, batch: Batch, wants: Wants) -> list[dict[str, Any]]:
    """Answers for pixels or vectors, in order; files in a batch are answered like files.

    Raises:
        Invalid: `wrong_data` where the model takes the other kind, `wrong_shape` for vectors of another length.
        Overloaded, TimedOut: see `Desk.run`.
    """
    inputs = batch.inputs
    if not isinstance(inputs, np.ndarray):
        return await assign_files(serving, desk, list(zip(batch.names, inputs, strict=True)), wants)
    spec = serving.model.spec
    _require_kind(serving.model, batch.kind)
    if batch.kind == "vectors" and inputs.shape[1] != spec.n_features:
        raise Invalid(f"every vector needs {spec.n_features} numbers", code="wrong_shape")

    def decode() -> NDArray[Any]:
        return inputs if batch.kind == "vectors" else pixels.from_arrays(inputs, spec)

    rows = await _run(serving, desk, len(inputs), decode, wants)
    return [{"name": name, **row} for name, row in zip(batch.names, rows, strict=True)]


async def assign_inputs(serving: Serving, desk: Desk, inputs: NDArray[Any], *, with_embedding: bool) -> Assigned:
    """Columns of answers for stored inputs (N, ...) of the model's own shape.

    Raises:
        Invalid: `no_embedding`; `input_failed` where the model cannot be run on one of them.
        Overloaded, TimedOut: see `Desk.run`.
    """
    if with_embedding:
        await _require_embedding(serving, desk, Wants(with_embedding=True))
    answer = await desk.run(serving.batcher, len(inputs), lambda: inputs, with_embedding=with_embedding)
    assert answer is not None
    if answer.failed:
        raise Invalid(f"the model cannot be run on input {min(answer.failed)}", code="input_failed")
    serving.drift.count(answer.assigned.cluster)
    return answer.assigned


async def assign_vectors(
    serving: Serving, desk: Desk, vectors: Sequence[Sequence[float]], wants: Wants
) -> list[dict[str, Any]]:
    """Answers for vectors as lists of numbers, in order.

    Raises:
        Invalid: `wrong_data`, `wrong_shape`, `not_finite`.
        Overloaded, TimedOut: see `Desk.run`.
    """
    _require_kind(serving.model, "vectors")
    n_features = serving.model.spec.n_features
    if any(len(vector) != n_features for vector in vectors):
        raise Invalid(f"every vector needs {n_features} numbers", code="wrong_shape")
    with np.errstate(over="ignore"):
        inputs: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(inputs).all():
        raise Invalid("the vectors hold NaN or infinite values", code="not_finite")
    return await assign_batch(serving, desk, Batch("vectors", inputs, [str(i) for i in range(len(inputs))]), wants)


class _Files:
    """The files of one request: which were seen lately, which are no images, and which go to the model."""

    def __init__(self, serving: Serving, desk: Desk, items: Sequence[tuple[str, bytes]], wants: Wants) -> None:
        self._serving, self._desk, self._items, self._wants = serving, desk, items, wants
        self._use_recent = not wants.needs_embedding
        self._known: dict[int, Row] = {}
        self._errors: dict[int, dict[str, str]] = {}
        self._asked: list[tuple[int, bytes]] = []  # positions in the order of the model's inputs, and their keys

    def decode(self) -> Pixels | None:
        """Inputs of the files that need the model: -> (n, C, S, S)."""
        spec, inputs = self._serving.model.spec, []
        for position, (_, data) in enumerate(self._items):
            key = Recent.key(data) if self._use_recent else b""
            row = self._serving.recent.get(key) if self._use_recent else None
            if row is not None:
                self._known[position] = row
                continue
            try:
                image = pixels.open_for(data, spec, self._desk.pixels.of_one)
                with self._desk.pixels.take(*image.size):
                    inputs.append(pixels.read(image, spec))
                self._asked.append((position, key))
            except pixels.BadImage as error:
                self._errors[position] = {"code": error.code, "message": str(error)}
        return np.stack(inputs) if inputs else None

    def answers(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One for each file, in order; `rows` are the model's answers to the inputs it was given."""
        of_model = {}
        for (position, key), row in zip(self._asked, rows, strict=True):
            of_model[position] = row
            if self._use_recent and "error" not in row:
                self._serving.recent.put(key, Row(row["cluster"], row["confidence"], row["outlier_score"]))
        return [{"name": name, **self._answer(position, of_model)} for position, (name, _) in enumerate(self._items)]

    def _answer(self, position: int, of_model: dict[int, dict[str, Any]]) -> dict[str, Any]:
        if position in self._errors:
            return {"error": self._errors[position]}
        row = self._known.get(position)
        return of_model[position] if row is None else _row(row.cluster, row.confidence, row.outlier_score, self._wants)


async def _run(
    serving: Serving, desk: Desk, n: int, decode: Callable[[], NDArray[Any] | None], wants: Wants
) -> list[dict[str, Any]]:
    """The model's answers to what `decode` gives it, in order; an input that makes it fail gets its own error."""
    if wants.needs_embedding:
        await _require_embedding(serving, desk, wants)
    answer = await desk.run(serving.batcher, n, decode, with_embedding=wants.needs_embedding)
    if answer is None:
        return []
    assigned = answer.assigned
    serving.drift.count(assigned.cluster)
    columns = (assigned.cluster.tolist(), assigned.confidence.tolist(), assigned.outlier_score.tolist())
    rows = [_row(*values, wants) for values in zip(*columns, strict=True)]
    if wants.with_embedding and assigned.embedding is not None:
        for row, embedding in zip(rows, assigned.embedding.tolist(), strict=True):
            row["embedding"] = embedding
    if wants.n_nearest:
        await desk.aside(lambda: _add_nearest(serving, assigned, rows, wants.n_nearest))
    for position in answer.failed:
        rows[position] = {"error": {"code": "input_failed", "message": "the model cannot be run on this input"}}
    return rows


async def _require_embedding(serving: Serving, desk: Desk, wants: Wants) -> None:
    has_all = serving.model.has_embedding
    if has_all and wants.n_nearest:
        has_all = await desk.aside(lambda: serving.nearest_images is not None)
    if not has_all:
        raise Invalid("the model is of a release that kept no embeddings; train it again", code="no_embedding")


def _add_nearest(serving: Serving, assigned: Assigned, rows: list[dict[str, Any]], n: int) -> None:
    assert serving.nearest_images is not None
    assert assigned.embedding is not None
    indexes, distances = serving.nearest_images.nearest(assigned.embedding, n)
    for row, own_indexes, own_distances in zip(rows, indexes.tolist(), distances.tolist(), strict=True):
        row["nearest"] = [{"index": i, "distance": d} for i, d in zip(own_indexes, own_distances, strict=True)]


def _row(cluster: int, confidence: float, outlier_score: float, wants: Wants) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "confidence": confidence,
        "is_outlier": outlier_score > wants.outlier_score,
        "outlier_score": outlier_score,
    }


def _require_kind(model: ServedModel, kind: str) -> None:
    if model.spec.kind == kind:
        return
    takes = "images" if model.spec.kind == "images" else f"vectors of {model.spec.n_features} numbers"
    raise Invalid(f"this model takes {takes}", code="wrong_data")
