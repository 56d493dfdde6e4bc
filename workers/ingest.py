"""Ingest: an uploaded file becomes a dataset. Never imports torch."""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from app.errors import BadUpload
from app.intake import ImageEntry, ImageSource, IntakeLimits, Reject, VectorSource, open_source
from app.store import quotas, uploads
from app.store.dataset_files import IMAGE_SCHEMA, DatasetWriter, vector_schema, write_rejects
from app.store.results import IngestResult
from models import pixels
from models.pixels import ImageLimits
from workers.work import Work

MAX_REJECTS = 100_000  # listed; further ones only count in the job's events
MAX_FOLDERS = 10_000  # with more than these, folders are a filing scheme and not targets
_KEPT_FORMATS = {"PNG", "JPEG", "WEBP"}
# Metadata about the pixels may stay. All other metadata (places, names, times, text) is dropped.
_HARMLESS = {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform", "progressive", "progression"),
    *("dpi", "gamma", "srgb", "chromaticity", "transparency", "interlace", "icc_profile", "aspect"),
    *("loop", "background", "timestamp", "duration"),
}


@dataclass(frozen=True)
class StoredImage:
    """An image as a dataset keeps it: upright, without metadata."""

    data: bytes
    width: int
    height: int
    channels: int


@dataclass
class _Facts:
    """What is known about the images together once all of them were read."""

    sizes: set[tuple[int, int]] = field(default_factory=set)
    channels: int = 1
    folders: dict[str, int] = field(default_factory=dict)
    has_targets: bool = False


def run(work: Work) -> IngestResult:
    """Fill the job's dataset.

    Raises:
        BadUpload: nothing in the file can be used.
        QuotaExceeded: the tenant has no room for so many images.
    """
    if work.upload is None:
        raise BadUpload("the uploaded file is gone", code="upload_not_found")
    work.report.phase("fetch", 0.0)
    path = work.scratch / "upload"
    _fetch(work, path, work.upload.sha256)
    limits = IntakeLimits.of(work.settings)
    with path.open("rb") as file:
        source = open_source(file, limits, work.upload.filename)
        work.report.phase("decode", 0.05)
        result = _images(work, source, limits.image) if source.kind == "images" else _vectors(work, source)
    work.report.phase("publish", 1.0)
    return result


def _fetch(work: Work, path: Path, sha256: str | None) -> None:
    """Copy the upload's parts into one scratch file, and check its SHA-256."""
    digest, done = hashlib.sha256(), 0
    total = sum(part.n_bytes for part in work.upload_parts)
    with path.open("wb") as copy:
        for piece in uploads.stream_parts(work.blobs, work.upload_parts):
            copy.write(piece)
            digest.update(piece)
            done += len(piece)
            work.report.step(0.05 * done / total)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise BadUpload("the bytes do not have the announced SHA-256", code="checksum_mismatch")


def store_image(entry: ImageEntry, limits: ImageLimits = pixels.IN_DATASETS) -> StoredImage:
    """Decode an image fully and return what is stored: the file as it came if it holds nothing but a picture.

    Raises:
        BadImage: it cannot be decoded, or is too large.
    """
    if isinstance(entry.content, np.ndarray):
        picture = Image.fromarray(entry.content)
        plain = pixels.load(picture) if picture.mode == "RGBA" else picture
        return StoredImage(_png(plain), *plain.size, len(plain.getbands()))
    image = pixels.open_image(entry.content, limits)
    plain = pixels.load(image)
    facts = (*plain.size, len(plain.getbands()))
    if image.format in _KEPT_FORMATS and not pixels.has_exif(image) and set(image.info) <= _HARMLESS:
        return StoredImage(entry.content, *facts)
    return StoredImage(_jpeg(plain) if image.format in ("JPEG", "MPO") else _png(plain), *facts)


def _images(work: Work, source: ImageSource, limits: ImageLimits) -> IngestResult:
    facts, n_images, n_rejects = _Facts(), 0, 0
    rejects: list[dict[str, str]] = []
    use_folders = work.job.config.get("targets") == "folders"
    with DatasetWriter(work.blobs, work.prefix, IMAGE_SCHEMA, "images") as writer:
        for number, entry in enumerate(source.entries()):
            if number % 64 == 0:
                quotas.require_images(n_images, work.max_images)
                work.report.step(0.05 + 0.95 * source.progress, n_images=n_images, n_rejects=n_rejects)
            stored = _try(entry, limits)
            if isinstance(stored, Reject):
                n_rejects += 1
                if len(rejects) < MAX_REJECTS:
                    rejects.append({"name": stored.name, "code": stored.code, "reason": stored.reason})
                continue
            assert isinstance(entry, ImageEntry)
            _append(writer, entry, stored, _target(entry, facts, use_folders))
            facts.sizes.add((stored.width, stored.height))
            facts.channels = max(facts.channels, stored.channels)
            n_images += 1
        if not n_images:
            first = f"; the first: {rejects[0]['reason']}" if rejects else ""
            raise BadUpload(f"none of the {n_rejects} files is an image that can be used{first}", code="no_images")
    write_rejects(work.blobs, work.prefix, rejects)
    width, height = facts.sizes.pop() if len(facts.sizes) == 1 else (None, None)
    is_named = use_folders and 1 < len(facts.folders) <= MAX_FOLDERS
    return IngestResult(
        kind="images",
        n_images=n_images,
        n_rejects=len(rejects),
        n_bytes=writer.n_bytes,
        shards=writer.shards,
        width=width,
        height=height,
        channels=facts.channels,
        has_targets=facts.has_targets or is_named,
        target_names=list(facts.folders) if is_named else [],
    )


def _vectors(work: Work, source: VectorSource) -> IngestResult:
    quotas.require_images(source.n_entries, work.max_images)
    schema = vector_schema(source.n_features)
    done, has_targets = 0, False
    with DatasetWriter(work.blobs, work.prefix, schema, "vectors") as writer:
        for block in source.blocks():
            n = len(block.vectors)
            targets = block.targets if block.targets is not None else np.full(n, -1)
            has_targets |= bool((targets >= 0).any())
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(block.vectors.reshape(-1)), source.n_features),
                pa.array(targets, mask=targets < 0),
                block.names or [f"{done + row:08d}" for row in range(n)],
            ]
            writer.append_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
            done += n
            work.report.step(0.05 + 0.95 * done / source.n_entries, n_images=done)
    write_rejects(work.blobs, work.prefix, [])
    return IngestResult(
        kind="vectors",
        n_images=done,
        n_bytes=writer.n_bytes,
        shards=writer.shards,
        n_features=source.n_features,
        has_targets=has_targets,
    )


def _try(entry: ImageEntry | Reject, limits: ImageLimits) -> StoredImage | Reject:
    if isinstance(entry, Reject):
        return entry
    try:
        return store_image(entry, limits)
    except pixels.BadImage as error:
        return Reject(entry.name, error.code, str(error))


def _append(writer: DatasetWriter, entry: ImageEntry, stored: StoredImage, target: int | None) -> None:
    row = {
        "image": {"bytes": stored.data, "path": entry.name},
        "label": target,
        "name": entry.name,
        "sha256": hashlib.sha256(stored.data).digest(),
        "width": stored.width,
        "height": stored.height,
    }
    writer.append(row, len(stored.data) + 128)


def _target(entry: ImageEntry, facts: _Facts, use_folders: bool) -> int | None:
    if entry.target is not None:
        facts.has_targets = True
        return entry.target
    if use_folders and entry.folder not in ("", "."):
        return facts.folders.setdefault(entry.folder, len(facts.folders))
    return None


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()
