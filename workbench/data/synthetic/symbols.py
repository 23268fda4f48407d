"""Pictures and marks that a label carries, as ellipses and polygons in a unit square."""

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.synthetic.drawing import Colour

# A shape, its points or box, and its ink (None for the colour that is asked for).
_Shape = tuple[str, tuple[float, ...], Colour | None]
_GREEN, _DARK, _RED, _WHITE = (70, 150, 60), (60, 44, 36), (214, 40, 48), (250, 248, 240)


def _star(points: int, inner: float, turn: float = -0.25) -> tuple[float, ...]:
    angles = 2 * np.pi * (np.arange(2 * points) / (2 * points) + turn)
    radii = np.where(np.arange(2 * points) % 2 == 0, 0.5, inner)
    return tuple(np.stack([0.5 + radii * np.cos(angles), 0.5 + radii * np.sin(angles)], 1).ravel().tolist())


def _crescent() -> tuple[float, ...]:
    angles = np.linspace(0.15 * np.pi, 1.55 * np.pi, 24)
    outer = 0.5 + 0.48 * np.stack([np.cos(angles), np.sin(angles)], 1)
    start, end = outer[0], outer[-1]
    bend = np.linspace(0, np.pi, 16)[:, None]
    inner = (start + end) / 2 + (end - start) / 2 * np.cos(bend) - np.array([0.34, -0.26]) * np.sin(bend)
    return tuple(np.concatenate([outer, inner]).ravel().tolist())


_SYMBOLS: dict[str, tuple[_Shape, ...]] = {
    "apple": (
        ("ellipse", (0.08, 0.25, 0.62, 0.95), (196, 30, 44)),
        ("ellipse", (0.38, 0.25, 0.92, 0.95), (214, 46, 54)),
        ("polygon", (0.47, 0.3, 0.5, 0.05, 0.56, 0.05, 0.53, 0.3), _DARK),
        ("ellipse", (0.54, 0.06, 0.86, 0.22), _GREEN),
        ("ellipse", (0.2, 0.36, 0.36, 0.54), (240, 130, 120)),
    ),
    "lemon": (
        ("ellipse", (0.05, 0.2, 0.95, 0.85), (248, 212, 40)),
        ("polygon", (0.86, 0.4, 1.0, 0.52, 0.86, 0.66), (240, 200, 30)),
        ("ellipse", (0.3, 0.3, 0.7, 0.74), (255, 246, 170)),
        ("ellipse", (0.36, 0.36, 0.64, 0.68), (250, 224, 80)),
    ),
    "cherry": (
        ("polygon", (0.3, 0.6, 0.6, 0.02, 0.66, 0.06, 0.36, 0.62), _GREEN),
        ("polygon", (0.7, 0.6, 0.6, 0.02, 0.66, 0.02, 0.77, 0.6), _GREEN),
        ("ellipse", (0.05, 0.5, 0.5, 0.95), (150, 10, 40)),
        ("ellipse", (0.52, 0.52, 0.96, 0.96), (180, 16, 50)),
        ("ellipse", (0.15, 0.58, 0.26, 0.69), _WHITE),
    ),
    "leaf": (
        ("polygon", (0.05, 0.95, 0.12, 0.45, 0.45, 0.12, 0.96, 0.04, 0.9, 0.5, 0.6, 0.82), None),
        ("polygon", (0.03, 0.98, 0.7, 0.28, 0.73, 0.31, 0.08, 0.98), _WHITE),
    ),
    "drop": (
        ("polygon", (0.5, 0.0, 0.83, 0.52, 0.17, 0.52), None),
        ("ellipse", (0.13, 0.3, 0.87, 1.0), None),
        ("ellipse", (0.28, 0.52, 0.46, 0.78), _WHITE),
    ),
    "star": (("polygon", _star(5, 0.2), None),),
    "heart": (
        ("ellipse", (0.02, 0.08, 0.54, 0.6), None),
        ("ellipse", (0.46, 0.08, 0.98, 0.6), None),
        ("polygon", (0.07, 0.48, 0.93, 0.48, 0.5, 0.98), None),
    ),
    "fish": (
        ("ellipse", (0.0, 0.26, 0.76, 0.76), (70, 130, 180)),
        ("polygon", (0.66, 0.5, 1.0, 0.22, 1.0, 0.8), (50, 100, 150)),
        ("polygon", (0.28, 0.3, 0.5, 0.08, 0.56, 0.32), (50, 100, 150)),
        ("ellipse", (0.13, 0.4, 0.24, 0.51), _WHITE),
    ),
    "wheat": (
        *tuple(
            ("ellipse", (0.5 + side * 0.2 - 0.15, row, 0.5 + side * 0.2 + 0.15, row + 0.2), (214, 164, 60))
            for row in (0.02, 0.2, 0.38, 0.56)
            for side in (-1, 1)
        ),
        ("polygon", (0.47, 0.1, 0.53, 0.1, 0.54, 1.0, 0.46, 1.0), (170, 120, 40)),
    ),
    "flower": (
        *(
            (
                "ellipse",
                (0.5 + 0.28 * x - 0.21, 0.5 + 0.28 * y - 0.21, 0.5 + 0.28 * x + 0.21, 0.5 + 0.28 * y + 0.21),
                None,
            )
            for x, y in ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))
        ),
        ("ellipse", (0.34, 0.34, 0.66, 0.66), (250, 204, 50)),
    ),
    "cup": (
        ("ellipse", (0.6, 0.34, 0.98, 0.76), _DARK),
        ("ellipse", (0.68, 0.43, 0.89, 0.67), _WHITE),
        ("polygon", (0.08, 0.28, 0.78, 0.28, 0.7, 0.9, 0.16, 0.9), _DARK),
        ("ellipse", (0.08, 0.18, 0.78, 0.4), (186, 130, 80)),
    ),
    "sun": (("polygon", _star(12, 0.3), (250, 170, 30)), ("ellipse", (0.22, 0.22, 0.78, 0.78), (255, 220, 70))),
    "berry": (
        *tuple(
            ("ellipse", (x - 0.17, y - 0.17, x + 0.17, y + 0.17), (80 + round(60 * x), 40, 130))
            for x, y in ((0.3, 0.35), (0.55, 0.3), (0.78, 0.4), (0.4, 0.58), (0.66, 0.6), (0.5, 0.8))
        ),
        ("polygon", (0.3, 0.2, 0.5, 0.0, 0.72, 0.18, 0.5, 0.24), _GREEN),
    ),
    "carrot": (
        ("polygon", (0.32, 0.28, 0.68, 0.28, 0.52, 1.0), (240, 120, 30)),
        ("polygon", (0.5, 0.3, 0.3, 0.02, 0.44, 0.06, 0.52, 0.0, 0.6, 0.06, 0.74, 0.04), _GREEN),
    ),
    "mountain": (
        ("polygon", (0.0, 0.92, 0.36, 0.2, 0.7, 0.92), (90, 110, 140)),
        ("polygon", (0.36, 0.92, 0.7, 0.36, 1.0, 0.92), (60, 80, 110)),
        ("polygon", (0.36, 0.2, 0.48, 0.45, 0.36, 0.4, 0.25, 0.45), _WHITE),
    ),
    "moon": (("polygon", _crescent(), (226, 190, 70)),),
    "ring": (("ellipse", (0.0, 0.0, 1.0, 1.0), None), ("ellipse", (0.24, 0.24, 0.76, 0.76), _WHITE)),
    "shield": (("polygon", (0.06, 0.04, 0.94, 0.04, 0.94, 0.5, 0.5, 1.0, 0.06, 0.5), None),),
    "peak": (
        ("polygon", (0.0, 0.95, 0.5, 0.05, 1.0, 0.95), None),
        ("polygon", (0.3, 0.95, 0.5, 0.5, 0.7, 0.95), _WHITE),
    ),
    "wave": tuple(
        ("polygon", (0.0, y, 0.5, y - 0.22, 1.0, y, 1.0, y + 0.14, 0.5, y - 0.06, 0.0, y + 0.14), None)
        for y in (0.3, 0.58, 0.86)
    ),
    "crown": (("polygon", (0.0, 0.2, 0.26, 0.52, 0.5, 0.1, 0.74, 0.52, 1.0, 0.2, 0.88, 0.9, 0.12, 0.9), None),),
    "hexagon": (("polygon", (0.25, 0.06, 0.75, 0.06, 1.0, 0.5, 0.75, 0.94, 0.25, 0.94, 0.0, 0.5), None),),
    "bar": (
        ("polygon", (0.0, 0.1, 0.3, 0.1, 0.3, 0.9, 0.0, 0.9), None),
        ("polygon", (0.42, 0.1, 1.0, 0.5, 0.42, 0.9), None),
    ),
}


def draw_symbol(canvas: Image.Image, name: str, box: tuple[float, float, float, float], colour: Colour) -> None:
    """Draws a symbol in place into `box` (left, top, right, bottom in pixels); its free parts take `colour`."""
    draw = ImageDraw.Draw(canvas)
    left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    for shape, unit, ink in _SYMBOLS[name]:
        xs, ys = [left + x * width for x in unit[0::2]], [top + y * height for y in unit[1::2]]
        points = [value for pair in zip(xs, ys, strict=True) for value in pair]
        (draw.ellipse if shape == "ellipse" else draw.polygon)(points, fill=ink or colour)
