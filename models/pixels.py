"""The one image rule: how a file becomes the pixels a model sees.

Used at ingest, for training and for inference alike, so that one file has one answer everywhere.
The rule: upright by EXIF; gray (L) or RGB, alpha over white, 16 bits scaled to 8, palettes expanded;
center crop to a square; BOX when shrinking, BICUBIC when growing. numpy and Pillow only.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

RULE_VERSION = 1
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MIN_KEPT_SIDE, MAX_KEPT_SIDE, DEFAULT_SIDE = 8, 128, 32
_GRAY_MODES = {"1", "L", "I;16", "I;16B", "I;16L", "I", "LA", "La"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageLimits:
    """Width times height of an image, and its longer side, in pixels."""

    max_pixels: int
    max_side: int = 16_384


IN_DATASETS, AT_ASSIGN = ImageLimits(50_000_000), ImageLimits(24_000_000)
STORED = ImageLimits(2**62, 2**31)  # what a dataset holds was judged when it came


class BadImage(Exception):
    """A file that is no usable image; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class InputSpec:
    """What a model takes, stored with it. Images: uint8 (channels, side, side). Vectors: float32 (n_features,)."""

    kind: Literal["images", "vectors"]
    side: int = 0
    channels: int = 0
    n_features: int = 0
    rule: int = RULE_VERSION
    shrink_filter: str = "box"
    grow_filter: str = "bicubic"
    decoder: str = f"pillow {PIL.__version__}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return (self.channels, self.side, self.side) if self.kind == "images" else (self.n_features,)


def choose_side(width: int | None, height: int | None, wanted: int | None) -> int:
    """Input side of a model: the wanted one, or that of images which all share a square of 8...128, or 32.

    `width` and `height` are those of every image, None where images differ.
    """
    if wanted is not None:
        return wanted
    is_kept = width is not None and width == height and MIN_KEPT_SIDE <= width <= MAX_KEPT_SIDE
    return width if is_kept and width is not None else DEFAULT_SIDE


def open_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """Open a file by its header only, refusing what we do not decode.

    Args:
        data: the file's bytes.
        limits: how large it may be.

    Raises:
        BadImage: `not_an_image`, `too_many_pixels`, `side_too_long` or `animated_image`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        is_animated = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", "the image has too many pixels") from error
    except Exception as error:
        _raise_if_ours(error)
        raise BadImage("not_an_image", "the file is not a PNG, JPEG, WebP, GIF, BMP or TIFF image") from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImage("too_many_pixels", f"{width}x{height} is more than {limits.max_pixels} pixels")
    if max(width, height) > limits.max_side:
        raise BadImage("side_too_long", f"{width}x{height} has a side of more than {limits.max_side} pixels")
    if is_animated:
        raise BadImage("animated_image", "the file holds more than one frame")
    return image


def load(image: Image.Image) -> Image.Image:
    """Decode an opened image fully and bring it upright: same picture, mode L or RGB, no metadata.

    Raises:
        BadImage: `broken_image` where the file ends early or its data is damaged.
    """
    try:
        image.load()
        is_rotated = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return _plain(ImageOps.exif_transpose(image) if is_rotated else image)
    except Exception as error:
        _raise_if_ours(error)
        raise BadImage("broken_image", "the image data is damaged or incomplete") from error


def has_exif(image: Image.Image) -> bool:
    """Whether a file carries EXIF; unreadable EXIF counts, so that it is dropped."""
    try:
        return bool(image.getexif())
    except Exception as error:
        _raise_if_ours(error)
        return True


def to_pixels(image: Image.Image, spec: InputSpec) -> Pixels:
    """A loaded image as a model's input: -> uint8 (channels, side, side)."""
    mode = "L" if spec.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    width, height = image.size
    if (width, height) != (spec.side, spec.side):
        crop = min(width, height)
        left, top = (width - crop) / 2, (height - crop) / 2
        kind = Image.Resampling.BOX if crop > spec.side else Image.Resampling.BICUBIC
        image = image.resize((spec.side, spec.side), kind, box=(left, top, left + crop, top + crop))
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode(data: bytes, spec: InputSpec, limits: ImageLimits = AT_ASSIGN) -> Pixels:
    """A file's bytes as a model's input: -> uint8 (channels, side, side).

    Raises:
        BadImage: see `open_image` and `load`.
    """
    return to_pixels(load(open_image(data, limits)), spec)


def from_arrays(images: Pixels, spec: InputSpec) -> Pixels:
    """Decoded images as a model's inputs: uint8 (N, H, W) or (N, H, W, 3 | 4) -> (N, channels, side, side)."""
    n_channels = 1 if images.ndim == 3 else images.shape[3]
    if images.shape[1:3] != (spec.side, spec.side) or n_channels != spec.channels:
        return np.stack([to_pixels(load(Image.fromarray(image)), spec) for image in images])
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def thumbnail(data: bytes, side: int) -> bytes:
    """A stored image shrunk to fit `side` x `side`, as PNG bytes."""
    image = Image.open(io.BytesIO(data))
    image.thumbnail((side, side), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _raise_if_ours(error: Exception) -> None:
    """Damaged files make Pillow raise whatever its parsers meet; memory is not the file's fault."""
    if isinstance(error, MemoryError):
        raise error


def _plain(image: Image.Image) -> Image.Image:
    """Mode L or RGB: alpha over white, 16 bits scaled, palette and CMYK expanded."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65_535).astype(np.uint32) * 255 // 65_535).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point images have no defined range")
    is_gray = image.mode in _GRAY_MODES
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_gray else "RGB")
