"""Boxes: parts of an upright picture, px, as tables, detectors and catalogs give them.

Axes: N rows, 4 the numbers of a box in the order of `Box`.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd


class Box(NamedTuple):
    """A part of an upright picture: left and top edge, width and height, px, fractions allowed."""

    x: float
    y: float
    width: float
    height: float


BOX_COLUMNS = tuple(f"box_{name}" for name in Box._fields)
"""The columns of a catalog that hold the box of a row; all four are missing where the row is the whole picture."""


def boxes_of(frame: pd.DataFrame) -> np.ndarray | None:
    """The boxes of a catalog's rows, float64 [N, 4], NaN for whole pictures; None where no row has a box.

    A frame without the four columns has no box. `_N4` rows with some of the numbers missing stay as they are.
    """
    if not set(BOX_COLUMNS) <= set(frame.columns):
        return None
    box_N4 = frame[list(BOX_COLUMNS)].to_numpy(dtype=np.float64, na_value=np.nan)
    return None if np.isnan(box_N4).all() else box_N4


LEAST_SIDE_PX = 1.5
"""A box with both sides below this is about one pixel, which shows nothing. Detectors and labelling tools that write the shares of a
picture's sides, from 0 to 1 (YOLO, FiftyOne), give such numbers for every box; they are refused and not converted, because some
count from the box's centre and some from its corner."""


def box_fault(number_4: np.ndarray) -> str:
    """What keeps four numbers from being a box, "" where nothing does; four missing ones (NaN) are the whole picture.

    Both sides below `LEAST_SIDE_PX` are a fault, so that shares of a picture's sides are never cut as one pixel.
    """
    missing_4 = np.isnan(number_4)
    if missing_4.all():
        return ""
    if missing_4.any() or not np.isfinite(number_4).all():
        return "the box wants four finite numbers (x, y, width, height), or none for the whole picture"
    if number_4[2] <= 0 or number_4[3] <= 0:
        return f"the box is empty: {number_4[2]:g} x {number_4[3]:g} px"
    if max(number_4[2:]) < LEAST_SIDE_PX:
        return (
            f"the box is {number_4[2]:g} x {number_4[3]:g}, one pixel at most; wanted are px, and these seem to be shares of the "
            "picture's sides, 0 to 1: multiply x and width by its width, y and height by its height (YOLO's x and y are the "
            "box's centre: first take off half of its width and height)"
        )
    return ""


def turn_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """The box of a picture of `width` x `height` px, as it is stored, in the picture as it is shown.

    Args:
        box: left and top edge, width and height in the stored picture, px.
        width: of the stored picture, px.
        height: of the stored picture, px.
        orientation: EXIF's tag Orientation, 1 to 8; any other value changes nothing.

    Source: CIPA DC-008 (Exif 2.32), tag 0x0112: which side of the picture that is shown row 0 and column 0 are.
    """
    right, below = width - box.x - box.width, height - box.y - box.height
    x, y = {
        2: (right, box.y),
        3: (right, below),
        4: (box.x, below),
        5: (box.y, box.x),
        6: (below, box.x),
        7: (below, right),
        8: (box.y, right),
    }.get(orientation, (box.x, box.y))
    return Box(x, y, box.height, box.width) if 5 <= orientation <= 8 else Box(x, y, box.width, box.height)


def widen_boxes(box_N4: np.ndarray, margin: float) -> np.ndarray:
    """The boxes with `margin` times their width added left and right, and times their height above and below.

    They may now leave their pictures; `clip_box` clips them. Whole pictures (NaN) stay what they are.
    """
    widened_N4 = box_N4.copy()
    widened_N4[:, :2] -= margin * box_N4[:, 2:]
    widened_N4[:, 2:] *= 1 + 2 * margin
    return widened_N4


def clip_box(box: Box, width: int, height: int) -> tuple[tuple[int, int, int, int], bool]:
    """The whole pixels that a box takes of a picture (left, top, right, bottom; right and bottom excluded).

    Edges go to the nearest whole pixel, halves upwards. The second value says whether the box reached over the border of
    the picture of `width` x `height` px and was clipped.

    Raises:
        ValueError: the box covers nothing of the picture, or is less than a pixel wide or high.
    """
    left, right = math.floor(box.x + 0.5), math.floor(box.x + box.width + 0.5)
    top, bottom = math.floor(box.y + 0.5), math.floor(box.y + box.height + 0.5)
    if right <= left or bottom <= top:
        raise ValueError(f"the box is less than a pixel wide or high: {box.width:g} x {box.height:g} px")
    clipped = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError(f"the box lies outside the picture of {width} x {height} px")
    return clipped, clipped != (left, top, right, bottom)
