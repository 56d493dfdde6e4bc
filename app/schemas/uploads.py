"""Uploads at the HTTP edge."""

from typing import Annotated, Literal

from pydantic import Field

from app.schemas.common import WHOLE, Id, Name, Read, UtcTime, Write

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 in hexadecimal")]


class UploadCreate(Write):
    """A file that will come in numbered parts; what is said of the whole is checked at the end."""

    filename: Name = "upload"
    n_bytes: Annotated[int | None, Field(ge=1, description="size of the whole"), WHOLE] = None
    sha256: Sha256 | None = None


class PartRead(Read):
    """A part that has arrived whole."""

    number: int
    n_bytes: int
    sha256: str


class UploadRead(Read):
    """Bytes on their way in; `parts` are those that have arrived."""

    id: str
    state: Literal["receiving", "complete"]
    filename: str
    n_bytes: int
    parts: list[PartRead]
    created_at: UtcTime


class DatasetFromUpload(Write):
    """A complete upload that becomes a dataset."""

    upload_id: Id
