"""Tools to draw with: lettering without font files, perspective, light, shadow, blur, noise, things in front, saving.

Pictures under work are PIL images of mode RGBA, or arrays `image_HWC` (float32, 0 to 255, RGB, rows downwards). Every
function that draws at random takes a `numpy.random.Generator` and nothing else decides what it draws.
"""

import colorsys
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

SKIN_TONES: tuple[Colour, ...] = (
    (255, 224, 196),
    (241, 194, 150),
    (224, 172, 126),
    (198, 134, 86),
    (150, 96, 62),
    (112, 70, 46),
    (78, 50, 36),
)
TAG_COLOURS: tuple[Colour, ...] = ((252, 252, 248), (255, 226, 60), (228, 44, 40), (248, 248, 240), (60, 140, 70))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """The RGB colour (0 to 255) of a hue, saturation and value, each 0 to 1; the hue wraps around."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return round(red * 255), round(green * 255), round(blue * 255)


def luminance(colour: Colour) -> float:
    """The brightness of an RGB colour as the eye weighs it (ITU-R BT.601), 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies `share` (0 to 1) of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def ink_on(ground: Colour) -> Colour:
    """A dark or light ink, whichever reads better on `ground`."""
    return (28, 26, 32) if luminance(ground) > 140 else (252, 250, 244)


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface with its basic layout, so that no font file and no shaping library of a machine matters."""
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType; lettering wants it. Install Pillow's own wheel.")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def lettering(
    text: str, box_px: tuple[int, int], colour: Colour, *, bold: float = 0.0, slant: float = 0.0, stretch: float = 1.0
) -> Image.Image:
    """The text as an RGBA image that just fits into `box_px` (width, height).

    Args:
        text: one line; empty text gives one clear pixel.
        box_px: the text is made as large as fits; it is never squeezed, only scaled.
        colour: the ink.
        bold: the stroke that is added, as a share of the letters' height.
        slant: the lean to the right, as a share of the letters' height.
        stretch: the width of the letters against their own width.
    """
    size_px = max(8, box_px[1])
    stroke_px = round(bold * size_px)
    left, top, right, bottom = (round(edge) for edge in _font(size_px).getbbox(text, stroke_width=stroke_px))
    if right <= left or bottom <= top:
        return Image.new("RGBA", (1, 1))
    lean_px = round(abs(slant) * (bottom - top))
    mask = Image.new("L", (right - left + lean_px, bottom - top))
    origin = (-left + (lean_px if slant < 0 else 0), -top)
    ImageDraw.Draw(mask).text(origin, text, fill=255, font=_font(size_px), stroke_width=stroke_px)
    if slant:
        mask = mask.transform(
            mask.size, Image.Transform.AFFINE, (1, slant, -lean_px, 0, 1, 0), Image.Resampling.BILINEAR
        )
    width, height = mask.width * stretch, float(mask.height)
    scale = min(box_px[0] / width, box_px[1] / height)
    mask = mask.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    ink = Image.new("RGBA", mask.size, (*colour, 255))
    ink.putalpha(mask)
    return ink


def warp(image: Image.Image, corners: tuple[Point, Point, Point, Point], size: tuple[int, int]) -> Image.Image:
    """`image` in perspective on a clear RGBA canvas of `size` (width, height).

    Args:
        image: RGBA.
        corners: where its corners go, in pixels of the canvas: top left, top right, bottom right, bottom left.
        size: the canvas; what falls outside it is lost.
    """
    width, height = image.size
    source = ((0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height)))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values))
    return image.transform(size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BILINEAR)


def paste(image_HWC: np.ndarray, layer: Image.Image, left: int = 0, top: int = 0) -> None:
    """Lays an RGBA layer over `image_HWC` in place; what hangs over the edge is cut off."""
    height, width = image_HWC.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + layer.width, width), min(top + layer.height, height)
    if x1 <= x0 or y1 <= y0:
        return
    pixels = np.asarray(layer)[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
    below = image_HWC[y0:y1, x0:x1]
    below += (pixels[..., :3] - below) * (pixels[..., 3:] * np.float32(1 / 255))


def cast_shadow(image_HWC: np.ndarray, alpha: Image.Image, shift: Point, softness_px: float, depth: float) -> None:
    """Darkens `image_HWC` in place behind a thing of mode-L mask `alpha`, `shift` pixels away, by `depth` (0 to 1)."""
    small = alpha.reduce(2).filter(ImageFilter.GaussianBlur(softness_px / 2))
    move = (0.5, 0, -shift[0] / 2, 0, 0.5, -shift[1] / 2)
    mask = np.asarray(small.transform(alpha.size, Image.Transform.AFFINE, move, Image.Resampling.BILINEAR))
    image_HWC *= (1 - mask.astype(np.float32) * np.float32(depth / 255))[..., None]


def light(image_HWC: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> None:
    """Lights `image_HWC` in place: exposure, a fall-off to one side, the lamp's colour and, at times, a hard shade."""
    height, width = image_HWC.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    exposure = np.exp(rng.normal(-0.05, 0.22) * strength)
    field = exposure * (1 + strength * (rng.uniform(-0.28, 0.28) * across + rng.uniform(-0.3, 0.18) * down))
    if rng.random() < 0.35 * strength:
        edge = rng.uniform(-0.6, 0.4) + rng.uniform(-0.7, 0.7) * across - down
        field = field * (1 - rng.uniform(0.2, 0.5) * np.clip(0.5 + edge * rng.uniform(3, 14), 0, 1))
    warmth, tint = rng.normal(0, 0.12, 2) * strength
    lamp = np.array([1 + warmth, 1 + tint / 2, 1 - warmth], np.float32)
    image_HWC *= field.astype(np.float32)[..., None] * lamp


def blur(image: Image.Image, rng: np.random.Generator, most_px: float) -> Image.Image:
    """`image` out of focus (Gaussian, up to `most_px`) or, one time in four, moved (a short streak)."""
    if rng.random() < 0.25:
        streak = np.zeros((5, 5))
        reach = np.arange(-2, 3)
        step = (1, 0), (0, 1), (1, 1), (1, -1)
        dx, dy = step[rng.integers(4)]
        streak[2 + dy * reach, 2 + dx * reach] = (0.5, 1, 1, 1, 0.5) if most_px >= 1 else (0, 1, 1, 1, 0)
        return image.filter(ImageFilter.Kernel((5, 5), streak.ravel().tolist()))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, most_px)))


def noise(image: Image.Image, rng: np.random.Generator, most: float) -> np.ndarray:
    """The uint8 array of `image` (RGB) with sensor noise of a standard deviation up to `most` grey levels."""
    pixels_HWC = np.asarray(image, np.float32)
    pool = _grain(4 * pixels_HWC.size)
    start = rng.integers(len(pool) - pixels_HWC.size)
    grain = pool[start : start + pixels_HWC.size].reshape(pixels_HWC.shape)
    return to_uint8(pixels_HWC + grain * np.float32(rng.uniform(0.2, 1) * most))


@lru_cache(maxsize=4)
def _grain(num_values: int) -> np.ndarray:
    """Normal random numbers to cut noise from: drawing them anew for each picture would take a tenth of its time."""
    return np.random.default_rng(0).standard_normal(num_values, np.float32)


def to_uint8(image_HWC: np.ndarray) -> np.ndarray:
    """`image_HWC` rounded and clipped to uint8."""
    return np.clip(image_HWC + np.float32(0.5), 0, 255).astype(np.uint8)


def hand(size_px: int, rng: np.random.Generator) -> Image.Image:
    """An RGBA canvas of `size_px` square with a hand that reaches in from the left, the right or below."""
    big_px = size_px * 2
    skin = SKIN_TONES[rng.integers(len(SKIN_TONES))]
    rim, nail = mix(skin, (40, 16, 10), 0.35), mix(skin, (255, 226, 220), 0.55)
    canvas = Image.new("RGBA", (big_px, big_px), (*skin, 0))
    draw = ImageDraw.Draw(canvas)
    thick_px = big_px * rng.uniform(0.085, 0.125)
    reach_px, start_px = big_px * rng.uniform(0.2, 0.42), big_px * rng.uniform(0.12, 0.55)
    lean = rng.uniform(-0.25, 0.25)
    lengths = np.array([0.82, 1.0, 0.94, 0.72])[: rng.integers(2, 5)] * rng.uniform(0.92, 1.08)
    for shade, extra_px in ((rim, 3.0), (skin, 0.0)):
        for finger, length in enumerate(lengths):
            y = start_px + finger * thick_px * 1.06
            tip = (reach_px * length, y + lean * reach_px)
            radius_px = thick_px / 2 + extra_px
            draw.line([(-thick_px, y), tip], fill=(*shade, 255), width=round(radius_px * 2))
            draw.ellipse(
                [tip[0] - radius_px, tip[1] - radius_px, tip[0] + radius_px, tip[1] + radius_px], (*shade, 255)
            )
            if not extra_px:
                half_px = thick_px * 0.26
                draw.ellipse(
                    [tip[0] - half_px, tip[1] - half_px, tip[0] + half_px * 1.5, tip[1] + half_px], (*nail, 255)
                )
    canvas = canvas.reduce(2)
    side = rng.integers(3)
    if side == 1:
        return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return canvas.transpose(Image.Transpose.ROTATE_90) if side == 2 else canvas


def price_tag(width_px: int, rng: np.random.Generator) -> Image.Image:
    """An RGBA price tag, `width_px` wide, with a price that is drawn at random and slightly turned."""
    width_px, height_px = max(width_px, 8) * 2, max(round(width_px * rng.uniform(0.5, 0.8)), 6) * 2
    paper = TAG_COLOURS[rng.integers(len(TAG_COLOURS))]
    canvas = Image.new("RGBA", (width_px, height_px), (*paper, 0))
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle(
        [1, 1, width_px - 2, height_px - 2], height_px // 8, (*paper, 255), (*mix(paper, (0, 0, 0), 0.4), 255), 2
    )
    price = f"{rng.integers(0, 20)}.{rng.integers(0, 10)}9"
    text = lettering(price, (round(width_px * 0.8), round(height_px * 0.6)), ink_on(paper), bold=0.04)
    canvas.alpha_composite(text, ((width_px - text.width) // 2, (height_px - text.height) // 2))
    return canvas.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR, expand=True).reduce(2)


def encode_jpeg(image_HWC: np.ndarray, quality: int = 90) -> bytes:
    """`image_HWC` (uint8, RGB) as the bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
