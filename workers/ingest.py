"""Ingest: an uploaded file becomes a dataset. Never imports torch."""

import hashlib
import io
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from app.errors import BadUpload
from app.intake import ImageEntry, ImageSource, IntakeLimits, Reject, VectorSource, Wanted, open_source
from app.intake.guess import why
from app.intake.notes import Note, note
from app.intake.survey import ImageSurvey, VectorSurvey
from app.store import quotas, uploads
from app.store.dataset_files import IMAGE_SCHEMA, DatasetWriter, vector_schema, write_rejects
from app.store.results import IngestResult
from models import pixels
from models.pixels import ImageLimits
from workers.work import Work

MAX_REJECTS = 100_000  # listed; further ones only count in the job's events
_KEPT_FORMATS = {"PNG", "JPEG", "WEBP"}
_LOSSY_FORMATS = {"JPEG", "MPO", "AVIF", "HEIF"}  # what was lossy before is stored as JPEG
# Metadata about the pixels may stay. All other metadata (places, names, times, text) is dropped.
_HARMLESS = {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform", "progressive", "progression"),
    *("dpi", "gamma", "srgb", "chromaticity", "transparency", "interlace", "icc_profile", "aspect"),
    *("loop", "background", "timestamp", "duration"),
}


@dataclass(frozen=True)
class StoredImage:
    """An image as a dataset keeps it: upright, without metadata, its values as they were.

    `picture`: mode L or RGB, or the values (H, W) of an image with more than eight bits to a pixel.
    """

    data: bytes
    picture: Image.Image | NDArray[Any]
    is_reduced: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        if isinstance(self.picture, Image.Image):
            return self.picture.size
        return self.picture.shape[1], self.picture.shape[0]


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
        source = open_source(file, limits, work.upload.filename, _wanted(work.job.config))
        work.report.phase("decode", 0.05)
        with closing(source.reading):
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


def _wanted(config: Mapping[str, Any]) -> Wanted:
    """What the caller said of the file."""
    return Wanted(
        columns=tuple(config.get("columns", ())),
        target=config.get("target"),
        names=config.get("names"),
        are_folders_targets=config.get("targets") == "folders",
    )


def store_image(entry: ImageEntry, limits: ImageLimits = pixels.IN_DATASETS) -> StoredImage:
    """Decode an image fully and return what is stored: the file as it came if it holds nothing but a picture.

    Raises:
        BadImage: it cannot be decoded, or is too large.
    """
    if isinstance(entry.content, np.ndarray):
        if entry.content.dtype != np.uint8:
            return StoredImage(_deep_file(entry.content), entry.content)
        picture = Image.fromarray(entry.content)
        plain = pixels.load(picture) if picture.mode == "RGBA" else picture
        return StoredImage(_png(plain), plain)
    image = pixels.open_image(entry.content, limits)
    is_reduced = pixels.is_reduced(image)
    plain, values = pixels.decode_values(image)
    is_kept = image.format in _KEPT_FORMATS and not pixels.has_exif(image) and set(image.info) <= _HARMLESS
    if values is not None:
        return StoredImage(entry.content if is_kept else _deep_file(values), values)
    if is_kept:
        return StoredImage(entry.content, plain, is_reduced)
    return StoredImage(_jpeg(plain) if image.format in _LOSSY_FORMATS else _png(plain), plain, is_reduced)


def _images(work: Work, source: ImageSource, limits: ImageLimits) -> IngestResult:
    survey, rejects, n_rejects, n_targets, n_images = ImageSurvey(), list[dict[str, str]](), 0, 0, 0
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
            digest = hashlib.sha256(stored.data).digest()
            survey.add(stored.picture, digest, entry.split)
            survey.n_reduced += stored.is_reduced
            _append(writer, entry, stored, digest)
            n_targets += entry.target is not None
            n_images += 1
        _require_images(n_images, n_rejects, rejects)
    write_rejects(work.blobs, work.prefix, rejects)
    width, height = survey.size
    reading = source.reading
    pixel_range = reading.pixel_range or survey.pixel_range()
    facts = {**survey.facts(pixel_range), **reading.facts, "n_targets": n_targets}
    notes = [*_refused_note(n_images, n_rejects, rejects), *reading.notes, *survey.notes(pixel_range)]
    return IngestResult(
        kind="images",
        n_images=n_images,
        n_rejects=len(rejects),
        n_bytes=writer.n_bytes,
        shards=writer.shards,
        width=width,
        height=height,
        channels=survey.channels,
        has_targets=n_targets > 0,
        target_names=_clean(reading.target_names) if n_targets else [],
        notes=_clean([asdict(one) for one in notes]),
        facts=_clean(facts),
    )


def _require_images(n_images: int, n_rejects: int, rejects: list[dict[str, str]]) -> None:
    """Refuse an upload of which nothing was understood, or one picture beside files that were not."""
    if n_images > 1 or (n_images and not n_rejects):
        return
    first = f"; the first, `{rejects[0]['name']}`: {rejects[0]['reason']}" if rejects else ""
    if n_images:
        raise BadUpload(
            f"only one of {n_rejects + 1} files is an image that can be used{first}", code="hardly_anything_read"
        )
    raise BadUpload(f"none of the {n_rejects} files is an image that can be used{first}", code="no_images")


def _refused_note(n_images: int, n_rejects: int, rejects: list[dict[str, str]]) -> list[Note]:
    if not n_rejects:
        return []
    text = f"{n_rejects} of {n_rejects + n_images} files were refused; `/rejects` says why."
    return [note("refused", text, n_rejects, [f"{one['name']}: {one['reason']}" for one in rejects[:5]])]


def _vectors(work: Work, source: VectorSource) -> IngestResult:
    quotas.require_images(source.n_entries, work.max_images)
    schema = vector_schema(source.n_features)
    survey, done, n_targets = VectorSurvey(), 0, 0
    with DatasetWriter(work.blobs, work.prefix, schema, "vectors") as writer:
        for block in source.blocks():
            n = len(block.vectors)
            targets = block.targets if block.targets is not None else np.full(n, -1)
            n_targets += int((targets >= 0).sum())
            survey.add(block.vectors, block.split)
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(block.vectors.reshape(-1)), source.n_features),
                pa.array(targets, mask=targets < 0),
                block.names or [f"{done + row:08d}" for row in range(n)],
                pa.array([block.split or None] * n, pa.string()),
            ]
            writer.append_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
            done += n
            work.report.step(0.05 + 0.95 * done / source.n_entries, n_images=done)
    write_rejects(work.blobs, work.prefix, [])
    reading = source.reading
    notes = [*reading.notes, *survey.notes(reading.facts.get("features_from", []))]
    return IngestResult(
        kind="vectors",
        n_images=done,
        n_bytes=writer.n_bytes,
        shards=writer.shards,
        n_features=source.n_features,
        has_targets=n_targets > 0,
        target_names=_clean(reading.target_names) if n_targets else [],
        notes=_clean([asdict(one) for one in notes]),
        facts=_clean({**survey.facts(), **reading.facts, "n_targets": n_targets}),
    )


def _clean(value: Any) -> Any:
    """Text as Postgres stores it: without the letter NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_clean(key): _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def _try(entry: ImageEntry | Reject, limits: ImageLimits) -> StoredImage | Reject:
    if isinstance(entry, Reject):
        return entry
    try:
        return store_image(entry, limits)
    except pixels.BadImage as error:
        head = entry.content[:4096] if isinstance(entry.content, bytes) else b""
        return Reject(entry.name, error.code, why(error, head, entry.name))


def _append(writer: DatasetWriter, entry: ImageEntry, stored: StoredImage, digest: bytes) -> None:
    width, height = stored.size
    row = {
        "image": {"bytes": stored.data, "path": entry.name},
        "label": entry.target,
        "name": entry.name,
        "sha256": digest,
        "width": width,
        "height": height,
        "split": entry.split or None,
    }
    writer.append(row, len(stored.data) + 128)


def _deep_file(values: NDArray[Any]) -> bytes:
    """Values of more than eight bits, without loss: 16 bits as PNG, others as TIFF."""
    image = Image.fromarray(values)
    if values.dtype == np.uint16:
        return _png(image)
    out = io.BytesIO()
    image.save(out, "TIFF", compression="tiff_adobe_deflate")
    return out.getvalue()


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()
