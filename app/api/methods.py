"""What can be run."""

from fastapi import APIRouter

from app.api.deps import TenantToRead
from app.schemas.configs import schema_of
from app.schemas.models import MethodRead
from models import registry

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("")
async def list_methods(_: TenantToRead) -> list[MethodRead]:
    """Every method with its paper, its profiles and the JSON Schema of its config."""
    return [
        MethodRead(
            name=spec.name,
            title=spec.title,
            paper=spec.paper,
            profiles=list(spec.profiles),
            data=list(spec.data),
            max_images=spec.max_images,
            takes_known=spec.takes_known,
            default_of=[kind for kind, name in registry.DEFAULT_OF.items() if name == spec.name],
            config_schema=schema_of(spec.name),
        )
        for spec in registry.methods().values()
    ]
