"""Augmented copies of a photograph, each determined by a random generator of its own."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

AUGMENTATION_VERSION = 2
"""Part of the key under which embeddings of copies are kept: raise it when any pixel changes. 2: turned in px."""

# Corners of a unit square in the order in which Pillow's QUAD transform wants them.
_CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a copy; each strength is the largest change, 0 switches it off.

    The defaults are mild: a product stays legible and keeps its colours apart from its siblings'. No mirror image by
    default, since packaging carries text; people and animals are mirrored (`flip_share` 0.5).

    Attributes:
        crop_share: smallest share of the area that a random crop keeps, in (0, 1].
        rotation_deg: largest rotation to either side, degrees.
        perspective: largest displacement of a corner, as a share of the side.
        brightness, contrast, saturation: largest relative change.
        blur_share: share of copies that are blurred (Gaussian, radius up to 1 % of the shorter side).
        flip_share: share of copies that are mirrored.
        erase_share: share of copies in which a rectangle of 2 to 20 % of the area, 0.3 to 3.3 times as high as wide in px, is
            filled with noise (after Zhong et al., Random Erasing, AAAI 2020, who take up to 40 %).
    """

    crop_share: float = 0.7
    rotation_deg: float = 10.0
    perspective: float = 0.08
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.2
    blur_share: float = 0.2
    flip_share: float = 0.0
    erase_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share lies in (0, 1]; found {self.crop_share}.")
        for name in ("brightness", "contrast", "saturation", "blur_share", "flip_share", "erase_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} lies in 0 to 1; found {getattr(self, name)}.")
        if not 0 <= self.perspective < 0.5 or not 0 <= self.rotation_deg <= 180:
            raise ValueError(
                f"perspective lies in [0, 0.5), rotation_deg in 0 to 180; found {self.perspective}, {self.rotation_deg}."
            )


def augment_image(
    image: Image.Image, augmentation: Augmentation, rng: np.random.Generator, size: tuple[int, int] | None = None
) -> Image.Image:
    """An augmented copy: RGB; the same generator state gives the same copy.

    Crop, rotation and perspective are one resampling, so that detail is lost only once.

    Args:
        image: RGB, upright.
        augmentation: what may happen.
        rng: decides.
        size: width and height of the copy, px, in the same resampling; None is that of `image`. It does not smooth: the
            image should be little larger than the copy.
    """
    width, height = size or image.size
    quad = _random_quad(augmentation, rng, (width, height)) * image.size
    # Pillow's stubs know no QUAD data of floats as a flat tuple
    copy = image.transform(
        (width, height), Image.Transform.QUAD, tuple(quad.ravel().tolist()), Image.Resampling.BICUBIC
    )
    for strength, enhance in (
        (augmentation.brightness, ImageEnhance.Brightness),
        (augmentation.contrast, ImageEnhance.Contrast),
        (augmentation.saturation, ImageEnhance.Color),
    ):
        if strength:
            copy = enhance(copy).enhance(1 + strength * rng.uniform(-1, 1))
    if rng.random() < augmentation.blur_share:
        copy = copy.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.01) * min(width, height)))
    if rng.random() < augmentation.flip_share:
        copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < augmentation.erase_share:
        copy = _erase(copy, rng)
    return copy


def _random_quad(augmentation: Augmentation, rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """The part of the unit square that a copy shows: its four corners [4, 2] as x, y; may reach outside by a rotation.

    The rotation is of the copy, in px: right angles of the crop stay right angles, whatever its width and height.

    Args:
        augmentation: what may happen.
        rng: decides.
        size_px: width and height of the copy.
    """
    area = rng.uniform(augmentation.crop_share, 1)
    aspect = np.exp(rng.uniform(-0.15, 0.15))
    size = np.minimum(np.sqrt(area) * np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)]), 1.0)
    middle = rng.uniform(0, 1, 2) * (1 - size) + size / 2
    angle = np.deg2rad(augmentation.rotation_deg) * rng.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    quad = middle + ((_CORNERS - 0.5) * size_px) @ turn.T / size_px * size
    quad += augmentation.perspective * rng.uniform(-1, 1, (4, 2)) * size
    # slid back inside, or to the middle where it is too large for that, so that black corners stay small
    low, high = quad.min(axis=0), quad.max(axis=0)
    reach = np.minimum((high - low) / 2, 0.5)
    return quad + np.clip((low + high) / 2, reach, 1 - reach) - (low + high) / 2


def _erase(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    area = rng.uniform(0.02, 0.2) * width * height
    aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))  # height to width
    aspect = np.clip(aspect, area / width**2, height**2 / area)  # as high or wide as the picture at most
    erased_width = int(np.clip(round(np.sqrt(area / aspect)), 1, width))
    erased_height = int(np.clip(round(np.sqrt(area * aspect)), 1, height))
    left, top = rng.integers(0, width - erased_width + 1), rng.integers(0, height - erased_height + 1)
    noise = rng.integers(0, 256, (erased_height, erased_width, 3), dtype=np.uint8)
    copy = image.copy()
    copy.paste(Image.fromarray(noise), (int(left), int(top)))
    return copy
