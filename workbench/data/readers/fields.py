"""Lists of fields that come with a set, and the frame that a recognition reader makes of them.

Fields stay text: `007` stays `007`, `NA` stays `NA`. The index of a table is the line's number in the file, so that an error
can name the line.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.readers.listing import LayoutError, few, note, text_column


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark; line ends stay as they are.

    Raises:
        LayoutError: the file cannot be read, or is not UTF-8.
    """
    note(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is not UTF-8 text: {error}. Download it again.") from error
    except OSError as error:
        raise LayoutError(f"Cannot read {path}: {error.strerror}.") from error


def read_lines(path: Path) -> pd.Series:
    """The lines of a list that are not blank, as text without their ends; the index is the line's number, from 1.

    LF and CRLF end a line. `str.splitlines` would also cut a file name at U+0085 or U+2028.

    Raises:
        LayoutError: see `read_text`.
    """
    lines = text_column([line.removesuffix("\r") for line in read_text(path).split("\n")], f"lines of {path.name}")
    lines.index += 1
    return lines[lines.str.strip() != ""]


def read_fields(path: Path, columns: Sequence[str], num_header_lines: int = 0) -> pd.DataFrame:
    """The lines of a list whose fields are parted by spaces or tabs: one text column a field, indexed by line number.

    The column `path`, where there is one, may hold spaces; the others do not.

    Args:
        path: of the list.
        columns: names of the fields in their order.
        num_header_lines: lines above the first one that counts; blank ones are not among them.

    Raises:
        LayoutError: a line has other fields (the first such line is shown), or the file is no text; see `read_lines`.
    """
    lines = read_lines(path).iloc[num_header_lines:]
    patterns = {"path": r"(?P<path>.*[^ \t])"}
    pattern = r"[ \t]+".join(patterns.get(name, rf"(?P<{name}>[^ \t]+)") for name in columns)
    matches = [re.fullmatch(pattern, line.strip(" \t")) for line in lines.tolist()]
    bad = [place for place, match in enumerate(matches) if match is None]
    if bad:
        raise LayoutError(
            f"{path}, line {lines.index[bad[0]]}: wanted '{' '.join(columns)}', found {lines.iloc[bad[0]]!r} "
            f"({len(bad)} such lines)."
        )
    rows = [match.groups() for match in matches if match]
    return pd.DataFrame(rows, index=lines.index, columns=list(columns), dtype="str")


def check_single(values: pd.Series, listed_in: Path) -> None:
    """Returns nothing when no value of the column, which is indexed by line number, is there twice.

    Raises:
        LayoutError: otherwise; the first line in `listed_in` that repeats one is shown.
    """
    twice = values[values.duplicated()]
    if len(twice):
        raise LayoutError(
            f"{listed_in}, line {twice.index[0]}: the {values.name} {twice.iloc[0]} is there twice ({len(twice)} such lines)."
        )


def join(rows: pd.DataFrame, table: pd.DataFrame, key: str, listed_in: Path) -> pd.DataFrame:
    """`rows` with the columns of `table` that has the same `key`, in the order and with the index of `rows`.

    Raises:
        LayoutError: the table has a key twice, or lacks one of the rows'; `listed_in` is the table's file.
    """
    check_single(table[key], listed_in)
    lacking = rows[key][~rows[key].isin(table[key])]
    if len(lacking):
        raise LayoutError(f"{listed_in} lacks {len(lacking)} of the {key}s in use: {few(list(lacking))}.")
    return rows.join(table.set_index(key), on=key)


def to_numbers(fields: pd.DataFrame, listed_in: Path) -> pd.DataFrame:
    """The fields as float64.

    Raises:
        LayoutError: a field is no finite number; the line in `listed_in` is shown.
    """
    numbers = fields.apply(pd.to_numeric, errors="coerce").astype("float64")
    bad = fields[~np.isfinite(numbers).all(axis=1)]
    if len(bad):
        raise LayoutError(
            f"{listed_in}, line {bad.index[0]}: wanted numbers, found {' '.join(bad.iloc[0])!r} ({len(bad)} such lines)."
        )
    return numbers


def recognition_frame(
    path: Sequence[str] | pd.Series,
    label: Sequence[str] | pd.Series,
    split: str | Sequence[str] | pd.Series,
    group: Sequence[str | None] | pd.Series | None = None,
    domain: str = "real",
) -> pd.DataFrame:
    """The columns of a catalog for these images: path, label, split, camera (missing), group (missing if None), domain.

    Raises:
        LayoutError: a path or a label that is not valid Unicode.
    """
    num = len(path)
    splits = [split] * num if isinstance(split, str) else list(split)
    return pd.DataFrame(
        {
            "path": text_column(list(path), "file names"),
            "label": text_column(list(label), "labels"),
            "split": pd.Series(splits, dtype="str"),
            "camera": pd.Series(pd.NA, index=range(num), dtype="Int64"),
            "group": pd.Series([None] * num if group is None else list(group), dtype="str"),
            "domain": pd.Series([domain] * num, dtype="str"),
        }
    )


def part_test(frame: pd.DataFrame, references_per_class: int) -> pd.DataFrame:
    """The frame with its split `test` parted: the first images of each label become `reference`, the others `query`.

    For sets whose test images are distributed as one heap, each to be found among the others. The order of the rows stays;
    with 0 references a class nothing changes. A label of no more images than that has no query.
    """
    if not references_per_class:
        return frame
    test = frame["split"] == "test"
    rank = frame.groupby(["split", "label"], sort=False).cumcount()
    parts = pd.Series(np.where(rank < references_per_class, "reference", "query"), index=frame.index, dtype="str")
    return frame.assign(split=frame["split"].mask(test, parts))
