"""What Prometheus asks: this process's own figures, and those of the whole service that SQL knows."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from app.api.deps import Service, ServiceDep, TenantToAdmin
from app.errors import Forbidden
from app.metrics import REGISTRY
from app.store import DBAPIError, PoolTimeout, Session, census
from app.store.tables import DEFAULT_TENANT

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
def metrics(service: ServiceDep, tenant_id: TenantToAdmin) -> Response:
    """Figures in Prometheus' text format.

    Requests, SQL and storage are this process's; jobs and queues are the service's, the same from every replica.
    """
    if tenant_id != DEFAULT_TENANT:
        raise Forbidden("figures of the whole service are for keys of its own tenant, `default`", code="wrong_tenant")
    registry = CollectorRegistry(auto_describe=True)
    is_up = Gauge("clusterserve_database_up", "1 if the database answers", registry=registry)
    try:
        with service.database.read() as session:
            _count(session, registry)
        is_up.set(1)
    except (DBAPIError, PoolTimeout):
        is_up.set(0)
    _watch(service, registry)
    return Response(generate_latest(REGISTRY) + generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _watch(service: Service, registry: CollectorRegistry) -> None:
    """What this process serves: images that wait, and how far each loaded model's answers are from its training."""
    waiting = Gauge("clusterserve_assign_images_waiting", "images of `assign` requests at work", registry=registry)
    waiting.set(service.desk.n_images)
    drift = Gauge(
        "clusterserve_model_drift_psi", "population stability index of served clusters", ["model"], registry=registry
    )
    for model_id, serving in service.shelf.cache.entries():
        if (psi := serving.drift.psi()) is not None:
            drift.labels(model_id).set(psi)


def _count(session: Session, registry: CollectorRegistry) -> None:
    jobs = Gauge("clusterserve_jobs", "jobs on record", ["kind", "state"], registry=registry)
    ages = Gauge(
        "clusterserve_queue_age_seconds", "how long the first of a queue has waited", ["queue"], registry=registry
    )
    for (kind, state), n in census.jobs(session).items():
        jobs.labels(kind, state).set(n)
    for queue, seconds in census.queue_ages(session).items():
        ages.labels(queue).set(seconds)
