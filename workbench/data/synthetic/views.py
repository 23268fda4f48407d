"""Two ways to see a product: alone on white, and on a shelf among its neighbours."""

from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from workbench.data.synthetic.drawing import (
    blur,
    cast_shadow,
    hand,
    hsv,
    light,
    mix,
    noise,
    paste,
    price_tag,
    to_uint8,
    warp,
)
from workbench.data.synthetic.packaging import draw_neighbour, draw_package
from workbench.data.synthetic.skus import NUM_BRANDS, Sku, design_skus

MOST_OCCLUDED = 0.4  # of the product's pixels in the frame, by hands and tags
MOST_TRUNCATED = 0.2  # of the area of the product's bounding box, by the frame
_NUM_NEIGHBOURS = 12

View = Literal["packshot", "shelf"]


def draw_product(sku: Sku, size_px: int, rng: np.random.Generator, view: View = "packshot") -> np.ndarray:
    """One picture of a product, uint8 [size_px, size_px, 3], RGB; a packshot does not depend on `rng`."""
    if view == "packshot":
        return _draw_packshot(sku, size_px)
    return draw_shelf_view(sku, size_px, rng)[0]


def _draw_packshot(sku: Sku, size_px: int) -> np.ndarray:
    image_HWC = np.full((size_px, size_px, 3), 255, np.float32)
    package = draw_package(sku, round(size_px * 1.8), sku.brand.yaw, 0.1)
    scale = 0.92 * size_px / max(package.size)
    package = package.resize((round(package.width * scale), round(package.height * scale)), Image.Resampling.BOX)
    left, top = (size_px - package.width) // 2, (size_px - package.height) // 2
    layer = Image.new("RGBA", (size_px, size_px))
    layer.paste(package, (left, top))
    cast_shadow(image_HWC, layer.getchannel("A"), (0, size_px * 0.015), size_px * 0.02, 0.3)
    paste(image_HWC, layer)
    return to_uint8(image_HWC)


def draw_shelf_view(sku: Sku, size_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shelf view and what is seen of the product in it.

    Returns:
        The picture, uint8 [size_px, size_px, 3]; where the product is, bool [size_px, size_px]; where a hand or a tag
        lies over the product, bool [size_px, size_px], at most `MOST_OCCLUDED` of it.
    """
    package = draw_package(
        sku, round(size_px * 0.95), rng.uniform(-0.5, 0.5), max(0.0, rng.normal(0.08, 0.12)), rng.uniform(-1.1, 1.1)
    )
    product = _place(package, size_px, rng)
    box = product.getbbox()
    image_HWC = _draw_shelf(package, box or (0, 0, size_px, size_px), size_px, rng)
    alpha = product.getchannel("A")
    shift = rng.uniform(-0.08, 0.08) * size_px, rng.uniform(0, 0.05) * size_px
    cast_shadow(image_HWC, alpha, shift, size_px * 0.03, rng.uniform(0.3, 0.75))
    paste(image_HWC, product)
    product_HW = np.asarray(alpha) > 127
    occluded_HW = np.zeros_like(product_HW)
    for _ in range(rng.choice(3, p=[0.5, 0.35, 0.15])):
        thing = _draw_occluder(size_px, rng)
        covered_HW = occluded_HW | (product_HW & (np.asarray(thing.getchannel("A")) > 0))
        if covered_HW.sum() > MOST_OCCLUDED * product_HW.sum():
            continue
        occluded_HW = covered_HW
        cast_shadow(image_HWC, thing.getchannel("A"), (2, 3), size_px * 0.02, 0.35)
        paste(image_HWC, thing)
    light(image_HWC, rng)
    image = blur(Image.fromarray(to_uint8(image_HWC)), rng, size_px / 110)
    return noise(image, rng, 9), product_HW, occluded_HW


def _place(package: Image.Image, size_px: int, rng: np.random.Generator) -> Image.Image:
    """The package somewhere in the frame: scaled, rolled, keystoned, and cut by the frame by at most MOST_TRUNCATED."""
    scale = size_px * rng.uniform(0.78, 1.12) / max(package.size)
    half_w, half_h = package.width * scale / 2, package.height * scale / 2
    roll, keystone = rng.normal(0, 0.06), rng.uniform(-0.07, 0.07, 2)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    corners = corners * (1 + keystone * corners[:, ::-1]) * (half_w, half_h) @ turn.T
    centre = np.array([size_px / 2, size_px / 2]) + rng.uniform(-0.16, 0.16, 2) * size_px
    for pull in (1.0, 0.5, 0.0):
        middle = size_px / 2 + (centre - size_px / 2) * pull
        low, high = corners.min(0) + middle, corners.max(0) + middle
        seen = np.clip(np.minimum(high, size_px) - np.maximum(low, 0), 0, None) / (high - low)
        if seen.prod() >= 1 - MOST_TRUNCATED:
            break
    quad = [(float(x), float(y)) for x, y in corners + middle]
    return warp(package, (quad[0], quad[1], quad[2], quad[3]), (size_px, size_px))


@lru_cache(maxsize=4)
def _neighbours(height_px: int) -> tuple[Image.Image, ...]:
    """Products that stand around: of brands that are in no set, the same for every seed."""
    skus = design_skus(0, 4 * _NUM_NEIGHBOURS, NUM_BRANDS - 4 * _NUM_NEIGHBOURS)
    return tuple(draw_neighbour(sku, height_px) for sku in skus[::4])


def _draw_shelf(
    package: Image.Image, box: tuple[int, int, int, int], size_px: int, rng: np.random.Generator
) -> np.ndarray:
    """The wall, the board and its rail, and a neighbour on either side, as float32 [size_px, size_px, 3]."""
    wall = np.array(hsv(rng.random(), rng.uniform(0, 0.25), rng.uniform(0.1, 0.75)), np.float32)
    falls = np.linspace(rng.uniform(0.4, 0.9), 1.1, size_px, dtype=np.float32)[:, None, None]
    image_HWC = np.repeat(wall * falls, size_px, axis=1)
    board_px = min(box[3] - round(size_px * 0.02), size_px)
    height_px = round(size_px * 0.9)
    neighbours = _neighbours(height_px)
    own = rng.random() < 0.35  # a second facing of the same product
    for side in (-1, 1):
        other = neighbours[rng.integers(len(neighbours))]
        if own and side == 1:
            other = package
        scale = rng.uniform(0.7, 1.15) * (box[3] - box[1]) / other.height
        size = max(1, round(other.width * scale)), max(1, round(other.height * scale))
        other = other.resize(size, Image.Resampling.BILINEAR)
        gap_px = round(rng.uniform(-0.04, 0.08) * size_px)
        left = box[0] - gap_px - other.width if side < 0 else box[2] + gap_px
        paste(image_HWC, other, left, board_px - other.height)
    tone = np.array(mix((70, 60, 52), (225, 225, 225), rng.random()), np.float32)
    lip_px = board_px + max(2, round(size_px * 0.05))
    image_HWC[board_px:lip_px] = tone
    image_HWC[lip_px:] = np.array(hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.2, 0.95)), np.float32)
    if lip_px < size_px - 8:
        paste(image_HWC, price_tag(round(size_px * 0.22), rng), int(rng.integers(size_px)), lip_px + 1)
    return image_HWC


def _draw_occluder(size_px: int, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        return hand(size_px, rng)
    canvas = Image.new("RGBA", (size_px, size_px))
    tag = price_tag(round(size_px * rng.uniform(0.18, 0.38)), rng)
    canvas.paste(tag, (int(rng.integers(-8, size_px - 16)), int(rng.integers(size_px // 4, size_px - 12))))
    return canvas
