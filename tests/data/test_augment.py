from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.data.augment import Augmentation, augment_image

NOTHING = Augmentation(
    crop_share=1, rotation_deg=0, perspective=0, brightness=0, contrast=0, saturation=0, blur_share=0, flip_share=0
)


def _photograph() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((50, 60), Image.Resampling.BICUBIC)


def _with(**changes: float) -> Augmentation:
    return Augmentation(**{**NOTHING.__dict__, **changes})


def test_the_generator_alone_decides() -> None:
    image = _photograph()
    one = augment_image(image, Augmentation(), np.random.default_rng(1))
    again = augment_image(image, Augmentation(), np.random.default_rng(1))
    other = augment_image(image, Augmentation(), np.random.default_rng(2))
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != other.tobytes()
    assert one.size == image.size


def test_brightness_stays_within_its_strength() -> None:
    grey = Image.new("RGB", (20, 20), (100, 100, 100))
    means = [
        np.asarray(augment_image(grey, _with(brightness=0.3), np.random.default_rng(seed))).mean() for seed in range(50)
    ]
    assert 70 <= min(means) < 80
    assert 120 < max(means) <= 130


def test_a_flip_is_the_mirror_image() -> None:
    # The crop's aspect varies a little even when its area does not, so the comparison is with the unflipped copy.
    image = _photograph()
    straight = augment_image(image, NOTHING, np.random.default_rng(3))
    flipped = augment_image(image, _with(flip_share=1), np.random.default_rng(3))
    assert flipped.tobytes() == straight.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()


def test_erasing_changes_at_most_a_fifth_and_at_least_a_fiftieth_of_the_area() -> None:
    image = Image.new("RGB", (100, 100))
    shares = []
    for seed in range(40):
        copy = np.asarray(augment_image(image, _with(erase_share=1), np.random.default_rng(seed)))
        shares.append(np.any(copy != 0, axis=2).mean())
    assert min(shares) >= 0.015
    assert max(shares) <= 0.21


def test_the_crop_keeps_its_share_of_the_area() -> None:
    # A ramp: the range of values that a copy shows is the range of columns that it kept.
    ramp = Image.fromarray(np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy())
    for seed in range(20):
        copy = np.asarray(augment_image(ramp, _with(crop_share=0.5), np.random.default_rng(seed))).astype(int)
        kept = (copy.max() - copy.min()) / 255
        assert 0.5 * 0.92 <= kept <= 1


@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_any_size_works_and_is_kept(width: int, height: int, seed: int) -> None:
    image = Image.new("RGB", (width, height), (10, 200, 30))
    everything = Augmentation(blur_share=1, flip_share=1, erase_share=1, rotation_deg=180)
    copy = augment_image(image, everything, np.random.default_rng(seed))
    assert (copy.size, copy.mode) == ((width, height), "RGB")


@pytest.mark.parametrize(
    ("field", "value"),
    [("crop_share", 0.0), ("brightness", 1.5), ("perspective", 0.5), ("rotation_deg", -1.0), ("flip_share", 2)],
)
def test_strengths_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Augmentation(**{field: value})


def test_a_copy_of_another_size_shows_the_same_part() -> None:
    image = _photograph()
    for seed in range(10):
        full = augment_image(image, _with(crop_share=0.5), np.random.default_rng(seed))
        small = augment_image(image, _with(crop_share=0.5), np.random.default_rng(seed), size=(40, 48))
        assert small.size == (40, 48)
        difference = np.asarray(full.resize((40, 48), Image.Resampling.BICUBIC)).astype(int) - np.asarray(small)
        assert np.abs(difference).mean() < 2  # of 255 levels; another crop of this picture differs by more than 3


class _Furthest:
    """A generator that always draws the largest value, so that a copy is turned by all that is allowed."""

    def uniform(self, low: float, high: float, size: int | tuple[int, ...] | None = None) -> object:
        return high if size is None else np.full(size, high)

    def random(self) -> float:
        return 1.0


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (80, 80)])
@pytest.mark.parametrize("copy_size", [None, (64, 128)])
@pytest.mark.parametrize("degrees", [10.0, 30.0])
def test_a_rotation_turns_all_edges_alike(
    size: tuple[int, int], copy_size: tuple[int, int] | None, degrees: float
) -> None:
    """The picture's colours are its coordinates: along an edge of the picture one of them stays what it is."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([255 * x / (width - 1), 255 * y / (height - 1), np.full(x.shape, 255)], axis=-1)
    image = Image.fromarray(ramps.astype(np.uint8))
    furthest: Any = _Furthest()
    copy = np.asarray(augment_image(image, _with(rotation_deg=degrees), furthest, copy_size)).astype(float)
    rows, columns = np.nonzero((copy[..., 2] == 255) & (copy[..., :2] > 3).all(-1) & (copy[..., :2] < 252).all(-1))
    there = np.stack([columns, rows, np.ones(len(rows))], axis=1)
    red, green = np.linalg.lstsq(there, copy[rows, columns, :2], rcond=None)[0][:2].T
    upright = np.rad2deg(np.arctan2(red[1], red[0]))  # along it red changes most: level in the picture
    level = np.rad2deg(np.arctan2(-green[0], green[1]))
    # 8 bits over a thousand pixels and more leave some hundredths of a degree
    assert abs(abs(upright) - degrees) < 0.2
    assert abs(abs(level) - degrees) < 0.2
    assert abs(upright - level) < 0.2, "corners are no right angles"


def test_what_is_erased_is_up_to_three_times_as_high_as_wide_or_as_wide_as_high() -> None:
    image = Image.new("RGB", (64, 128))
    shapes = []
    for seed in range(80):
        erased = np.any(np.asarray(augment_image(image, _with(erase_share=1), np.random.default_rng(seed))), axis=2)
        shapes.append((int(erased.any(axis=1).sum()), int(erased.any(axis=0).sum())))
    high, wide = np.array(shapes, dtype=float).T
    # sides are rounded to whole pixels
    assert ((high - 0.5) / (wide + 0.5)).max() <= 1 / 0.3
    assert ((high + 0.5) / (wide - 0.5)).min() >= 0.3
    assert (high / wide).max() > 2.5
    assert (high / wide).min() < 0.4
