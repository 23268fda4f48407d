"""Reader of a table of pictures, CSV or parquet: a row a picture, or a box of one, with its label and split.

Option of the card: `table`, the file in the set's folder (`.csv`, `.tsv`, `.parquet`), and `separator`, the sign between the
fields of a text file where it is another than a comma (in `.tsv` files a tab). Columns: `path` (from the set's folder),
`label` and `split`; where there are any, `camera` (whole numbers), `group`, `domain` (real, synthetic or packshot; blank is
real) and `x`, `y`, `width`, `height` (a box, px of the upright picture; all four blank is the whole picture), with them
`image_width` and `image_height` (px; see `box_frames`: a box of the picture as stored is turned along). Other columns are not
looked at.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.box_frames import to_shown_frame
from workbench.data.boxes import BOX_COLUMNS, Box
from workbench.data.card import Card, card_error, check_keys
from workbench.data.readers.listing import LayoutError, check_listed, check_paths, check_plain, few, text_column
from workbench.data.tables import (
    SIZE_COLUMNS,
    TABLE_SUFFIXES,
    box_numbers,
    need_columns,
    numbers,
    open_table,
    size_numbers,
    texts,
)

REQUIRED = ("path", "label", "split")
OPTIONAL = ("camera", "group", "domain", *Box._fields, *SIZE_COLUMNS)


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    name, _ = _options(card)
    return None if (root / name).is_file() else f"no file {name}"


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row a row of the table, in its order: path, label, split, camera, group, domain, and the box where it has any.

    Raises:
        LayoutError: the table cannot be read, lacks a column, or has a value that cannot be; a file is missing; a link
            leaves `root`.
        CardError: an unknown option, or none that names the table.
    """
    name, separator = _options(card)
    check_listed(root, [name], f"the card {card.path}")
    path = root / name
    table = open_table(path, separator)
    need_columns(table, REQUIRED, path)
    _check_spelling(table, path)
    found: dict[str, pd.Series] = {}
    for column in REQUIRED:
        values = texts(table[column], path, f"{column}s")
        blank = [row for row, value in enumerate(values) if value is None]
        if blank:
            rows = few([str(row + 1) for row in blank])
            raise LayoutError(f"{path}: {len(blank)} rows have no {column}: {rows} (counted without the header).")
        found[column] = text_column([str(value) for value in values], f"{column}s of {path}")
    check_plain(found["path"].tolist(), name)
    check_listed(root, found["path"].drop_duplicates().tolist(), name)
    found["camera"] = _cameras(table, path)
    for column, default in (("group", None), ("domain", "real")):
        values = texts(table[column], path, f"{column}s") if column in table else [None] * len(table)
        found[column] = pd.Series([value or default for value in values], index=table.index, dtype="str")
    notes: list[str] = []
    box_N4 = box_numbers(table, path)
    if box_N4 is not None:
        files = [root / name for name in found["path"]]
        box_N4, faults, notes = to_shown_frame(box_N4, size_numbers(table, path), files, path)
        bad = [f"row {row + 1} ({found['path'].iloc[row]}): {fault}" for row, fault in enumerate(faults) if fault]
        if bad:
            raise LayoutError(f"{path}: {len(bad)} boxes cannot be used: {few(bad, 2)}. Correct or remove them.")
        found |= {column: pd.Series(box_N4[:, place]) for place, column in enumerate(BOX_COLUMNS)}
    frame = pd.DataFrame(found)
    frame.attrs["notes"] = notes
    return frame


def _options(card: Card) -> tuple[str, str]:
    try:
        check_keys(card.options, ("table", "separator"), "option")
        name, separator = card.options.get("table"), card.options.get("separator", "")
        if not isinstance(name, str) or not name.lower().endswith(TABLE_SUFFIXES):
            raise ValueError(f"the option 'table' names a file ending in {', '.join(TABLE_SUFFIXES)}; found {name!r}.")
        if not isinstance(separator, str) or len(separator) > 1:
            raise ValueError(f"the option 'separator' is one sign, such as ';'; found {separator!r}.")
        check_paths([name])
    except ValueError as error:
        raise card_error(card, error) from error
    return name, separator


def _check_spelling(table: pd.DataFrame, path: Path) -> None:
    for name in table.columns:
        meant = str(name).strip().lower()
        if meant != name and meant in REQUIRED + OPTIONAL:
            raise LayoutError(f"{path} has a column {name!r}, which would not be looked at: write {meant!r}.")


def _cameras(table: pd.DataFrame, path: Path) -> pd.Series:
    if "camera" not in table:
        return pd.Series(pd.NA, index=table.index, dtype="Int64")
    value_N = numbers(table["camera"], path)
    bad = np.flatnonzero(~np.isnan(value_N) & (value_N != np.round(value_N)) | np.isinf(value_N))
    if len(bad):
        raise LayoutError(f"{path}: cameras are whole numbers, row {bad[0] + 1} has {table['camera'].iloc[bad[0]]!r}.")
    return pd.Series(value_N, index=table.index, dtype="Float64").astype("Int64")
