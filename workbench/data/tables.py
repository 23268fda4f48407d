"""Tables of pictures as people write them, CSV and parquet: read as text where text is meant, boxes as numbers.

Axes: N rows, 4 the numbers of a box in the order of `Box`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.boxes import Box
from workbench.data.readers.listing import LayoutError, few, note

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
SIZE_COLUMNS = ("image_width", "image_height")
"""Columns that say how large the picture of a row is, px: they tell whether its box is of the stored or of the shown picture."""
# Boxes under other names would be passed over, and whole pictures taken in their place.
_OTHER_BOXES = {
    *("x1", "y1", "x2", "y2", "xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max"),
    *("left", "top", "right", "bottom", "w", "h", "bbox", "box", "box_x", "box_y", "box_width", "box_height"),
}
_NOT_UTF8 = "it is not in UTF-8; save it as UTF-8 (spreadsheet programs call that CSV UTF-8)"


def open_table(path: Path, separator: str = "") -> pd.DataFrame:
    """The table in a file, rows 0 to N-1; CSV is read as UTF-8, all of it text as it stands ("00123", "NA").

    Blank lines are passed over, line ends may be any, and what is missing at a line's end is "".

    Args:
        path: `.csv`, `.tsv` or `.parquet`.
        separator: between the fields of a text file; "" is a tab for `.tsv` and a comma else.

    Raises:
        LayoutError: the file cannot be read as such a table.
    """
    note(path)
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path).reset_index(drop=True)
        separator = separator or ("\t" if path.suffix.lower() == ".tsv" else ",")
        options: Any = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
        header = pd.read_csv(path, header=None, nrows=1, **options).iloc[0]
        if header.str.contains("\0").any():
            raise LayoutError(_NOT_UTF8)
        if header.duplicated().any():  # pandas would rename the second
            raise LayoutError(f"the column {few(header[header.duplicated()])} is there twice; name or drop one of them")
        table = pd.read_csv(path, **options)
        if not isinstance(table.index, pd.RangeIndex):  # pandas would shift the columns and say nothing
            raise LayoutError("its rows have more fields than its first line; put a path with a comma in quotes")
        return table.fillna("")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} cannot be read as a table: {_NOT_UTF8} ({error}).") from error
    except (ValueError, pd.errors.ParserError) as error:  # pyarrow's errors are ValueErrors
        raise LayoutError(f"{path} cannot be read as a table: {error}") from error


def need_columns(table: pd.DataFrame, wanted: tuple[str, ...], path: Path) -> None:
    """Returns nothing when the table has all columns of `wanted`.

    Raises:
        LayoutError: names the columns that are missing and those that there are.
    """
    there = [str(name) for name in table.columns]
    for name in wanted:
        if name not in there:
            raise LayoutError(
                f"{path} has no column {name!r}; its columns are {few(there, 12)}. Columns are parted by commas (in a .tsv "
                "file by tabs)."
            )


def box_numbers(table: pd.DataFrame, path: Path) -> np.ndarray | None:
    """The columns `x`, `y`, `width` and `height`, float64 [N, 4], NaN where blank; None where there are none of them.

    Raises:
        LayoutError: some of the four only, boxes under other names, or a value that is no number (the row is named,
            counted from 1 without the header).
    """
    there = [str(name) for name in table.columns]
    boxed = [name for name in Box._fields if name in there]
    others = sorted(name for name in there if name.lower() in _OTHER_BOXES)
    if boxed and len(boxed) < 4:
        raise LayoutError(f"{path} has {few(boxed)} but not all of {', '.join(Box._fields)}; a box wants the four, px.")
    if others and not boxed:
        raise LayoutError(
            f"{path} seems to have boxes in {few(others)}; give them as {', '.join(Box._fields)} (left, top, width, height, "
            "px), or drop those columns to ask for whole pictures."
        )
    return np.column_stack([numbers(table[name], path, "px") for name in boxed]) if boxed else None


def size_numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    """The columns `image_width` and `image_height`, float64 [N, 2], NaN where blank or where there are none.

    Raises:
        LayoutError: one of the two only, or a value that is no number of at least 1.
    """
    there = [name for name in SIZE_COLUMNS if name in table]
    if not there:
        return np.full((len(table), 2), np.nan)
    need_columns(table, SIZE_COLUMNS, path)
    size_N2 = np.column_stack([numbers(table[name], path, "px") for name in SIZE_COLUMNS])
    bad = np.flatnonzero((size_N2 < 1).any(axis=1) | np.isnan(size_N2).any(axis=1) & ~np.isnan(size_N2).all(axis=1))
    if len(bad):
        found = " x ".join(f"{value:g}" for value in size_N2[bad[0]])
        raise LayoutError(f"{path}: {' and '.join(SIZE_COLUMNS)} are px, both or none; row {bad[0] + 1} has {found}.")
    return size_N2


def numbers(column: pd.Series, path: Path, unit: str = "") -> np.ndarray:
    """The column as float64 [N], NaN where blank.

    Raises:
        LayoutError: a value that is no number; the first such row is named.
    """
    if column.dtype.kind not in "fiu":
        blank = column.isna() | (column.astype("str").str.strip() == "")
        parsed = pd.to_numeric(column.mask(blank), errors="coerce")
        bad = np.flatnonzero((parsed.isna() & ~blank).to_numpy())
        if len(bad):
            wanted = f"numbers, {unit}" if unit else "numbers"
            raise LayoutError(
                f"{path}: {column.name} wants {wanted}; row {bad[0] + 1} has {column.iloc[bad[0]]!r}. Decimals have a point."
            )
        column = parsed
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def texts(column: pd.Series, path: Path, what: str) -> list[str | None]:
    """The column's values, None where blank.

    Args:
        column: of text; a parquet file may have stored numbers instead, whose leading zeros are gone.
        path: what errors call the table.
        what: what the column holds, in the plural, such as "labels".

    Raises:
        LayoutError: a value that is no text; the first such row is named.
    """
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise LayoutError(
                f"{path}: {what} are text, row {row + 1} has {value!r} ({type(value).__name__}): leading zeros are lost already. "
                "Write the column as text."
            )
    return [value or None for value in values]
