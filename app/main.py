"""The HTTP service: settings, lifespan, routers, error handlers. Wiring only."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.concurrency import run_in_threadpool

from app import log
from app.api import (
    assign,
    assignment_sets,
    audit,
    contract,
    datasets,
    health,
    inference_protocol,
    jobs,
    methods,
    metrics,
    models,
    problems,
    uploads,
    webhooks,
)
from app.api.changes import JobChanges
from app.api.deps import Service, caller
from app.api.middleware import LimitJson, NameRequests
from app.errors import Forbidden, Invalid, Malformed, TooOften, Unauthenticated, Unavailable
from app.garbage import rare_collections
from app.inference.budget import PixelBudget
from app.inference.cache import ModelCache
from app.inference.desk import Desk
from app.intake import IntakeLimits
from app.queue import Bell
from app.rates import Rates
from app.services.assign import Shelf
from app.services.keys import Keyring, secret_of
from app.settings import Settings
from app.store import DBAPIError, connect_database
from app.store.blobs import connect
from app.store.migrate import OldSchema, require_current
from app.store.parquet import ParquetFiles
from app.tracing import Tracing
from models.pixels import ImageLimits

_ROUTERS = (
    assign,  # routes are tried in turn, and these are asked most
    uploads,
    datasets,
    methods,
    jobs,
    models,
    assignment_sets,
    webhooks,
    audit,
    inference_protocol,
    metrics,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; nothing is opened before its lifespan begins."""
    settings = settings or Settings()
    tracing = Tracing(settings.otlp_endpoint, "clusterserve-api")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Desk]]:
        async with _running(settings) as service:
            app.state.service = service
            with rare_collections():
                yield {"desk": service.desk}  # for the server, `app.api.limited_http`
            tracing.close()

    app = FastAPI(
        title="Clusterserve",
        version="0.1.0",
        description="Groups images nobody has labelled, and tells the cluster of any new one.",
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    tracing.watch(app)
    problems.install(app)
    app.add_middleware(LimitJson, max_bytes=settings.max_json_bytes)
    app.add_middleware(NameRequests, root_path=settings.root_path)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **_cors(settings.cors_origins))
    contract.describe(app)
    refusals = problems.problems(Malformed, Unauthenticated, Forbidden, Invalid, TooOften, Unavailable)
    app.include_router(health.router)
    app.include_router(inference_protocol.health)
    for module in _ROUTERS:
        # Who asks is known before a session is opened.
        asked = [Depends(caller), Depends(contract.refuse_unknown)]
        app.include_router(module.router, dependencies=asked, responses=refusals)
    return app


def _cors(origins: str) -> dict[str, Any]:
    """What pages of other origins may send and read; keys go in a header, so cookies are not for them."""
    return {
        "allow_origins": [origin.strip() for origin in origins.split(",")],
        "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        "allow_headers": ["*"],
        "expose_headers": ["ETag", "Location", "Retry-After", "X-Request-Id", "Content-Range", "Idempotency-Replayed"],
        "max_age": 600,
    }


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
    cache = ModelCache(settings.model_cache_bytes, settings.assign_deadline_s)
    desk = _desk(settings)
    rates = _rates(settings)
    try:
        yield Service(
            settings=settings,
            database=database,
            blobs=blobs,
            files=ParquetFiles(blobs),
            bell=bell,
            shelf=Shelf(cache, database, blobs),
            desk=desk,
            changes=changes,
            rates=rates,
            intake=IntakeLimits.of(settings),
            keyring=Keyring(database, secret_of(settings)) if settings.require_keys else None,
        )
    finally:
        await changes.stop()
        await rates.close()
        cache.close()
        desk.close()
        bell.close()
        database.close()


def _desk(settings: Settings) -> Desk:
    return Desk(
        max_images=settings.max_waiting_images,
        max_bytes=settings.max_waiting_bytes,
        deadline_s=settings.assign_deadline_s,
        pixels=PixelBudget(
            settings.max_decoded_bytes, ImageLimits(settings.max_assign_pixels, settings.max_image_side)
        ),
    )


def _rates(settings: Settings) -> Rates:
    per_minute = {"requests": settings.max_requests_per_minute, "new_jobs": settings.max_new_jobs_per_minute}
    return Rates(settings.broker_url, per_minute)
