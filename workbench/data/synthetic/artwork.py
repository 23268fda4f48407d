"""The printed label of a product: ground, mark, brand name, picture, band, word and barcode."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.synthetic.drawing import ink_on, lettering, mix
from workbench.data.synthetic.skus import Sku
from workbench.data.synthetic.symbols import draw_symbol

_LEFT_ODD = [
    "0001101",
    "0011001",
    "0010011",
    "0111101",
    "0100011",
    "0110001",
    "0101111",
    "0111011",
    "0110111",
    "0001011",
]
_PARITY = ["LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL"]


def barcode_modules(gtin: str) -> str:
    """The 95 bars (1) and gaps (0) of a GTIN-13.

    Source: ISO/IEC 15420 (EAN-13): left half in sets L and G as the first digit says, right half in set R.
    """
    halves = []
    for digit, parity in zip(gtin[1:7], _PARITY[int(gtin[0])], strict=True):
        code = _LEFT_ODD[int(digit)]
        halves.append(code if parity == "L" else _inverse(code)[::-1])
    right = "".join(_inverse(_LEFT_ODD[int(digit)]) for digit in gtin[7:])
    return "101" + "".join(halves) + "01010" + right + "101"


def _inverse(code: str) -> str:
    return code.translate(str.maketrans("01", "10"))


@lru_cache(maxsize=64)
def draw_front(sku: Sku, size: tuple[int, int]) -> Image.Image:
    """The front of the label, RGB, of `size` (width, height); do not change the image, it is kept."""
    width, height = size[0] * 2, size[1] * 2
    canvas = Image.new("RGB", (width, height), sku.brand.base)
    _draw_ground(canvas, sku)
    _draw_picture(canvas, sku)
    _draw_band(canvas, sku)
    _draw_header(canvas, sku)
    return canvas.reduce(2)


def _draw_ground(canvas: Image.Image, sku: Sku) -> None:
    brand, (width, height), draw = sku.brand, canvas.size, ImageDraw.Draw(canvas)
    soft = mix(brand.base, brand.second, 0.25)
    match brand.ground:
        case "fade":
            fade = Image.linear_gradient("L").resize(canvas.size)
            canvas.paste(
                Image.composite(Image.new("RGB", canvas.size, mix(brand.base, brand.second, 0.7)), canvas, fade)
            )
        case "slope":
            draw.polygon([0, height, 0, height * 0.62, width, height * 0.36, width, height], brand.second)
        case "arc":
            draw.ellipse([-width * 0.5, height * 0.42, width * 1.5, height * 1.7], brand.second)
        case "stripes":
            for start in range(-height, width, width // 5):
                draw.line([start, height, start + height, 0], soft, width // 12)
        case "dots":
            for row, upper in enumerate(range(0, height, width // 6)):
                for left in range(width // 12 * (row % 2), width, width // 6):
                    draw.ellipse([left, upper, left + width // 14, upper + width // 14], soft)
        case "rays":
            x, y = width * brand.window[0], height * brand.window[1]
            for angle in range(0, 360, 30):
                draw.pieslice([x - height, y - height, x + height, y + height], angle, angle + 15, soft)
        case "halves":
            draw.rectangle([0, height * 0.5, width, height], brand.second)


def _draw_picture(canvas: Image.Image, sku: Sku) -> None:
    brand, (width, height), draw = sku.brand, canvas.size, ImageDraw.Draw(canvas)
    x, y, radius = brand.window[0] * width, brand.window[1] * height, brand.window[2] * width
    if brand.number % 3:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], brand.accent)
        draw.ellipse(
            [x - radius * 0.9, y - radius * 0.9, x + radius * 0.9, y + radius * 0.9],
            mix(brand.accent, (250, 248, 240), 0.75),
        )
        radius *= 0.66
    draw_symbol(
        canvas, sku.picture, (x - radius, y - radius, x + radius, y + radius), mix((214, 40, 48), brand.second, 0.3)
    )


def _draw_band(canvas: Image.Image, sku: Sku) -> None:
    """The colour band with the word on it: both belong to the variant."""
    (width, height), draw, ink = canvas.size, ImageDraw.Draw(canvas), ink_on(sku.band_colour)
    word = sku.word.upper() if sku.brand.capitals else sku.word
    top, bottom, turn = {
        "across": (0.76, 0.9, 0),
        "foot": (0.8, 1.0, 0),
        "slant": (0.78, 0.92, 8),
        "side": (0.0, 0.2, 90),
        "belt": (0.3, 0.42, 0),
    }[sku.brand.band]
    if turn == 90:
        draw.rectangle([0, 0, width * bottom, height], sku.band_colour)
        text = lettering(word, (round(height * 0.6), round(width * 0.13)), ink, bold=0.05).rotate(90, expand=True)
        canvas.paste(text, (round(width * 0.1 - text.width / 2), round(height * 0.62 - text.height / 2)), text)
        return
    drop = width * np.tan(np.radians(turn)) / 2
    y0, y1 = height * top, height * bottom
    draw.polygon([0, y0 + drop, width, y0 - drop, width, y1 - drop, 0, y1 + drop], sku.band_colour)
    text = lettering(word, (round(width * 0.84), round((y1 - y0) * 0.66)), ink, bold=0.05)
    text = text.rotate(turn, Image.Resampling.BILINEAR, expand=True) if turn else text
    canvas.paste(text, ((width - text.width) // 2, round((y0 + y1 - text.height) / 2)), text)


def _draw_header(canvas: Image.Image, sku: Sku) -> None:
    brand, (width, height), draw = sku.brand, canvas.size, ImageDraw.Draw(canvas)
    left = width * (0.24 if brand.band == "side" else 0.06)
    x0, x1, y0, y1 = left, width * 0.94, height * 0.06, height * 0.25
    plate = brand.base
    if brand.header != "bare":
        plate = brand.accent
    if brand.header == "plate":
        draw.rounded_rectangle([x0, y0, x1, y1], (y1 - y0) / 5, plate)
    elif brand.header == "oval":
        draw.ellipse([x0, y0 - height * 0.02, x1, y1 + height * 0.02], plate)
    elif brand.header == "ribbon":
        draw.polygon([x0, y0, x1, y0, x1 - width * 0.06, (y0 + y1) / 2, x1, y1, x0, y1], plate)
    mark_px = (y1 - y0) * 0.62
    middle = (y0 + y1) / 2
    inset = (x1 - x0) * (0.1 if brand.header == "oval" else 0.05)
    draw_symbol(
        canvas, brand.mark, (x0 + inset, middle - mark_px / 2, x0 + inset + mark_px, middle + mark_px / 2), brand.second
    )
    name = brand.name.upper() if brand.capitals else brand.name
    room = (round(x1 - x0 - 2.4 * inset - mark_px), round((y1 - y0) * 0.6))
    text = lettering(name, room, ink_on(plate), bold=brand.bold, slant=brand.slant, stretch=brand.stretch)
    free = (room[0] - text.width) / 2
    canvas.paste(text, (round(x0 + inset * 1.4 + mark_px + free), round(middle - text.height / 2)), text)
    weight = lettering(
        f"{100 + 50 * (brand.number % 9)} g", (round(width * 0.2), round(height * 0.045)), ink_on(brand.base)
    )
    canvas.paste(weight, (round(width * 0.74), round(height * 0.93)), weight)


@lru_cache(maxsize=64)
def draw_panel(sku: Sku, size: tuple[int, int]) -> Image.Image:
    """The side of the label, RGB, of `size` (width, height): mark, small print, barcode; do not change the image."""
    width, height = size[0] * 2, size[1] * 2
    ground = mix(sku.brand.base, sku.brand.second, 0.12)
    canvas = Image.new("RGB", (width, height), ground)
    draw, ink = ImageDraw.Draw(canvas), ink_on(ground)
    mark_px = min(width * 0.4, height * 0.15)
    middle, top = width / 2, height * 0.07
    draw_symbol(
        canvas, sku.brand.mark, (middle - mark_px / 2, top, middle + mark_px / 2, top + mark_px), sku.brand.accent
    )
    lengths = np.random.default_rng(sku.brand.number).uniform(0.5, 0.84, 9)
    for line, length in enumerate(lengths):
        y = height * (0.3 + 0.035 * line)
        draw.rectangle([width * 0.08, y, width * (0.08 + length), y + max(1, height * 0.008)], mix(ground, ink, 0.6))
    bars_px = max(1, width * 8 // 1000) * 95 if width >= 250 else min(95, width - 4)
    code = np.array([[255 * (module == "0") for module in barcode_modules(sku.label)]], np.uint8)
    bars = Image.fromarray(code).resize((bars_px, max(2, height // 6)), Image.Resampling.BOX)
    left, upper = (width - bars.width) // 2, round(height * 0.72)
    draw.rectangle([left - 3, upper - 3, left + bars.width + 2, upper + bars.height + 2], (255, 255, 255))
    canvas.paste(bars, (left, upper))
    return canvas.reduce(2)
