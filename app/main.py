"""The HTTP service: settings, lifespan, routers, error handlers. Wiring only."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import RequestResponseEndpoint

from app import log
from app import metrics as metrics_of_process
from app.api import assignment_sets, datasets, health, jobs, methods, metrics, models, problems, uploads
from app.api.changes import JobChanges
from app.api.deps import Service
from app.inference.budget import PixelBudget
from app.inference.cache import ModelCache
from app.queue import Bell
from app.settings import Settings
from app.store import DBAPIError, connect_database
from app.store.blobs import connect
from app.store.migrate import OldSchema, require_current
from app.store.parquet import ParquetFiles
from app.tracing import Tracing

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; nothing is opened before its lifespan begins."""
    settings = settings or Settings()
    tracing = Tracing(settings.otlp_endpoint, "clusterserve-api")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings) as service:
            app.state.service = service
            yield
            tracing.close()

    app = FastAPI(title="Clusterserve", version="0.1.0", description=__doc__, lifespan=lifespan)
    tracing.watch(app)
    problems.install(app)
    app.middleware("http")(_limit_json(settings.max_json_bytes))
    app.middleware("http")(_name_request)
    for module in (uploads, datasets, methods, jobs, models, assignment_sets, health, metrics):
        app.include_router(module.router)
    return app


@contextlib.asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Service]:
    """The long-lived parts of one API process, from its start to its end."""
    log.configure(settings.log_level, settings.log_format)
    database = connect_database(settings)
    try:
        await run_in_threadpool(require_current, database)
    except DBAPIError:
        pass  # away for now: requests are told so until it is back
    except OldSchema:
        database.close()
        raise
    blobs = connect(settings)
    bell = Bell(settings.broker_url)
    changes = JobChanges(database)
    changes.start()
    try:
        yield Service(
            settings=settings,
            database=database,
            blobs=blobs,
            files=ParquetFiles(blobs),
            bell=bell,
            served=ModelCache(settings.model_cache_bytes),
            pixels=PixelBudget(settings.max_decoded_bytes),
            changes=changes,
        )
    finally:
        await changes.stop()
        bell.close()
        database.close()


def _limit_json(max_bytes: int) -> Callable[[Request, RequestResponseEndpoint], Awaitable[Response]]:
    """Bodies that are read whole must say how long they are, and be short."""

    async def limit(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.method in ("POST", "PUT", "PATCH") and not _is_streamed(request):
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                if "transfer-encoding" not in request.headers:
                    return await call_next(request)
                detail = "a JSON body needs a Content-Length"
                return problems.render(request, 411, "length_required", "Length required", detail)
            if int(length) > max_bytes:
                detail = f"a JSON body holds at most {max_bytes} bytes"
                return problems.render(request, 413, "too_large", "Too large", detail)
        return await call_next(request)

    return limit


def _is_streamed(request: Request) -> bool:
    """Whether a route counts its body's bytes as they come; JSON is always read whole."""
    if request.headers.get("content-type", "").startswith("application/json"):
        return False
    path = request.url.path
    return path == "/v1/datasets" or path.endswith("/assign") or "/parts/" in path


async def _name_request(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Give every request an id, its caller's if that is sane, for logs and problems."""
    given = request.headers.get("x-request-id", "")
    request.state.request_id = (
        given if given.isascii() and given.isalnum() and len(given) <= 64 else secrets.token_hex(8)
    )
    started, status = time.perf_counter(), 500
    try:
        with log.bound(request_id=request.state.request_id):
            response = await call_next(request)
        status = response.status_code
    finally:
        route = getattr(request.scope.get("route"), "path", "none")  # never the path: its ids would be endless labels
        seconds = time.perf_counter() - started
        method = request.method if request.method in _METHODS else "other"
        metrics_of_process.REQUEST_S.labels(method, route, status).observe(seconds)
    response.headers["X-Request-Id"] = request.state.request_id
    return response
