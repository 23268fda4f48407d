"""The pictures that somebody wants an answer for: files, folders, tables with boxes and data cards, as one list."""

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from workbench.data.card import CardError
from workbench.data.catalog import open_catalog
from workbench.data.images import ImageError
from workbench.data.readers.listing import IMAGE_SUFFIXES, few

BOX_COLUMNS = ("x", "y", "width", "height")
TABLE_SUFFIXES = (".csv", ".parquet")
# HEIC is not read; such a file gets a line that says so instead of being passed over.
_SUFFIXES = (*IMAGE_SUFFIXES, ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif")
# Boxes under other names would be passed over, and whole pictures answered for.
_OTHER_BOXES = {
    *(
        "x1",
        "y1",
        "x2",
        "y2",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "x_min",
        "y_min",
        "x_max",
        "y_max",
        "left",
        "top",
        "right",
    ),
    *("bottom", "w", "h", "bbox", "box"),
}


class Box(NamedTuple):
    """A part of an upright picture: left and top edge, width and height, px, fractions allowed."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Input:
    r"""One picture, or one box of it.

    Attributes:
        path: the file.
        name: what it is called in answers: the path as it was given. Bytes that are no UTF-8 stand as `\xff`.
        box: None is the whole picture.
        label: what the table or the card says it shows; None where they do not.
        fault: why there is nothing to look at, such as a box without width; "" where there is none.
    """

    path: Path
    name: str
    box: Box | None = None
    label: str | None = None
    fault: str = ""


def gather_inputs(
    given: Sequence[str], data_root: str | Path | None = None, split: str = "", domain: str = ""
) -> tuple[list[Input], list[str]]:
    """The inputs that the texts name, in their order, and notes about what was left out, one line each.

    A text is the path of a picture; of a folder, which is walked, its files sorted by path, hidden ones and those without
    a picture's suffix left out; of a table (`.csv`, `.parquet`: a row a picture or a box, see `read_table`); of a card (`.md`);
    or, where nothing lies at that path, the name of a data card, or several joined with `+`. What is named twice is there
    twice.

    Args:
        given: texts as above.
        data_root: where the set of a card lies (see `open_catalog`), and what the relative paths of a table start
            from, instead of the table's own folder.
        split: of cards, one split; "" is all.
        domain: of cards, one domain; "" is all.

    Raises:
        ValueError: nothing of that name, no picture in it, or a table or a card that cannot be read.
        OSError: a folder or a table that may not be read, or a set that is not here.
    """
    inputs: list[Input] = []
    notes: list[str] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            found = _walk(path, text, notes)
        elif path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
            found = read_table(path, data_root)
        elif path.is_file() and path.suffix != ".md":
            found = [Input(path, _text(text))]
        else:
            found = _read_catalog(text, data_root, split, domain)
        if not found:
            raise ValueError(f"{text} holds no picture; give a folder or a table that holds at least one.")
        inputs += found
    return inputs, notes


def read_table(path: Path, images_root: str | Path | None = None) -> list[Input]:
    """The rows of a table, in order: a column `path`, and where there are boxes, `x`, `y`, `width` and `height`, px.

    The four numbers are those of the upright picture (EXIF's orientation applied), counted from its upper left corner; a row
    with none of the four is the whole picture. `label`, where there is one, is kept as text; CSV is read as UTF-8 and its
    labels as they stand ("00123"). Other columns are not looked at.

    Args:
        path: `.csv` or `.parquet`.
        images_root: what relative paths start from; None is the table's folder.

    Raises:
        ValueError: not a table, no column `path`, some of the four box columns only, boxes under other names, a value that
            is no number, labels that are no text.
    """
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            if not isinstance(table.index, pd.RangeIndex):  # pandas would shift the columns and say nothing
                raise ValueError("its rows have more fields than its first line; put a path with a comma in quotes")
        else:
            table = pd.read_parquet(path)
    except (ValueError, pd.errors.ParserError) as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    there = [str(name) for name in table.columns]
    if "path" not in there:
        raise ValueError(
            f"{path} has no column 'path'; its columns are {few(there, 12)}. Columns are parted by commas."
        )
    boxed = [name for name in BOX_COLUMNS if name in there]
    others = sorted(name for name in there if name.lower() in _OTHER_BOXES)
    if boxed and len(boxed) < 4:
        raise ValueError(f"{path} has {few(boxed)} but not all of {', '.join(BOX_COLUMNS)}; a box wants the four, px.")
    if others and not boxed:
        raise ValueError(
            f"{path} seems to have boxes in {few(others)}; give them as {', '.join(BOX_COLUMNS)} (left, top, width, height, "
            "px), or drop those columns to ask for whole pictures."
        )
    box_N4 = np.column_stack([_numbers(table[name], path) for name in boxed]) if boxed else None
    root = path.parent if images_root is None else Path(images_root)
    labels = _labels(table["label"], path) if "label" in there else [None] * len(table)
    inputs = []
    for row, (name, label) in enumerate(zip(table["path"].tolist(), labels, strict=True)):
        if not isinstance(name, str) or not name:
            inputs.append(Input(root, "", label=label, fault=f"row {row + 1} of {path.name} has no path"))
            continue
        box, fault = (None, "") if box_N4 is None else _box(box_N4[row])
        inputs.append(Input(root / name, _text(name), box, label, fault))
    return inputs


def cut_box(picture: Image.Image, box: Box, name: str) -> tuple[Image.Image, str]:
    """The part of the picture in the box, and a note where the box reached over the border and was clipped ("" else).

    Edges go to the nearest whole pixel, halves upwards. A box that covers nothing of the picture is refused.

    Raises:
        ImageError: the box lies outside the picture, or is less than a pixel wide or high.
    """
    left, right = math.floor(box.x + 0.5), math.floor(box.x + box.width + 0.5)
    top, bottom = math.floor(box.y + 0.5), math.floor(box.y + box.height + 0.5)
    size = f"the picture of {picture.width} x {picture.height} px"
    if right <= left or bottom <= top:
        raise ImageError(name, f"the box is less than a pixel wide or high: {box.width:g} x {box.height:g} px")
    clipped = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ImageError(name, f"the box lies outside {size}")
    note = "" if clipped == (left, top, right, bottom) else f"box clipped at the border of {size}"
    return picture.crop(clipped), note


def _walk(folder: Path, text: str, notes: list[str]) -> list[Input]:
    files: list[Path] = []
    passed_over: list[Path] = []
    not_entered: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        not_entered += [os.path.join(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in names:
            if not name.startswith("."):
                is_picture = name.lower().endswith(_SUFFIXES)
                (files if is_picture else passed_over).append(Path(parent, name))
    if passed_over:
        names = [_text(path.name) for path in sorted(passed_over)]
        notes.append(f"{text}: {len(names)} files without a picture's suffix left out: {few(names)}")
    if not_entered:
        notes.append(f"{text}: linked folders are not walked: {few([_text(name) for name in sorted(not_entered)])}")
    return [Input(path, _text(str(path))) for path in sorted(files)]


def _read_catalog(text: str, data_root: str | Path | None, split: str, domain: str) -> list[Input]:
    try:
        catalog = open_catalog(text, data_root)
    except CardError as error:
        if text.endswith(".md") and Path(text).is_file():
            raise
        folder = Path(text).parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        near = difflib.get_close_matches(Path(text).name, names, n=1)
        hint = f" Did you mean {folder / near[0]}?" if near else ""
        raise ValueError(f"There is no file, folder, table or data card {text!r}.{hint}") from error
    catalog = catalog.select(split=split or None, domain=domain or None)
    frame = catalog.frame
    names = frame["path"].tolist()
    if len(catalog.cards) > 1:
        names = [f"{source}/{name}" for source, name in zip(frame["source"], names, strict=True)]
    rows = zip(catalog.image_paths(), names, frame["label"].tolist(), strict=True)
    return [Input(path, name, label=label) for path, name, label in rows]


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    if column.dtype.kind not in "fiu":
        blank = column.isna() | (column.astype("str").str.strip() == "")
        numbers = pd.to_numeric(column.mask(blank), errors="coerce")
        bad = np.flatnonzero((numbers.isna() & ~blank).to_numpy())
        if len(bad):
            raise ValueError(
                f"{path}: {column.name} wants numbers, px; row {bad[0] + 1} has {column.iloc[bad[0]]!r}. Decimals have a point."
            )
        column = numbers
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _labels(column: pd.Series, path: Path) -> list[str | None]:
    labels = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    for row, label in enumerate(labels):
        if label is not None and not isinstance(label, str):
            raise ValueError(
                f"{path}: labels are text, row {row + 1} has {label!r} ({type(label).__name__}): leading zeros are lost already. "
                "Write the column as text."
            )
    return [label or None for label in labels]


def _box(number_4: np.ndarray) -> tuple[Box | None, str]:
    missing_4 = np.isnan(number_4)
    if missing_4.all():
        return None, ""
    box = Box(*map(float, number_4))
    if missing_4.any() or not np.isfinite(number_4).all():
        return box, "the box wants four finite numbers (x, y, width, height), or none for the whole picture"
    if box.width <= 0 or box.height <= 0:
        return box, f"the box is empty: {box.width:g} x {box.height:g} px"
    return box, ""


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
