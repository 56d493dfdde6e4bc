"""Cluster ids of new images, while the caller waits."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from app.api import bodies
from app.api.deps import Service, ServiceDep, TenantToRead
from app.api.problems import problems
from app.errors import BadUpload, Invalid, NotFound, Overloaded, TimedOut, TooLarge, TooSlow
from app.inference.serving import Serving
from app.intake.batches import holds_many, read_batch
from app.schemas.common import failures
from app.schemas.models import AssignRead, AssignVectors
from app.services import assign
from app.services.assign import Wants
from app.settings import Settings
from models.worth.calibration import OUTLIER_SCORE

router = APIRouter(prefix="/v1/models", tags=["models"])

LONG_ANSWER = 256  # items from which writing the answer is not the event loop's work
_BINARY = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
_FILE_LIST = {"type": "array", "items": _BINARY["schema"], "minItems": 1}
_FILES = {"schema": {"type": "object", "properties": {"file": _FILE_LIST}, "required": ["file"]}}
_BODIES = {
    "image/*": _BINARY,
    "multipart/form-data": _FILES,
    "application/json": {"schema": AssignVectors.model_json_schema()},
    "application/x-npz": _BINARY,
    "application/vnd.apache.arrow.stream": _BINARY,
}


async def _wants(
    outlier_score: Annotated[
        float, Query(ge=0, le=1, description="flag images that score higher: farther out than this share of training's")
    ] = OUTLIER_SCORE,
    embedding: Annotated[bool, Query(description="add each item's `embedding`")] = False,
    nearest: Annotated[int, Query(ge=0, le=100, description="add so many nearest training images")] = 0,
) -> Wants:
    return Wants(outlier_score, embedding, nearest)


@router.post(
    "/{model_id}/assign",
    response_model=AssignRead,
    responses=problems(NotFound, BadUpload, TooSlow, TooLarge, Invalid, Overloaded, TimedOut),
    openapi_extra={"requestBody": {"content": _BODIES}},
)
async def assign_items(
    model_id: str,
    request: Request,
    service: ServiceDep,
    tenant_id: TenantToRead,
    wants: Annotated[Wants, Depends(_wants)],
    name: Annotated[str, Query(max_length=200, description="name of a raw image in the answer")] = "image",
) -> Response:
    """Cluster ids of new images.

    Send one image as the raw body; several as the files of a form; `{"vectors": [[…]]}` as JSON; or many at once as one
    `.npz` with `x`, or as one Arrow stream with a column of image files, of pixels or of vectors. A file that cannot be
    used gets its own `error`; the others are answered.
    """
    with service.desk.admit(bodies.at_most(request, service.settings.max_request_bytes)):
        serving = await service.shelf.get(tenant_id, model_id, service.desk)
        items = await _answers(request, service, serving, wants, name)
    body = {"model_id": model_id, "items": items}
    data = _json(body) if len(items) < LONG_ANSWER else await asyncio.to_thread(_json, body)
    return Response(data, media_type="application/json")


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


async def _answers(
    request: Request, service: Service, serving: Serving, wants: Wants, name: str
) -> list[dict[str, Any]]:
    kind, settings = bodies.media_type(request), service.settings
    if kind == "application/json":
        payload = _vectors(await bodies.whole(request, settings.max_json_bytes, bodies.HELD_S))
        return await assign.assign_vectors(serving, service.desk, payload.vectors, wants)
    if kind == "multipart/form-data":
        return await assign.assign_files(serving, service.desk, await _files(request, settings), wants)
    data = await bodies.whole(request, settings.max_request_bytes, bodies.HELD_S)
    if holds_many(data):
        most = {"max_inputs": settings.max_batch_inputs, "max_bytes": settings.max_request_bytes}
        batch = await service.desk.aside(lambda: read_batch(data, service.intake, **most))
        return await assign.assign_batch(serving, service.desk, batch, wants)
    if len(data) > settings.max_image_bytes:
        raise TooLarge(f"an image holds at most {settings.max_image_bytes} bytes")
    answers = await assign.assign_files(serving, service.desk, [(name, data)], wants)
    if "error" in answers[0]:
        raise BadUpload(answers[0]["error"]["message"], code=answers[0]["error"]["code"])
    return answers


async def _files(request: Request, settings: Settings) -> list[tuple[str, bytes]]:
    items: list[tuple[str, bytearray]] = []
    async for part in bodies.file_parts(request, settings.max_request_bytes, bodies.HELD_S):
        if part.is_first:
            items.append((part.filename, bytearray()))
        if len(items) > settings.max_assign_images:
            raise TooLarge(f"a form holds at most {settings.max_assign_images} images", code="too_many_items")
        items[-1][1].extend(part.data)
        if len(items[-1][1]) > settings.max_image_bytes:
            raise TooLarge(f"an image holds at most {settings.max_image_bytes} bytes")
    if not items:
        raise BadUpload("the form holds no files", code="empty_body")
    return [(name, bytes(data)) for name, data in items]


def _vectors(data: bytes) -> AssignVectors:
    try:
        return AssignVectors.model_validate_json(data)
    except ValidationError as error:
        raise Invalid('the body is not {"vectors": [[…], …]}', code="wrong_shape", errors=failures(error)) from error
