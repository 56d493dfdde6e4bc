"""Views of images against what can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from models.parts.augment import shift_and_rotate
from models.parts.encoders import at_least, sigmoid_as_tanh, xavier
from models.start.views import VIEWS, blocks_of_view, contrast, hog


def stripes(angle_degrees: float, side: int = 32) -> torch.Tensor:
    """A plane wave whose brightness changes along the angle."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angle = math.radians(angle_degrees)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    return (0.5 + 0.4 * torch.sin(along * 0.8)).view(1, 1, side, side)


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (20, 1), (40, 2), (80, 4), (100, 5), (160, 8)])
def test_gradients_of_stripes_fall_into_the_bin_of_their_direction(angle, expected):
    # Nine bins of 20 degrees; a slope at 20 n degrees is all of bin n.
    found = hog(stripes(angle)).view(1, 4, 9, -1)  # four places in a block, nine orientations

    assert found.sum(dim=(0, 1, 3)).argmax().item() == expected


def test_oriented_gradients_ignore_brightness_and_contrast():
    x = stripes(30)

    torch.testing.assert_close(hog(x * 0.5 + 0.2), hog(x), rtol=0, atol=5e-3)


def test_oriented_gradients_have_unit_length_and_a_known_size():
    found = hog(torch.rand(3, 1, 28, 28))

    assert found.shape == (3, 6 * 6 * 4 * 9)  # 7 x 7 cells of 4 pixels, 6 x 6 blocks
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_a_flat_image_has_no_gradients_and_no_contrast():
    flat = torch.full((1, 3, 16, 16), 0.7)

    assert hog(flat).abs().max() == 0
    assert contrast(flat).abs().max() < 1e-2


def test_local_contrast_ignores_a_slow_change_of_light():
    texture = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2
    light = torch.linspace(0, 0.8, 32).view(1, 1, 1, 32)

    inner = (slice(None), slice(8, 24), slice(8, 24))
    plain, lit = (contrast(x).view(1, 32, 32)[inner].flatten() for x in (texture, texture + light))

    assert np.corrcoef(plain, lit)[0, 1] > 0.98


@pytest.mark.parametrize("side", [8, 16, 28, 55, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_takes_every_size_and_gives_finite_rows(name, side, channels):
    x = np.random.default_rng(0).integers(0, 255, (3, channels, side, side), np.uint8)

    rows = torch.cat(list(blocks_of_view(name, x, np.arange(len(x)), "cpu", lambda: None)))

    assert rows.dtype == torch.float32
    assert len(rows) == 3
    assert rows.isfinite().all()


def test_vectors_are_seen_as_they_are_and_only_the_rows_asked_for():
    x = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)

    whole = torch.cat(list(blocks_of_view("raw", x, np.arange(len(x)), "cpu", lambda: None)))
    some = torch.cat(list(blocks_of_view("raw", x, np.array([3, 699, 0]), "cpu", lambda: None)))

    np.testing.assert_array_equal(whole, x)
    np.testing.assert_array_equal(some, x[[3, 699, 0]])


def test_augmentation_without_size_changes_nothing():
    x = torch.rand(4, 1, 16, 16)

    assert shift_and_rotate(x, 0, 0) is x


def test_augmentation_moves_each_image_within_its_bounds_and_keeps_it_apart_from_its_neighbours():
    x = torch.zeros(200, 1, 41, 41)
    x[:, 0, 20, 20] = 1  # one bright pixel in the middle
    x[100:] *= 3
    torch.manual_seed(0)

    moved = shift_and_rotate(x, shift=0.1, degrees=0)

    mass = moved.flatten(1).sum(dim=1)
    torch.testing.assert_close(mass[:100], torch.ones(100), rtol=0, atol=1e-3)
    torch.testing.assert_close(mass[100:], torch.full((100,), 3.0), rtol=0, atol=3e-3)
    places = (moved[:, 0].sum(dim=1) * torch.arange(41)).sum(dim=1) / mass - 20
    assert 3 < places.abs().max() <= 4.1 + 1e-3  # a tenth of 41 pixels, each image by its own
    assert places.std() > 1


def test_a_rotation_turns_by_no_more_than_its_bound():
    x = torch.zeros(100, 1, 41, 41)
    x[:, 0, 20, 36] = 1  # 16 pixels right of the middle
    torch.manual_seed(0)

    moved = shift_and_rotate(x, shift=0, degrees=10)

    rows = (moved[:, 0].sum(dim=2) * (torch.arange(41) - 20)).sum(dim=1) / moved.flatten(1).sum(dim=1)
    assert 2 < rows.abs().max() <= 16 * math.sin(math.radians(10)) + 0.05


def test_only_short_sides_are_enlarged():
    assert at_least(torch.rand(1, 1, 16, 16), 28).shape == (1, 1, 28, 28)
    x = torch.rand(1, 1, 32, 32)
    assert at_least(x, 28) is x


def test_a_sigmoid_network_begins_as_the_tanh_network_it_equals():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 3), torch.nn.Sigmoid())
    xavier(network, torch.Generator().manual_seed(1))
    x = torch.randn(4, 6)
    expected = torch.tanh(2 * x @ network[0].weight.T)  # 4 w x / 2
    expected = torch.tanh(expected @ network[2].weight.T)

    sigmoid_as_tanh(network)

    torch.testing.assert_close(network(x), (1 + expected) / 2)
