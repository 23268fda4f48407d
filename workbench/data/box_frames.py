"""Whether boxes are of the picture as its file stores it or as EXIF shows it: told by the size that came with them.

Axes: N boxes, 4 the numbers of a box in the order of `Box`, 2 width and height.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from workbench.data.boxes import Box, turn_box
from workbench.data.images import ImageError, stored_size
from workbench.data.readers.listing import LayoutError, note

MIN_PERCENT_BOXES = 20
"""Boxes that must lie in the first 100 x 100 px of pictures of at least `MIN_PERCENT_SIDE_PX`, and fill them, to be taken for
percentages (Label Studio's)."""
MIN_PERCENT_SIDE_PX = 400


def to_shown_frame(
    box_N4: np.ndarray, size_N2: np.ndarray, paths: Sequence[Path], listed_in: Path
) -> tuple[np.ndarray, list[str], list[str]]:
    """The boxes in the pictures as they are shown, what keeps any from being one, "" for the others, and notes.

    A picture whose stated size is that of the stored file, which EXIF turns by a quarter, has boxes of the stored file: they are
    turned along. Where the size fits both (mirrored, turned by half, square), the other pictures of the same list decide; where
    none does, boxes are of the picture as it is shown. A stated size that the picture has neither way is a fault. Boxes without
    a stated size are left as they are and their pictures are not opened; so are boxes of pictures that cannot be read, which
    the decoding reports.

    Args:
        box_N4: float64, px, NaN for whole pictures.
        size_N2: float64, px, what comes with the boxes as the size of their picture; NaN where nothing does.
        paths: N files.
        listed_in: what errors call the list.

    Raises:
        LayoutError: the boxes are percentages of the sides and not px (see `MIN_PERCENT_BOXES`).
    """
    checked = np.flatnonzero(~np.isnan(box_N4).any(axis=1) & ~np.isnan(size_N2).any(axis=1)).tolist()
    _check_percentages(box_N4[checked], size_N2[checked], listed_in)
    files = list(dict.fromkeys(paths[row] for row in checked))
    with ThreadPoolExecutor(8, thread_name_prefix="header") as pool:
        stored_of = dict(zip(files, pool.map(_header, files), strict=True))
    kinds = {row: _kind(stored, size_N2[row]) for row in checked if (stored := stored_of[paths[row]])}
    told = {kind for kind in kinds.values() if kind in ("stored", "shown")}
    shown_N4, fault_N = box_N4.copy(), [""] * len(box_N4)
    num_turned: dict[str, set[Path]] = {"stored": set(), "either": set()}
    for row, kind in kinds.items():
        width, height, orientation = stored_of[paths[row]] or (0, 0, 1)
        if kind == "other":
            fault_N[row] = (
                f"its picture is said to be {size_N2[row, 0]:g} x {size_N2[row, 1]:g} px and is {width} x {height} px: the box is "
                "of another picture, or of this one in another size"
            )
        elif kind == "either" and len(told) == 2:
            fault_N[row] = (
                f"EXIF turns or mirrors its picture (orientation {orientation}), and whether the box is of the stored or of the "
                "shown one cannot be told: the list has boxes of both kinds"
            )
        elif kind == "stored" or (kind == "either" and told == {"stored"}):
            shown_N4[row] = turn_box(Box(*box_N4[row].tolist()), width, height, orientation)
            num_turned["stored"].add(paths[row])
        elif kind == "either" and not told:
            num_turned["either"].add(paths[row])
    notes = {
        "stored": "boxes are of the stored pictures, as their sizes say, and were turned along with {} pictures that EXIF turns",
        "either": "EXIF mirrors or turns {} pictures in a way that their sizes do not show; boxes are taken to be of them as shown",
    }
    return shown_N4, fault_N, [words.format(len(num_turned[kind])) for kind, words in notes.items() if num_turned[kind]]


def _header(path: Path) -> tuple[int, int, int] | None:
    note(path)
    try:
        return stored_size(path)
    except ImageError:
        return None


def _kind(stored: tuple[int, int, int], size_2: np.ndarray) -> str:
    """`same` (EXIF turns nothing), `stored`, `shown`, `either` or `other`: of which frame the stated size is."""
    width, height, orientation = stored
    is_quarter = orientation in (5, 6, 7, 8)
    fits_stored = (size_2 == (width, height)).all()
    fits_shown = (size_2 == ((height, width) if is_quarter else (width, height))).all()
    if fits_stored and fits_shown:
        return "either" if 2 <= orientation <= 8 else "same"
    return "stored" if fits_stored else "shown" if fits_shown else "other"


def _check_percentages(box_N4: np.ndarray, size_N2: np.ndarray, listed_in: Path) -> None:
    if len(box_N4) < MIN_PERCENT_BOXES or size_N2.min() < MIN_PERCENT_SIDE_PX or box_N4.min() < 0:
        return
    most_2 = (box_N4[:, :2] + box_N4[:, 2:]).max(axis=0)
    if (most_2 > 90).all() and (most_2 < 100.5).all():
        raise LayoutError(
            f"{listed_in}: all {len(box_N4)} boxes lie in the first 100 x 100 of pictures of at least {size_N2.min():g} px; wanted "
            "are px, and these seem to be percentages of the picture's sides (Label Studio): multiply x and width by its width / "
            "100, y and height by its height / 100. If they are px, leave out the pictures' sizes."
        )
