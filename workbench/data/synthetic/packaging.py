"""A product as a thing: box, can, bottle or pouch, turned and lit, cut out on a clear ground."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from workbench.data.synthetic.artwork import draw_front, draw_panel
from workbench.data.synthetic.drawing import Point, mix, warp
from workbench.data.synthetic.skus import Sku

_STEEL = (196, 198, 204)


def draw_package(sku: Sku, height_px: int, yaw: float = 0.0, pitch: float = 0.0, lamp: float = -0.4) -> Image.Image:
    """The product as a tight RGBA image.

    Args:
        sku: what to draw.
        height_px: the height of the front; the image is a little higher where a lid or a top shows.
        yaw: the turn about the upright axis, in radians; positive shows more of the product's right.
        pitch: how far the camera looks down, in radians, 0 to 0.5.
        lamp: where the light comes from, in radians about the upright axis; negative is the left.
    """
    match sku.brand.form:
        case "box":
            return _draw_box(sku, height_px, yaw, pitch, lamp)
        case "pouch":
            return _draw_pouch(sku, height_px, yaw, lamp)
        case _:
            return _draw_round(sku, height_px, yaw, pitch, lamp)


def _draw_box(sku: Sku, height_px: int, yaw: float, pitch: float, lamp: float) -> Image.Image:
    brand = sku.brand
    half_w, half_d = brand.width / 2, brand.width * brand.depth / 2
    front = draw_front(sku, (round(height_px * brand.width), height_px))
    panel = draw_panel(sku, (max(16, round(height_px * half_d * 2)), height_px))
    top = front.crop((0, 0, front.width, front.height // 4)).resize((front.width, max(4, panel.width)))
    side = 1.0 if yaw >= 0 else -1.0

    def project(x: float, y: float, z: float) -> Point:
        x, z = x * np.cos(yaw) - z * np.sin(yaw), x * np.sin(yaw) + z * np.cos(yaw)
        y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
        scale = height_px * 4.0 / (4.0 - z)
        return x * scale, -y * scale

    near, far = half_d, -half_d
    front_at = [
        project(-half_w, 0.5, near),
        project(half_w, 0.5, near),
        project(half_w, -0.5, near),
        project(-half_w, -0.5, near),
    ]
    x = side * half_w
    ends = (near, far) if side > 0 else (far, near)
    side_at = [project(x, 0.5, ends[0]), project(x, 0.5, ends[1]), project(x, -0.5, ends[1]), project(x, -0.5, ends[0])]
    top_at = [
        project(-half_w, 0.5, far),
        project(half_w, 0.5, far),
        project(half_w, 0.5, near),
        project(-half_w, 0.5, near),
    ]
    points = np.array(front_at + side_at + top_at)
    low = np.floor(points.min(0))
    width, height = (int(edge) + 1 for edge in np.ceil(points.max(0) - low))
    canvas = Image.new("RGBA", (width, height))
    facing = np.cos(-yaw - lamp), np.cos(side * np.pi / 2 - yaw - lamp)
    faces = [(front, front_at, 0.62 + 0.42 * max(0.0, facing[0]))]
    if abs(yaw) > 0.02:
        faces.insert(0, (panel, side_at, 0.5 + 0.4 * max(0.0, facing[1])))
    if pitch > 0.02:
        faces.insert(0, (top, top_at, 1.08))
    for texture, corners, shade in faces:
        quad = [(px - low[0], py - low[1]) for px, py in corners]
        lit = texture.point([min(255, round(level * shade)) for level in range(256)] * 3).convert("RGBA")
        canvas.alpha_composite(warp(lit, (quad[0], quad[1], quad[2], quad[3]), canvas.size))
    return canvas


@lru_cache(maxsize=64)
def _wrap(sku: Sku, height_px: int) -> np.ndarray:
    """What goes around a can or bottle, uint8 [rows, columns, 4]: angles from -pi to pi, front in the middle."""
    brand = sku.brand
    around = round(np.pi * brand.width * height_px)
    first, last = (0.035, 0.965) if brand.form == "can" else (0.955 - brand.depth, 0.955)
    rows = round((last - first) * height_px)
    wrap = Image.new("RGB", (around, height_px), _STEEL if brand.form == "can" else brand.glass)
    front_px = round(around * 0.42)
    wrap.paste(
        draw_panel(sku, (around - front_px, rows)).resize((around - front_px, rows)), (0, round(first * height_px))
    )
    wrap = Image.fromarray(np.roll(np.asarray(wrap), -(around - front_px) // 2, axis=1))
    wrap.paste(draw_front(sku, (front_px, rows)), ((around - front_px) // 2, round(first * height_px)))
    if brand.form == "bottle":
        draw = ImageDraw.Draw(wrap)
        draw.rectangle([0, 0, around, round(0.105 * height_px)], brand.accent)
        for x in range(0, around, max(2, around // 60)):
            draw.line([x, 0, x, round(0.09 * height_px)], mix(brand.accent, (0, 0, 0), 0.3))
        draw.rectangle(
            [0, round(0.105 * height_px), around, round(0.12 * height_px)], mix(brand.accent, (0, 0, 0), 0.4)
        )
    return np.asarray(wrap.convert("RGBA"))


def _radius(sku: Sku, height: np.ndarray) -> np.ndarray:
    """The radius at a height (0 top, 1 bottom), as a share of the largest."""
    if sku.brand.form == "can":
        return np.interp(height, [0.0, 0.02, 0.045, 0.955, 0.98, 1.0], [0.93, 0.95, 1.0, 1.0, 0.95, 0.93])
    shoulder = 0.93 - sku.brand.depth
    bend = np.linspace(0, np.pi, 9)
    heights = np.concatenate([[0.0, 0.105, 0.106], 0.16 + (shoulder - 0.16) * np.arange(9) / 8, [0.97, 1.0]])
    return np.interp(height, heights, np.concatenate([[0.4, 0.4, 0.34], 0.67 - 0.33 * np.cos(bend), [1.0, 0.94]]))


def _draw_round(sku: Sku, height_px: int, yaw: float, pitch: float, lamp: float) -> Image.Image:
    brand, texture = sku.brand, _wrap(sku, height_px)
    largest_px = brand.width * height_px / 2
    sink = np.sin(pitch) * largest_px
    lid_px, foot_px = int(np.ceil(sink * 0.95)), int(np.ceil(sink))
    y = np.arange(-lid_px, height_px + foot_px, dtype=np.float32)[:, None] + 0.5
    x = np.arange(-int(np.ceil(largest_px)), int(np.ceil(largest_px)), dtype=np.float32)[None, :] + 0.5
    radius = _radius(sku, np.clip(y / height_px, 0, 1)).astype(np.float32)
    across = np.clip(x / (radius * largest_px), -1, 1)
    depth = np.sqrt(1 - across**2)
    row = y - sink * radius * depth
    angle = np.arcsin(across)
    columns = ((angle + yaw) / (2 * np.pi) + 0.5) * texture.shape[1]
    colour = _sample(texture, row, columns)
    shade = 0.42 + 0.62 * np.clip(np.cos(angle - lamp), 0, 1) * (0.55 + 0.45 * depth)
    glint = brand.gloss * (
        np.exp(-(((angle - lamp * 1.3) / 0.16) ** 2)) + 0.5 * np.exp(-(((angle + 1.05) / 0.07) ** 2))
    )
    colour *= shade[..., None]
    colour += 150 * glint[..., None]
    lid = row < 0
    if lid_px and brand.form == "can":
        ring = np.hypot(across, y / max(sink, 1e-6))
        colour[lid] = (np.array(_STEEL) * (0.98 - 0.3 * ((ring > 0.78) & (ring < 0.9)) + 0.1 * across)[..., None])[lid]
    elif lid_px:
        colour[lid] = np.array(brand.accent) * 0.95
    cover = np.clip(radius * largest_px - np.abs(x) + 0.5, 0, 1) * np.clip(height_px - row, 0, 1)
    cover *= np.clip(y + sink * radius * depth + 0.5, 0, 1)
    return _cut_out(colour, cover)


def _draw_pouch(sku: Sku, height_px: int, yaw: float, lamp: float) -> Image.Image:
    brand = sku.brand
    front = np.asarray(draw_front(sku, (round(height_px * brand.width), height_px)).convert("RGBA"))
    width_px = max(8, round(height_px * brand.width * np.cos(yaw)))
    y = (np.arange(height_px, dtype=np.float32)[:, None] + 0.5) / height_px
    x = (np.arange(width_px, dtype=np.float32)[None, :] + 0.5) / width_px * 2 - 1
    belly = np.sin(np.pi * y) ** 0.5
    half = 0.95 + 0.05 * np.abs(2 * y - 1) ** 2 - 0.03 * np.sin(6 * np.pi * y + brand.number) * (1 - belly)
    across = x / half
    columns = (0.5 + 0.5 * (across + 0.35 * np.sin(yaw) * (1 - across**2) * belly)) * front.shape[1]
    colour = _sample(front, np.broadcast_to(y * height_px, columns.shape), np.clip(columns, 0, front.shape[1] - 1.01))
    slope = across**3 * belly + 0.1 * np.sin(9 * across + 5 * y + brand.number) * (1 - belly) * 2
    shade = 0.95 + 0.32 * slope * np.sign(lamp + 1e-6) - 0.22 * np.abs(across) ** 4
    fold = np.minimum(y, 1 - y)
    seal = fold < 0.055
    shade = np.where(
        seal, 0.86 + 0.13 * np.sign(np.sin(x * width_px * 1.2)), shade - 0.25 * np.exp(-(((fold - 0.07) / 0.02) ** 2))
    )
    glint = brand.gloss * np.exp(-(((across - 0.55 * np.sign(lamp) + 0.2 * (y - 0.5)) / 0.1) ** 2)) * belly
    colour *= shade[..., None].astype(np.float32)
    colour += 110 * glint[..., None]
    teeth = 0.012 * np.abs((x * width_px / 5) % 2 - 1)
    cover = np.clip((half - np.abs(x)) * width_px / 2 + 0.5, 0, 1) * np.clip((fold - teeth) * height_px + 0.5, 0, 1)
    return _cut_out(colour, cover)


def _sample(texture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The texture (uint8 [rows, columns, 4]) at fractional places, float32 [..., 3]; columns wrap, rows stay inside.

    Linear along a row and nearest between rows, whose step is one pixel: half the reads, and the placing in the frame
    smooths again.
    """
    height, width = texture.shape[:2]
    packed = texture.view(np.uint32).ravel()
    left = np.floor(columns).astype(np.int32)
    share = (columns - left).astype(np.float32)[..., None]
    start = np.clip(rows, 0, height - 1).astype(np.int32) * width
    here = packed.take(start + left % width)[..., None].view(np.uint8)[..., :3].astype(np.float32)
    beside = packed.take(start + (left + 1) % width)[..., None].view(np.uint8)[..., :3]
    here += (beside - here) * share
    return here


def _cut_out(colour: np.ndarray, cover: np.ndarray) -> Image.Image:
    pixels = np.empty((*cover.shape, 4), np.uint8)
    pixels[..., :3] = np.clip(colour, 0, 255)
    pixels[..., 3] = cover * 255
    return Image.fromarray(pixels)


@lru_cache(maxsize=32)
def draw_neighbour(sku: Sku, height_px: int) -> Image.Image:
    """A product as it stands beside another on the shelf, frontal, slightly out of focus; do not change the image."""
    return draw_package(sku, height_px).filter(ImageFilter.GaussianBlur(0.8))
