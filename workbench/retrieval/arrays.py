"""What users give, read in one way: embeddings as rows of length 1, labels and cameras as text.

Axes: N rows, B rows of a chunk, D width.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike

from workbench.data.labels import as_label

_NUMBERS_A_CHUNK = 2**16  # so that a chunk stays in the processor's cache
_ORDINARY = (2.0**-400, 2.0**400)
"""Lengths between these are right as they are summed: no square overflows, and none that counts vanishes."""


def check_embedding(embedding_ND: ArrayLike, name: str, width: int | None = None) -> np.ndarray:
    """Returns the embeddings as an array of two axes (rows, width), not copied.

    Raises:
        ValueError: not two axes, not real numbers, or another width than the one wanted.
    """
    given_ND = np.asanyarray(embedding_ND)
    if given_ND.ndim != 2 or given_ND.shape[1] == 0 or given_ND.shape[1] != (width or given_ND.shape[1]):
        wanted = f"(rows, {width})" if width else "(rows, width)"
        raise ValueError(f"{name} must have two axes {wanted}, found shape {given_ND.shape}")
    if given_ND.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, found dtype {given_ND.dtype}")
    return given_ND


def normalise(
    embedding_ND: ArrayLike,
    name: str,
    rows: np.ndarray | None = None,
    *,
    dtype: DTypeLike | None = None,
    width: int | None = None,
) -> np.ndarray:
    """Returns the rows (or those named) divided by their length, float64 where float64 was given, else float32.

    Right over the whole range of float64: rows of 1e200, of 1e-200 or of subnormal numbers have their direction. A row without
    one, of zeros or with a value that is not finite, is refused. A row that has length 1 already (up to rounding, in the dtype
    wanted) stays as it is, so that what becomes of a row depends on this row alone; where all rows have, in this dtype and
    order, they are returned where they are, in a mapped file say: a large gallery is not copied.

    Args:
        embedding_ND: real.
        name: for messages.
        rows: int64, the rows wanted; None: all.
        dtype: another dtype wanted.
        width: the width wanted; None: any.

    Raises:
        ValueError: not two axes of this width, not real numbers, or a row (named) that is not finite or has length zero.
    """
    given_ND = np.asarray(check_embedding(embedding_ND, name, width))
    if rows is not None and np.array_equal(rows, np.arange(len(given_ND))):
        rows = None
    wanted = np.dtype(dtype or (np.float64 if given_ND.dtype == np.float64 else np.float32))
    shape = (len(given_ND) if rows is None else len(rows), given_ND.shape[1])
    in_place = rows is None and given_ND.dtype == wanted and given_ND.flags.c_contiguous
    unit_ND = None if in_place else np.empty(shape, wanted)
    for part in _chunks(*shape):
        block_BD = given_ND[part if rows is None else rows[part]].astype(np.float64, order="C")
        length_B, stays_B = _measure(block_BD, 8 * float(np.finfo(wanted).eps))
        good_B = np.isfinite(length_B) & (length_B > 0)
        if not good_B.all():
            first = int(np.argmin(good_B))
            row = part.start + first if rows is None else int(rows[part.start + first])
            found = "has length zero and no direction" if length_B[first] == 0 else "is not finite (NaN or infinity)"
            raise ValueError(f"row {row} of {name} {found}: leave it out or embed it anew")
        if unit_ND is None:
            if stays_B.all():
                continue
            unit_ND = np.empty(shape, wanted)
            unit_ND[: part.start] = given_ND[: part.start]
        block_BD /= np.where(stays_B, 1.0, length_B)[:, None]
        block_BD += 0.0  # one zero only, not two
        unit_ND[part] = block_BD
    return given_ND if unit_ND is None else unit_ND


def _measure(block_BD: np.ndarray, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the length of each row and whether it is 1; rows of extreme length are first scaled, in place, by a power of two."""
    with np.errstate(over="ignore", invalid="ignore"):
        length_B = np.linalg.norm(block_BD, axis=1)
        extreme_B = ~((length_B > _ORDINARY[0]) & (length_B < _ORDINARY[1]))
        stays_B = np.abs(length_B - 1) <= rounding
        if extreme_B.any():
            _, exponent_E = np.frexp(np.abs(block_BD[extreme_B]).max(axis=1))
            block_BD[extreme_B] = np.ldexp(block_BD[extreme_B], -exponent_E[:, None])
            length_B[extreme_B] = np.linalg.norm(block_BD[extreme_B], axis=1)
    return length_B, stays_B


def _chunks(num_rows: int, width: int) -> Iterator[slice]:
    step = max(1, _NUMBERS_A_CHUNK // width)
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def read_labels(labels: ArrayLike, num_rows: int | None, name: str) -> np.ndarray:
    """Returns the labels as text, object array of str: "007" stays "007", and the number 7 is "7".

    Whole numbers may be of any size and kind (Python, numpy, a torch tensor of one number); bytes are text in UTF-8; Unicode forms
    of one text are one (see `data.labels.as_label`). Floats are refused, whole ones too: 1.0 may have been the text "1.0" or
    the number 1, and beyond 2^53 (float32: 2^24) two labels are one.

    Args:
        labels: an array, a list, a tensor, or a column of pandas.
        num_rows: labels wanted; None: any number.
        name: for messages.

    Raises:
        ValueError: more or fewer labels than rows, or a label (row named) that is missing, a float, or neither text nor a number.
    """
    return _read_texts(labels, num_rows, name, "label")


def read_cameras(cameras: ArrayLike | None, num_rows: int, name: str) -> np.ndarray:
    """Returns the cameras as text, object array of str, None where one is missing (None, NaN, or no cameras at all).

    They are read as labels are; but 2.0 is camera "2", because a column of whole numbers with a gap becomes float.

    Raises:
        ValueError: more or fewer cameras than rows, or one that is neither text nor a whole number (row named).
    """
    if cameras is None:
        return np.full(num_rows, None, dtype=object)
    return _read_texts(cameras, num_rows, name, "camera")


def _read_texts(values: ArrayLike, num_rows: int | None, name: str, what: Literal["label", "camera"]) -> np.ndarray:
    if isinstance(values, list | tuple):
        given = np.empty(len(values), dtype=object)  # numpy would look into tensors, and make floats of large integers
        for row, value in enumerate(values):
            given[row] = value
    else:
        given = np.asarray(values, dtype=object)
    if given.ndim != 1 or num_rows not in (None, len(given)):
        rows = "each row" if num_rows is None else f"each of {num_rows} rows"
        raise ValueError(f"{name} must have one {what} for {rows}, found shape {given.shape}")
    text_N = np.empty(len(given), dtype=object)
    for row, value in enumerate(given):
        text_N[row] = as_label(value) if type(value) is str else _read_text(value, row, name, what)
    return text_N


def _read_text(value: Any, row: int, name: str, what: Literal["label", "camera"]) -> str | None:
    if getattr(value, "ndim", None) == 0:  # a scalar of numpy or of torch, which is not imported here
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        if what == "label":
            raise ValueError(f"row {row} of {name} has no label")
        return None
    if what == "camera" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"row {row} of {name} is {value!r}, which is no text in UTF-8: decode it first") from error
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f"row {row} of {name} is {value!r} ({type(value).__name__}): a {what} is text or a whole number; write it as one"
        )
    return as_label(str(value))
