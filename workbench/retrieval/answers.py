"""Answers as a file: the same columns as CSV, JSON lines or parquet, labels exactly as they are.

Numbers have the fewest digits that give them back; what is missing is an empty field, null or a null. Row for row in the order of
the inputs.
"""

import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.runs.files import write_bytes

FORMATS = (".csv", ".jsonl", ".parquet")
# Line ends to `str.splitlines` and to some readers, though not to JSON.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def check_out(out: Path) -> None:
    """Does nothing where answers can be written to `out`; asked before anything is computed.

    Raises:
        ValueError: another suffix than `.csv`, `.jsonl` or `.parquet`, or a folder.
        OSError: its folder cannot be made.
    """
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"The answers are written as {', '.join(FORMATS)}; found {out.name!r}.")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the name of a file in it.")
    out.parent.mkdir(parents=True, exist_ok=True)


def write_answers(answers: pd.DataFrame, out: Path) -> None:
    """Writes the table to `out`, whole or not at all, in the format of its suffix; what was there is replaced."""
    suffix = out.suffix.lower()
    if suffix == ".parquet":
        buffer = io.BytesIO()
        answers.to_parquet(buffer, index=False)
        write_bytes(out, buffer.getvalue())
    else:
        write_bytes(out, (csv_text(answers) if suffix == ".csv" else json_lines(answers)).encode("utf-8"))


def csv_text(answers: pd.DataFrame) -> str:
    """Returns RFC 4180 with a first line of names and line feeds. Read labels as text: `pandas.read_csv(path, dtype=str)`."""
    lines = [",".join(map(_field, answers.columns))]
    lines += [",".join(map(_field, row)) for row in _rows(answers)]
    return "\n".join(lines) + "\n"


def json_lines(answers: pd.DataFrame) -> str:
    """Returns one object a line, the columns as keys."""
    names = [str(name) for name in answers.columns]
    lines = [
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in _rows(answers)
    ]
    return "".join(f"{line.translate(_LINE_ENDS)}\n" for line in lines)


def _rows(answers: pd.DataFrame) -> Any:
    columns = [[None if _is_missing(value) else value for value in answers[name].tolist()] for name in answers.columns]
    return zip(*columns, strict=True)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _field(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    # Spaces at the ends and a bare carriage return are lost by readers that trim or translate, so that they are quoted, too.
    wants_quotes = any(mark in value for mark in ',"\r\n') or value != value.strip() or value == ""
    return '"' + value.replace('"', '""') + '"' if wants_quotes else value
