"""Cluster ids for new images, from the exported graph inside the API process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import Invalid
from app.inference.budget import PixelBudget
from app.inference.cache import ModelCache
from app.inference.served import Assigned, ServedModel
from app.services import models
from app.store import Database
from app.store.blobs import Blobs
from models import pixels


def served(cache: ModelCache, database: Database, blobs: Blobs, tenant_id: str, model_id: str) -> ServedModel:
    """The tenant's model, loaded on first use.

    Raises:
        NotFound: `model_not_found`.
    """

    def check() -> None:
        with database.read() as session:
            models.get(session, tenant_id, model_id)

    def load() -> ServedModel:
        with database.read() as session:
            row = models.get(session, tenant_id, model_id)
            prefix, spec = row.prefix, row.input_spec
        return ServedModel.load(blobs.get(f"{prefix}/model.onnx"), spec)

    return cache.get(tenant_id, model_id, load, check)


def assign_images(model: ServedModel, budget: PixelBudget, items: Sequence[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """Answers for named image files, in order; a file that is no image gets its own error.

    Raises:
        Invalid: `wrong_data` where the model takes vectors.
    """
    if model.spec.kind != "images":
        raise Invalid(f"this model takes vectors of {model.spec.n_features} numbers", code="wrong_data")
    answers: list[dict[str, Any]] = [{"name": name} for name, _ in items]
    good: list[int] = []
    batch: list[pixels.Pixels] = []
    for position, (_, data) in enumerate(items):
        try:
            image = pixels.open_image(data, pixels.MAX_ASSIGN_PIXELS)
            with budget.take(*image.size):
                batch.append(pixels.to_pixels(pixels.load(image), model.spec))
            good.append(position)
        except pixels.BadImage as error:
            answers[position]["error"] = {"code": error.code, "message": str(error)}
    if good:
        _fill([answers[position] for position in good], model.assign(np.stack(batch)))
    return answers


def assign_vectors(model: ServedModel, vectors: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Answers for vectors, in order.

    Raises:
        Invalid: `wrong_data`, `wrong_shape`, `not_finite`.
    """
    if model.spec.kind != "vectors":
        raise Invalid("this model takes images", code="wrong_data")
    if any(len(vector) != model.spec.n_features for vector in vectors):
        raise Invalid(f"every vector needs {model.spec.n_features} numbers", code="wrong_shape")
    with np.errstate(over="ignore"):
        batch: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(batch).all():
        raise Invalid("the vectors hold NaN or infinite values", code="not_finite")
    answers: list[dict[str, Any]] = [{"name": str(index)} for index in range(len(vectors))]
    _fill(answers, model.assign(batch))
    return answers


def _fill(answers: Sequence[dict[str, Any]], assigned: Assigned) -> None:
    columns = zip(assigned.cluster.tolist(), assigned.confidence.tolist(), assigned.is_outlier.tolist(), strict=True)
    for answer, (cluster, confidence, is_outlier) in zip(answers, columns, strict=True):
        answer.update(cluster=cluster, confidence=confidence, is_outlier=is_outlier)
