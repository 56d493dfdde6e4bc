"""Probes."""

from fastapi import APIRouter

from app.api.deps import ServiceDep
from app.api.problems import problems
from app.errors import Unavailable
from app.store import DBAPIError
from app.store.migrate import is_current

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=problems(Unavailable))
def readyz(service: ServiceDep) -> dict[str, str]:
    """The database answers and has this release's schema."""
    try:
        is_ready = is_current(service.database)
    except DBAPIError as error:
        raise Unavailable("the database does not answer", code="database_unavailable") from error
    if not is_ready:
        raise Unavailable("the database has an old schema; run `clusterserve migrate`", code="old_schema")
    return {"status": "ok"}
