"""Every error as RFC 9457 problem+json, the framework's own included, rendered in one place."""

import http
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.api import contract
from app.errors import AppError, Unavailable
from app.log import get_logger
from app.schemas.common import PROBLEM_TYPE, Problem
from app.store import DataError, DBAPIError, PoolTimeout, is_passing
from app.store.blobs import StorageUnavailable

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 400: "bad_request"}

log = get_logger()


def problems(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that raises these errors; their shape is added by `app.api.contract`."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        entry = by_status.setdefault(error.status, {"description": ""})
        entry["description"] = ", ".join(filter(None, [entry["description"], f"{error.title} (`{error.code}`)"]))
    return by_status


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(PoolTimeout, _database_error)
    app.add_exception_handler(StorageUnavailable, _storage_error)
    app.add_exception_handler(Exception, _bug)


def document(path: str, problem: Problem) -> dict[str, Any]:
    """A problem as the body of an answer to a request at a path."""
    content = problem.model_dump()
    if path.startswith("/v2/"):
        content["error"] = problem.detail  # where clients of the Open Inference Protocol look
    return content


def render(request: Request, status: int, code: str, title: str, detail: str, **more: Any) -> JSONResponse:
    """One problem document as a response."""
    headers = more.pop("headers", None)
    request_id = getattr(request.state, "request_id", "")
    problem = Problem(title=title, status=status, detail=detail, code=code, request_id=request_id, **more)
    headers = {"X-Request-Id": request_id, **(headers or {})}
    return JSONResponse(document(request.scope["path"], problem), status, headers=headers, media_type=PROBLEM_TYPE)


async def _app_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AppError)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return render(request, error.status, error.code, error.title, error.detail, errors=error.errors, headers=headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = http.HTTPStatus(error.status_code).phrase
    code = _CODES.get(error.status_code, title.lower().replace(" ", "_"))
    headers = dict(error.headers or {})
    if "Allow" in headers:  # the framework names the methods of the first route it found for the path
        headers["Allow"] = contract.allowed(request.app, request.scope["path"]) or headers["Allow"]
    return render(request, error.status_code, code, title, str(error.detail), headers=headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [
        {"field": ".".join(map(str, part["loc"])), "code": part["type"], "detail": part["msg"]}
        for part in error.errors()
    ]
    return render(
        request, 422, "validation_failed", "Invalid request", "the request does not match the API", errors=parts
    )


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, DataError):
        detail = "a text of the request holds characters that cannot be stored"
        return render(request, 422, "invalid_text", "Invalid request", detail)
    if is_passing(error):
        log.warning("database_unavailable", error=type(error).__name__)
        return _unavailable(request)
    return await _bug(request, error)


async def _storage_error(request: Request, _error: Exception) -> JSONResponse:
    return _unavailable(request, "storage_unavailable", "the object storage does not answer; try again")


def _unavailable(
    request: Request, code: str = "database_unavailable", detail: str = "the database does not answer; try again"
) -> JSONResponse:
    headers = {"Retry-After": str(Unavailable.retry_after_s)}
    return render(request, 503, code, "Temporarily unavailable", detail, headers=headers)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("unhandled_error", path=request.url.path, exc_info=error)
    return render(request, 500, "internal_error", "Internal error", "this is a fault of the service; it was logged")
