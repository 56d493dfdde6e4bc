"""Methods' configs at the HTTP edge. Building what reads them takes a millisecond and more, so each is built once."""

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from app.schemas.common import whole
from models import registry
from models.configs import ClusteringConfig


@cache
def schema_of(method: str) -> dict[str, Any]:
    """The JSON Schema of a method's config."""
    return _reader_of(method).json_schema()


def read_config(method: str, values: dict[str, Any]) -> ClusteringConfig:
    """A method's config from what JSON holds; numbers without a fraction are integers (`2.0`), as JSON Schema has it.

    Raises:
        pydantic.ValidationError: with each field that is wrong.
    """
    given = {name: [*map(whole, value)] if isinstance(value, list) else whole(value) for name, value in values.items()}
    return _reader_of(method).validate_json(json.dumps(given))


@cache
def _reader_of(method: str) -> TypeAdapter[ClusteringConfig]:
    return TypeAdapter(registry.get(method).config)
