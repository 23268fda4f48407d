"""The places that cameras look at, without people: a wall or a far edge, the ground, and things that stand about."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from workbench.data.synthetic.drawing import Colour, hsv, lettering, mix

PERSON_PX = 160  # the standing height of a person in a scene
SCENE_PX = (1400, 460)  # width and height
HORIZON_PX = 210  # where the wall meets the ground
SCENES = ("plaza", "brick wall", "shop", "corridor", "car park", "park")

_GROUNDS: dict[str, Colour] = {
    "plaza": (176, 170, 160),
    "brick wall": (150, 150, 152),
    "shop": (140, 134, 128),
    "corridor": (206, 204, 194),
    "car park": (96, 98, 102),
    "park": (172, 152, 120),
}


@lru_cache(maxsize=len(SCENES))
def scene(name: str) -> Image.Image:
    """The place of that name (one of `SCENES`), RGB, `SCENE_PX`; the same whenever it is asked for."""
    rng = np.random.default_rng(SCENES.index(name))
    image = Image.new("RGB", SCENE_PX, _GROUNDS[name])
    draw = ImageDraw.Draw(image)
    _draw_ground(draw, name)
    {
        "plaza": _draw_hedge,
        "brick wall": _draw_bricks,
        "shop": _draw_windows,
        "corridor": _draw_doors,
        "car park": _draw_cars,
        "park": _draw_trees,
    }[name](image, rng)
    speckle = Image.fromarray(rng.integers(0, 256, (SCENE_PX[1] // 2, SCENE_PX[0] // 2), np.uint8)).resize(SCENE_PX)
    image = Image.blend(image, Image.merge("RGB", [speckle] * 3), 0.06)
    image = Image.blend(ImageEnhance.Color(image).enhance(0.45), Image.new("RGB", SCENE_PX, (150, 150, 148)), 0.55)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def _draw_ground(draw: ImageDraw.ImageDraw, name: str) -> None:
    width, height = SCENE_PX
    line = mix(_GROUNDS[name], (20, 20, 20), 0.25)
    if name in ("plaza", "corridor", "brick wall", "shop"):
        for step in range(-30, 31):
            x = width / 2 + step * 46
            draw.line([(x, HORIZON_PX), (width / 2 + (x - width / 2) * 2.4, height)], fill=line, width=2)
        y, gap = float(HORIZON_PX), 8.0
        while y < height:
            draw.line([(0, y), (width, y)], fill=line, width=2)
            y, gap = y + gap, gap * 1.22
    elif name == "car park":
        for step in range(-8, 9):
            x = width / 2 + step * 120
            draw.line(
                [(x, HORIZON_PX + 20), (width / 2 + (x - width / 2) * 1.8, height)], fill=(214, 212, 200), width=7
            )
    else:
        draw.polygon(
            [(0, HORIZON_PX + 60), (width, HORIZON_PX + 20), (width, HORIZON_PX), (0, HORIZON_PX)], fill=(96, 122, 60)
        )
        draw.polygon([(0, height), (0, height - 60), (width, height - 20), (width, height)], fill=(104, 128, 64))


def _draw_hedge(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX - 90], fill=(186, 198, 210))
    draw.rectangle([0, HORIZON_PX - 110, SCENE_PX[0], HORIZON_PX], fill=(60, 84, 48))
    for _ in range(1500):
        x, y = int(rng.integers(SCENE_PX[0])), HORIZON_PX - int(rng.integers(0, 118))
        draw.ellipse([x - 7, y - 6, x + 7, y + 6], fill=hsv(rng.uniform(0.22, 0.34), 0.5, rng.uniform(0.22, 0.48)))
    for left in range(90, SCENE_PX[0], 230):
        draw.rectangle([left, HORIZON_PX - 46, left + 110, HORIZON_PX - 36], fill=(122, 84, 52))
        draw.rectangle([left, HORIZON_PX - 22, left + 110, HORIZON_PX - 10], fill=(134, 94, 58))
        for leg in (left + 8, left + 96):
            draw.rectangle([leg, HORIZON_PX - 40, leg + 7, HORIZON_PX + 14], fill=(60, 58, 56))


def _draw_bricks(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX], fill=(178, 166, 154))
    for row, y in enumerate(range(0, HORIZON_PX - 8, 13)):
        for x in range(-30 + row % 2 * 17, SCENE_PX[0], 34):
            draw.rectangle(
                [x, y, x + 31, y + 10], fill=hsv(rng.uniform(0.0, 0.04), rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.66))
            )
    for x in range(150, SCENE_PX[0], 420):
        draw.rectangle([x, HORIZON_PX - 150, x + 70, HORIZON_PX], fill=(52, 66, 62))
        draw.rectangle([x + 130, 30, x + 250, 120], fill=(206, 208, 204))
        draw.rectangle([x + 138, 38, x + 242, 112], fill=(84, 104, 120))


def _draw_windows(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX], fill=(64, 62, 66))
    for number, x in enumerate(range(10, SCENE_PX[0], 175)):
        draw.rectangle(
            [x, 58, x + 150, HORIZON_PX - 22], fill=hsv(rng.uniform(0.08, 0.16), 0.25, rng.uniform(0.6, 0.95))
        )
        for shelf in (100, 142, 180):
            draw.rectangle([x, shelf, x + 150, shelf + 3], fill=(90, 80, 70))
            for left in range(x + 4, x + 140, 15):
                top = shelf - int(rng.integers(12, 30))
                draw.rectangle([left, top, left + 11, shelf - 1], fill=hsv(rng.random(), 0.6, rng.uniform(0.3, 0.9)))
        draw.rectangle([x - 6, 14, x + 156, 50], fill=hsv(rng.random(), 0.65, 0.6))
        sign = lettering(("MARKET", "BAKERY", "BOOKS", "CAFE")[number % 4], (110, 24), (250, 246, 236), bold=0.06)
        image.paste(sign, (x + 20, 20), sign)


def _draw_doors(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX], fill=(222, 220, 208))
    draw.rectangle([0, HORIZON_PX - 100, SCENE_PX[0], HORIZON_PX], fill=(166, 186, 186))
    draw.rectangle([0, HORIZON_PX - 10, SCENE_PX[0], HORIZON_PX], fill=(84, 88, 92))
    for x in range(60, SCENE_PX[0], 260):
        draw.rectangle([x, HORIZON_PX - 178, x + 92, HORIZON_PX], fill=(112, 84, 62))
        draw.rectangle([x + 7, HORIZON_PX - 170, x + 85, HORIZON_PX], fill=(152, 116, 84))
        draw.ellipse([x + 70, HORIZON_PX - 90, x + 80, HORIZON_PX - 80], fill=(226, 220, 190))
        draw.rectangle([x + 130, 46, x + 210, 100], fill=hsv(rng.random(), 0.35, 0.8))
        draw.rectangle([x + 138, 54, x + 202, 62], fill=(250, 250, 250))


def _draw_cars(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX - 70], fill=(168, 176, 186))
    draw.rectangle([0, HORIZON_PX - 120, SCENE_PX[0], HORIZON_PX], fill=(132, 134, 132))
    for x in range(-40, SCENE_PX[0], 250):
        paint = hsv(rng.random(), rng.uniform(0.0, 0.75), rng.uniform(0.25, 0.9))
        base = HORIZON_PX + 12
        draw.polygon(
            [(x + 40, base - 52), (x + 66, base - 88), (x + 142, base - 88), (x + 174, base - 52)], fill=(48, 56, 66)
        )
        draw.rounded_rectangle([x, base - 54, x + 212, base - 10], 14, fill=paint)
        draw.line([(x + 106, base - 88), (x + 106, base - 12)], fill=mix(paint, (0, 0, 0), 0.35), width=3)
        for wheel in (x + 44, x + 166):
            draw.ellipse([wheel - 20, base - 28, wheel + 20, base + 10], fill=(26, 26, 28))
            draw.ellipse([wheel - 9, base - 18, wheel + 9, base], fill=(170, 172, 176))


def _draw_trees(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, SCENE_PX[0], HORIZON_PX - 30], fill=(178, 206, 226))
    draw.rectangle([0, HORIZON_PX - 34, SCENE_PX[0], HORIZON_PX], fill=(108, 132, 72))
    for x in range(40, SCENE_PX[0], 165):
        draw.rectangle([x - 8, 70, x + 9, HORIZON_PX + 4], fill=(92, 70, 52))
        for _ in range(60):
            dx, dy = rng.normal(0, 44), rng.normal(0, 28)
            leaf = hsv(rng.uniform(0.2, 0.32), rng.uniform(0.4, 0.7), rng.uniform(0.25, 0.6))
            draw.ellipse([x + dx - 16, 54 + dy - 13, x + dx + 16, 54 + dy + 13], fill=leaf)
