"""The one image rule, through files of every accepted format."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import pixels
from models.pixels import BadImage, InputSpec
from tests.factories import cut_picture, picture

GRAY, COLOR = InputSpec("images", side=8, channels=1), InputSpec("images", side=8, channels=3)
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(form):
    options = {"lossless": True} if form == "WEBP" else {}

    assert np.array_equal(pixels.decode(picture(RAMP, form, **options), GRAY)[0], RAMP)


def test_jpeg_gives_nearly_the_same_pixels():
    smooth = np.full((8, 8), 100, np.uint8)

    assert np.abs(pixels.decode(picture(smooth, "JPEG", quality=95), GRAY)[0].astype(int) - 100).max() <= 2


def test_rotation_by_exif_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown a quarter turn clockwise
    upright = pixels.decode(saved(Image.fromarray(RAMP), exif=exif.tobytes()), GRAY)[0]

    assert np.array_equal(upright, np.rot90(RAMP, -1))


def test_transparency_is_over_white():
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)

    got = pixels.decode(picture(clear), COLOR)

    assert got[:, 0, 0].tolist() == [10, 20, 30]
    assert (got[:, 1:, :] == 255).all()


def test_sixteen_bits_are_scaled():
    wide = np.array([[0, 257], [32_768, 65_535]], np.uint16).repeat(4, 0).repeat(4, 1)

    assert np.unique(pixels.decode(saved(Image.fromarray(wide)), GRAY)).tolist() == [0, 1, 127, 255]


def test_palettes_are_expanded_and_color_becomes_gray_where_the_model_is_gray():
    red = Image.new("RGB", (8, 8), (255, 0, 0))

    assert pixels.decode(saved(red.quantize(4)), COLOR)[:, 3, 3].tolist() == [255, 0, 0]
    assert pixels.decode(saved(red), GRAY)[0, 3, 3] == 76  # ITU-R 601: 0.299 of 255


def test_shrinking_averages_blocks_of_the_central_square():
    wide = np.zeros((16, 24), np.uint8)
    wide[:, 4:20] = np.arange(0, 64).reshape(8, 8).repeat(2, 0).repeat(2, 1)  # the central square
    wide[::2] += 2

    got = pixels.decode(picture(wide), GRAY)[0]

    assert np.array_equal(got, np.arange(64).reshape(8, 8) + 1)


def test_a_thin_picture_costs_no_more_than_a_square_one():
    assert pixels.decode(picture(np.full((1, 16_000), 9, np.uint8)), GRAY).max() == 9


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_an_image"),
        (b"GIF89a", "not_an_image"),
        (cut_picture(), "broken_image"),
        (picture(np.zeros((1, 16_385), np.uint8)), "side_too_long"),
        (picture(np.zeros((8000, 7000), np.uint8)), "too_many_pixels"),
    ],
)
def test_what_is_no_usable_image_has_a_code(data, code):
    with pytest.raises(BadImage) as caught:
        pixels.decode(data, GRAY)

    assert caught.value.code == code


def test_more_than_one_frame_is_refused():
    frames = [Image.fromarray(RAMP), Image.fromarray(RAMP.T)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])

    with pytest.raises(BadImage) as caught:
        pixels.decode(data, GRAY)

    assert caught.value.code == "animated_image"


@pytest.mark.parametrize(
    ("sizes", "side"), [((28, 28), 28), ((128, 128), 128), ((200, 200), 32), ((28, 30), 32), ((None, None), 32)]
)
def test_the_input_side_is_kept_where_images_share_a_small_square(sizes, side):
    assert pixels.choose_side(*sizes, None) == side
    assert pixels.choose_side(*sizes, 64) == 64


@pytest.mark.parametrize(
    ("form", "rule", "decoded"),
    [("JPEG", 2, (500, 375)), ("JPEG", 1, (4000, 3000)), ("PNG", 2, (4000, 3000))],
)
def test_a_large_jpeg_is_decoded_at_a_reduced_scale_and_looks_the_same(form, rule, decoded):
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    large = small.resize((4000, 3000), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    large.save(out, form)
    spec = replace(pixels.InputSpec("images", side=64, channels=3), rule=rule)

    image = pixels.open_for(out.getvalue(), spec)

    assert image.size == decoded
    expected = pixels.to_pixels(large, spec).astype(int)
    assert np.abs(pixels.read(image, spec) - expected).mean() < 2


def test_heic_and_avif_are_read():
    file = Path(__file__).parents[1] / "app" / "intake" / "photo.heic"
    heic = pixels.load(pixels.open_image(file.read_bytes(), pixels.IN_DATASETS))
    assert (heic.size, heic.getpixel((50, 40)), heic.getpixel((120, 40))) == ((160, 96), (240, 200, 40), (200, 29, 59))

    out = io.BytesIO()
    Image.new("RGB", (32, 24), (240, 200, 40)).save(out, "AVIF")
    avif = pixels.load(pixels.open_image(out.getvalue(), pixels.IN_DATASETS))
    assert avif.size == (32, 24)
    assert np.abs(np.array(avif.getpixel((16, 12))) - (240, 200, 40)).max() <= 4
