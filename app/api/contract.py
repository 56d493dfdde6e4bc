"""The OpenAPI document as clients need it: problems as they are sent, every schema in one place."""

import json
import re
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from starlette.routing import compile_path

from app.errors import Invalid
from app.schemas.common import PROBLEM_TYPE, Problem

_PROBLEM = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_UNUSED = ("HTTPValidationError", "ValidationError")  # the framework's errors, which are never sent


def describe(app: FastAPI) -> None:
    """Let the application's `openapi()` give this document; it is made once."""
    plain = app.openapi
    app.openapi = lru_cache(lambda: _completed(plain()))  # type: ignore[method-assign]


def allowed(app: FastAPI, path: str) -> str | None:
    """The methods a path has, for `Allow`; None for a path that is not in the document."""
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            return ", ".join(sorted(method.upper() for method in operations))
    return None


def _documented(method: str) -> str:
    """The operation that a method is listed under: HEAD is GET without a body."""
    return "get" if method == "HEAD" else method.lower()


async def refuse_unknown(request: Request) -> None:
    """Let no query parameter pass that the document does not list: a misspelt filter would look as if it had filtered.

    Raises:
        Invalid: `validation_failed`.
    """
    if not request.query_params:
        return
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][_documented(request.method)]
    known = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
    errors = [
        {"field": f"query.{name}", "code": "extra_forbidden", "detail": "there is no such parameter"}
        for name in request.query_params
        if name not in known
    ]
    if errors:
        raise Invalid("the request does not match the API", code="validation_failed", errors=errors)


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    document["paths"] = dict(sorted(document["paths"].items()))  # whatever order routes are tried in
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in _UNUSED:
        schemas.pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    response["content"] = _PROBLEM
            for parameter in operation.get("parameters", []):
                parameter["schema"] = _without_null(parameter["schema"])
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
            for media in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(media.get("schema", {}).pop("$defs", {}))
    # Schemas that routes wrote down themselves name their parts as a document of their own would.
    moved: dict[str, Any] = json.loads(re.sub(r"#/\$defs/", "#/components/schemas/", json.dumps(document)))
    return moved


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is never null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return schema if len(kinds) != 1 else {**{k: v for k, v in schema.items() if k != "anyOf"}, **kinds[0]}
