"""The Open Inference Protocol, version 2 (KServe, Triton): models for clients that speak it, such as `tritonclient`.

A model is named by its id and has one version. Its input is what it stores: pixels uint8 (N, C, S, S) at its own size,
or vectors float32 (N, D). Errors are problem documents whose `error` repeats `detail`, as the protocol wants it.
"""

import math
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError

from app.api import bodies
from app.api.deps import ServiceDep, TenantToRead
from app.api.health import readyz
from app.api.problems import problems
from app.errors import Invalid, NotFound, Overloaded, TimedOut, TooLarge, TooSlow, Unavailable
from app.inference.served import Assigned
from app.inference.serving import Serving
from app.schemas.common import failures
from app.schemas.inference_protocol import (
    InferAnswer,
    InferRequest,
    InputTensor,
    ModelFacts,
    OutputTensor,
    ServerRead,
    TensorFacts,
    WantedOutput,
)
from app.services import assign

health = APIRouter(prefix="/v2", tags=["open inference protocol"])  # for anybody
router = APIRouter(prefix="/v2", tags=["open inference protocol"])

INPUT, VERSION = "inputs", "1"
OUTPUTS = {"cluster": "INT32", "confidence": "FP32", "outlier_score": "FP64", "is_outlier": "BOOL"}
_TYPES = {"BOOL": "?", "UINT8": "u1", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
HeaderLength = Annotated[int | None, Header(alias="Inference-Header-Content-Length", ge=0)]


@health.get("")
async def get_server() -> ServerRead:
    """What answers, and which extensions of the protocol it knows."""
    return ServerRead(name="clusterserve", version="0.1.0", extensions=["binary_tensor_data"])


@health.get("/health/live", response_class=Response)
async def get_live() -> Response:
    """Whether the process answers."""
    return Response()


@health.get("/health/ready", response_class=Response, responses=problems(Unavailable))
def get_ready(service: ServiceDep) -> Response:
    """Whether it can serve models."""
    readyz(service)
    return Response()


@router.get("/models/{model_id}/ready", response_class=Response, responses=problems(NotFound, TimedOut))
@router.get("/models/{model_id}/versions/1/ready", response_class=Response, include_in_schema=False)
async def get_model_ready(model_id: str, service: ServiceDep, tenant_id: TenantToRead) -> Response:
    """Load the model if need be."""
    await service.shelf.get(tenant_id, model_id, service.desk)
    return Response()


@router.get("/models/{model_id}", responses=problems(NotFound, TimedOut))
@router.get("/models/{model_id}/versions/1", include_in_schema=False)
async def get_model_facts(model_id: str, service: ServiceDep, tenant_id: TenantToRead) -> ModelFacts:
    """What a model takes and gives."""
    serving = await service.shelf.get(tenant_id, model_id, service.desk)
    outputs = [TensorFacts(name=name, datatype=kind, shape=[-1]) for name, kind in OUTPUTS.items()]
    if serving.model.has_embedding:
        outputs.append(TensorFacts(name="embedding", datatype="FP32", shape=[-1, -1]))
    taken = TensorFacts(name=INPUT, datatype=_input_type(serving), shape=[-1, *serving.model.spec.shape])
    return ModelFacts(name=model_id, versions=[VERSION], platform="onnxruntime_onnx", inputs=[taken], outputs=outputs)


@router.post(
    "/models/{model_id}/infer",
    response_model=InferAnswer,
    responses=problems(NotFound, Invalid, TooLarge, TooSlow, Overloaded, TimedOut),
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": InferRequest.model_json_schema()}}}},
)
@router.post("/models/{model_id}/versions/1/infer", include_in_schema=False)
async def infer(
    model_id: str, request: Request, service: ServiceDep, tenant_id: TenantToRead, header_length: HeaderLength = None
) -> Response:
    """Assign a batch of stored inputs; tensors as JSON, or as bytes after it."""
    with service.desk.admit(bodies.at_most(request, service.settings.max_request_bytes)):
        serving = await service.shelf.get(tenant_id, model_id, service.desk)
        body = await bodies.whole(request, service.settings.max_request_bytes, bodies.HELD_S)
        asked = _asked(body if header_length is None else body[:header_length])
        inputs = _inputs(asked.inputs[0], b"" if header_length is None else body[header_length:], serving)
        if len(inputs) > service.settings.max_batch_inputs:
            raise TooLarge(f"a batch holds at most {service.settings.max_batch_inputs} inputs", code="too_many_items")
        wanted = asked.outputs or [WantedOutput(name=name) for name in OUTPUTS]
        if unknown := [output.name for output in wanted if output.name not in (*OUTPUTS, "embedding")]:
            raise Invalid(f"there is no output {unknown[0][:100]!r}", code="unknown_output")
        needs_embedding = any(output.name == "embedding" for output in wanted)
        assigned = await assign.assign_inputs(serving, service.desk, inputs, with_embedding=needs_embedding)
    return _answer(model_id, asked, wanted, assigned)


def _asked(data: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate_json(data)
    except ValidationError as error:
        raise Invalid("the body is no inference request", code="wrong_shape", errors=failures(error)) from error


def _inputs(tensor: InputTensor, raw: bytes, serving: Serving) -> NDArray[Any]:
    """The input as an array: of the model's type, (N, ...) in its shape, finite."""
    spec, wanted = serving.model.spec, _input_type(serving)
    if (
        tensor.name != INPUT
        or tensor.datatype != wanted
        or tuple(tensor.shape[1:]) != spec.shape
        or not tensor.shape[0]
    ):
        raise Invalid(
            f"the model takes {INPUT!r}, {wanted}, [N, {', '.join(map(str, spec.shape))}]", code="wrong_shape"
        )
    n_values, kind = math.prod(tensor.shape), np.dtype(_TYPES[wanted])
    if tensor.data is None:
        if len(raw) != n_values * kind.itemsize:
            raise Invalid("the tensor's bytes are not as many as its shape says", code="wrong_shape")
        values = np.frombuffer(raw, kind)
    else:
        try:
            values = np.asarray(tensor.data, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise Invalid("the tensor's data are no numbers", code="wrong_shape") from error
        if len(values) != n_values or (wanted == "UINT8" and ((values < 0) | (values > 255) | (values % 1 != 0)).any()):
            raise Invalid("the tensor's data do not fit its shape and type", code="wrong_shape")
    with np.errstate(over="ignore", invalid="ignore"):
        inputs: NDArray[Any] = values.astype(kind.newbyteorder("=")).reshape(tensor.shape)
    if wanted == "FP32" and not np.isfinite(inputs).all():
        raise Invalid("the vectors hold NaN or infinite values", code="not_finite")
    return inputs


def _input_type(serving: Serving) -> str:
    return "UINT8" if serving.model.spec.kind == "images" else "FP32"


def _answer(model_id: str, asked: InferRequest, wanted: list[WantedOutput], assigned: Assigned) -> Response:
    all_binary = bool(asked.parameters.get("binary_data_output"))
    outputs, tail = [], []
    for output in wanted:
        kind = "FP32" if output.name == "embedding" else OUTPUTS[output.name]
        values = np.ascontiguousarray(getattr(assigned, output.name), dtype=_TYPES[kind])
        tensor = OutputTensor(name=output.name, datatype=kind, shape=list(values.shape))
        if output.parameters.get("binary_data", all_binary):
            tail.append(values.tobytes())
            tensor.parameters = {"binary_data_size": len(tail[-1])}
        else:
            tensor.data = values.reshape(-1).tolist()
        outputs.append(tensor)
    answer = InferAnswer(model_name=model_id, model_version=VERSION, id=asked.id, outputs=outputs)
    head = answer.model_dump_json(exclude_none=True).encode()
    if not tail:
        return Response(head, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(b"".join([head, *tail]), media_type="application/octet-stream", headers=headers)
