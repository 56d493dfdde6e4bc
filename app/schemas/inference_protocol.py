"""Shapes of the Open Inference Protocol, version 2, with Triton's extension of binary tensors."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import WHOLE

DataType = Literal["BOOL", "UINT8", "INT32", "FP32", "FP64"]


class TensorFacts(BaseModel):
    """A tensor that a model takes or gives; -1 stands for any number."""

    name: str
    datatype: DataType
    shape: list[int]


class ServerRead(BaseModel):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


class ModelFacts(BaseModel):
    """What a model takes and gives."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class Asked(BaseModel):
    """Base of requests; unknown keys are left alone, other types than the protocol's are not taken."""

    model_config = ConfigDict(strict=True)


class InputTensor(Asked):
    """One input: `data` as (nested) lists, or its bytes after the JSON, as `parameters.binary_data_size` says."""

    name: str
    datatype: DataType
    shape: Annotated[list[Annotated[int, Field(ge=0), WHOLE]], Field(min_length=1, max_length=8)]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class WantedOutput(Asked):
    """An output by name; `parameters.binary_data`: as bytes after the JSON."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(Asked):
    """Inputs, and which outputs are wanted: all but the embedding, if none is named."""

    id: str | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[WantedOutput] = []
    parameters: dict[str, Any] = {}


class OutputTensor(BaseModel):
    """One output."""

    name: str
    datatype: DataType
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(BaseModel):
    """The outputs, in the order in which they were asked for."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
