"""The one image rule: how a file becomes the pixels a model sees.

Used at ingest, for training and for inference alike, so that one file has one answer everywhere.
The rule: upright by EXIF; gray (L) or RGB, alpha over white, values brought to 0...255 by the dataset's range, palettes
expanded; center crop to a square; BOX when shrinking, BICUBIC when growing. numpy, Pillow and a plug-in for HEIC only.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from models import bounds

try:
    import pi_heif
except ImportError:  # the library alone does without HEIC
    pi_heif = None

RULE_VERSION = 2  # 2: large JPEGs are decoded at a reduced scale
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
_MANY_PICTURES = ("MPO", "HEIF")  # containers whose first picture is the one; others follow it in a burst
MIN_KEPT_SIDE, MAX_KEPT_SIDE, DEFAULT_SIDE = 8, 128, 32
_PHOTOMETRIC = 262  # the TIFF tag PhotometricInterpretation
_GRAY_MODES = {"1", "L", "I;16", "I;16B", "I;16L", "I", "LA", "La"}

if pi_heif is not None:
    pi_heif.register_heif_opener()

Pixels = NDArray[np.uint8]

FLOAT = 0
DEPTHS = (8, 16, 32, FLOAT)  # bits to a pixel, in order of how much they can hold; 0 for floating point
NOMINAL = {
    8: (0, 255),
    16: (0, 65_535),
    32: (0, 65_535),
    FLOAT: (0, 1),
}  # of images with another depth than the dataset
DARK = 8  # values that fill less than an eighth of their range fill it when they are scaled
NARROW = 16  # as above, of values that lie anywhere in the range of 16 or 32 bits


@dataclass(frozen=True)
class PixelRange:
    """The values of a dataset that become 0 and 255, of its images with so many bits to a pixel."""

    depth: int = 8
    low: float = 0.0
    high: float = 255.0

    @property
    def is_plain(self) -> bool:
        """Whether values of eight bits stay as they are."""
        return self == PLAIN

    def ends(self, depth: int) -> tuple[float, float]:
        """The values that become 0 and 255 in an image of that depth."""
        return (self.low, self.high) if depth == self.depth else NOMINAL[depth]


PLAIN = PixelRange()


def choose_range(depth: int, low: float, high: float) -> PixelRange:
    """The range of a dataset whose images of its largest depth have values from `low` to `high`.

    Values up to 255, or 1 in floating point, keep their usual range, unless they fill less than an eighth of it: masks
    of 0 and 1, digits of 0 to 16. Larger whole numbers end at the next 2^n - 1: 4095 for 12 bits. Values that lie
    closer together than a sixteenth of that, have a sign or are other fractions have the range that they are seen in.
    """
    top = 1.0 if depth == FLOAT and high <= 1 else 255.0
    if high <= low:
        return PixelRange(depth, 0.0, top if high <= top else high)
    if depth == FLOAT and -1 <= low < 0 < high <= 1:
        return PixelRange(depth, -1.0, 1.0)
    if low >= 0 and high <= top:
        return PixelRange(depth, 0.0, top if high >= top / DARK else high)
    bits = float(2 ** int(high).bit_length() - 1)
    if low < 0 or depth == FLOAT or high - low < bits / NARROW:
        return PixelRange(depth, low, high)
    return PixelRange(depth, 0.0, bits)


def depth_of(dtype: np.dtype[np.generic]) -> int:
    """The depth of an array's values."""
    return FLOAT if dtype.kind == "f" else {1: 8, 2: 16}.get(dtype.itemsize, 32) if dtype.kind in "bu" else 32


def scaled(values: NDArray[Any], pixel_range: PixelRange) -> Pixels:
    """Values of any real type as 0...255 by a dataset's range: (...) -> uint8 (...). NaN is black."""
    depth = depth_of(values.dtype)
    low, high = pixel_range.ends(depth)
    if depth == 8 and (low, high) == (0, 255):
        return values.astype(np.uint8, copy=False)
    if depth == 16 and (low, high) == (0, 65_535):
        return (values.astype(np.uint32) * 255 // 65_535).astype(np.uint8)
    exact = np.dtype(np.float32 if values.dtype.itemsize <= 2 else np.float64)  # float32 has whole numbers up to 2^24
    away = np.nan_to_num(values.astype(exact) - np.asarray(low, exact), posinf=high - low)
    bright: Pixels = np.rint(away * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    return bright


@dataclass(frozen=True)
class ImageLimits:
    """Width times height of an image, and its longer side, in pixels."""

    max_pixels: int
    max_side: int = 16_384


IN_DATASETS, AT_ASSIGN = ImageLimits(50_000_000), ImageLimits(50_000_000)
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
    depth: int = 8
    low: float = 0.0
    high: float = 255.0

    @property
    def pixel_range(self) -> PixelRange:
        """Of the dataset that the model was trained on."""
        return PixelRange(self.depth, self.low, self.high)

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
        BadImage: `not_an_image`, `too_many_parts`, `too_many_pixels`, `side_too_long` or `animated_image`.
    """
    if bounds.is_endless(data):
        raise BadImage("too_many_parts", "the file has more scans, segments or chunks than any honest image")

    def opened() -> Image.Image:
        return Image.open(io.BytesIO(data), formats=FORMATS)

    try:
        image = opened()
        is_animated = image.format not in _MANY_PICTURES and bounds.has_second_frame(image, opened)
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", "the image has too many pixels") from error
    except Exception as error:
        _raise_if_ours(error)
        raise BadImage("not_an_image", "it is no PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC image") from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadImage("too_many_pixels", f"{width}x{height} is more than {limits.max_pixels} pixels")
    if max(width, height) > limits.max_side:
        raise BadImage("side_too_long", f"{width}x{height} has a side of more than {limits.max_side} pixels")
    if is_animated:
        raise BadImage("animated_image", "the file holds more than one frame")
    return image


def load(image: Image.Image, pixel_range: PixelRange = PLAIN) -> Image.Image:
    """Decode an opened image fully and bring it upright: same picture, mode L or RGB, no metadata.

    `pixel_range` is that of the dataset.

    Raises:
        BadImage: `broken_image` where the file ends early or its data is damaged.
    """
    try:
        return _plain(upright(image), pixel_range)
    except Exception as error:
        _raise_if_ours(error)
        raise BadImage("broken_image", "the image data is damaged or incomplete") from error


def decode_values(image: Image.Image) -> tuple[Image.Image, NDArray[Any] | None]:
    """A decoded image as `load` gives it, and its values where it has more than eight bits to a pixel.

    Raises:
        BadImage: see `load`; `no_values` where none of them is finite.
    """
    try:
        turned = upright(image)
        values = deep_values(turned)
        plain = _plain(turned, PLAIN) if values is None else turned
    except Exception as error:
        _raise_if_ours(error)
        raise BadImage("broken_image", "the image data is damaged or incomplete") from error
    if values is not None and not np.isfinite(values).any():
        raise BadImage("no_values", "none of the image's values is finite")
    return plain, values


def _reduce(image: Image.Image, side: int) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth, as long as twice the side is left; others as they are."""
    shorter = min(image.size)
    if image.format == "JPEG" and shorter >= 4 * side:
        scale = next(scale for scale in (8, 4, 2) if shorter // scale >= 2 * side)
        image.draft(None, (image.width // scale, image.height // scale))


def upright(image: Image.Image) -> Image.Image:
    """Decode an opened image fully and turn it as its metadata says."""
    image.load()
    is_rotated = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if is_rotated else image


def is_reduced(image: Image.Image) -> bool:
    """Whether an opened image has color of 16 bits a channel: Pillow reads the upper eight."""
    tile = getattr(image, "tile", None)
    raw = str(tile[0][3]) if tile else ""
    return image.mode in ("RGB", "RGBA") and ";16" in raw


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
    return read(open_for(data, spec, limits), spec)


def open_for(data: bytes, spec: InputSpec, limits: ImageLimits = AT_ASSIGN) -> Image.Image:
    """Open a file by its header for a model; its `size` is what will be decoded of it.

    Raises:
        BadImage: see `open_image`.
    """
    image = open_image(data, limits)
    if spec.rule >= 2:
        _reduce(image, spec.side)
    return image


def read(image: Image.Image, spec: InputSpec) -> Pixels:
    """An opened image as a model's input: -> uint8 (channels, side, side).

    Raises:
        BadImage: see `load`.
    """
    return to_pixels(load(image, spec.pixel_range), spec)


def from_arrays(images: NDArray[Any], spec: InputSpec) -> Pixels:
    """Decoded images as a model's inputs: (N, H, W) or (N, H, W, 3 | 4) -> uint8 (N, channels, side, side).

    Values of another depth than the model's dataset had are taken for that depth where they are whole numbers up to
    255: int64 is what NumPy makes of a list. Others have the range that they are seen in.
    """
    chosen = spec.pixel_range
    if depth_of(images.dtype) != chosen.depth:
        low, high = float(images.min()), float(images.max())
        if low >= 0 and high <= 255 and (high > 1 or chosen.depth == 8) and (images == np.floor(images)).all():
            images = images.astype(np.uint8)
        else:
            chosen = choose_range(depth_of(images.dtype), low, high)
    images = scaled(images, chosen)
    n_channels = 1 if images.ndim == 3 else images.shape[3]
    if images.shape[1:3] != (spec.side, spec.side) or n_channels != spec.channels:
        return np.stack([to_pixels(load(Image.fromarray(image)), spec) for image in images])
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def thumbnail(data: bytes, side: int, pixel_range: PixelRange = PLAIN) -> bytes:
    """A stored image shrunk to fit `side` x `side`, as PNG bytes."""
    image = load(Image.open(io.BytesIO(data)), pixel_range)
    image.thumbnail((side, side), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _raise_if_ours(error: Exception) -> None:
    """Damaged files make Pillow raise whatever its parsers meet; memory is not the file's fault."""
    if isinstance(error, MemoryError):
        raise error


def deep_values(image: Image.Image) -> NDArray[Any] | None:
    """The values of a decoded image with more than eight bits to a pixel, (H, W); None for others.

    White is the largest value, also where the file says that it is the smallest (TIFF's WhiteIsZero).
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return None
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        values = 65_535 - values if values.dtype == np.uint16 else -values
    return values


def _plain(image: Image.Image, pixel_range: PixelRange) -> Image.Image:
    """Mode L or RGB: alpha over white, values scaled, palette and CMYK expanded."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return _scaled_8(image, pixel_range)
    values = deep_values(image)
    if values is not None:
        return Image.fromarray(scaled(values, pixel_range))
    is_gray = image.mode in _GRAY_MODES
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _scaled_8(image.convert("L" if is_gray else "RGB"), pixel_range)


def _scaled_8(image: Image.Image, pixel_range: PixelRange) -> Image.Image:
    if pixel_range.depth != 8 or pixel_range.is_plain:
        return image
    return Image.fromarray(scaled(np.asarray(image), pixel_range))
