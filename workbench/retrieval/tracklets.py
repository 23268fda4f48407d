"""One embedding from several: of a picture and its mirror image, and of the pictures of one individual by one camera.

Axes: N embeddings, T tracklets, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike

from workbench.retrieval.draws import read_labels

_NUMBERS_A_CHUNK = 2**16  # so that a chunk stays in the processor's cache


@dataclass(frozen=True)
class Tracklets:
    """Pooled embeddings, in the order in which each tracklet first appears.

    Attributes:
        embedding_TD: float32 or float64, length 1.
        labels: object array of str, [T].
        cameras: object array of str, [T], None where there is none.
        tracklet_N: int64, the tracklet of each embedding that was given.
        row_T: int64, the first embedding of each tracklet.
        num_images_T: int64, at least 1.
    """

    embedding_TD: np.ndarray
    labels: np.ndarray
    cameras: np.ndarray
    tracklet_N: np.ndarray
    row_T: np.ndarray
    num_images_T: np.ndarray


def check_embedding(embedding_ND: ArrayLike, name: str) -> np.ndarray:
    """Returns the embeddings as an array of two axes (rows, width), not copied.

    Raises:
        ValueError: not two axes, or not real numbers.
    """
    given_ND = np.asanyarray(embedding_ND)
    if given_ND.ndim != 2 or given_ND.shape[1] == 0:
        raise ValueError(f"{name} must have two axes (rows, width), found shape {given_ND.shape}")
    if given_ND.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, found dtype {given_ND.dtype}")
    return given_ND


def unit_length(
    embedding_ND: ArrayLike, name: str, rows: np.ndarray | None = None, dtype: DTypeLike | None = None
) -> np.ndarray:
    """Returns the rows (or those named) divided by their length, float32, or float64 where float64 was given.

    Rows that all have length 1 already (up to rounding), in this dtype and order, are returned where they are, in a mapped file
    say: a large gallery is not copied.

    Args:
        embedding_ND: real.
        name: for messages.
        rows: int64, the rows wanted; None: all.
        dtype: another dtype wanted.

    Raises:
        ValueError: not two axes, not real numbers, or a row (named) that is not finite or has length zero.
    """
    given_ND = np.asarray(check_embedding(embedding_ND, name))
    if rows is not None and np.array_equal(rows, np.arange(len(given_ND))):
        rows = None
    wanted = np.dtype(dtype or (np.float64 if given_ND.dtype == np.float64 else np.float32))
    num_rows = len(given_ND) if rows is None else len(rows)
    length_N = np.empty(num_rows)
    for part in _chunks(num_rows, given_ND.shape[1]):
        block = _rows_of(given_ND, rows, part)
        length_N[part] = np.linalg.norm(block, axis=1)
        good = np.isfinite(length_N[part]) & (length_N[part] > 0)
        if not good.all():
            first = int(np.argmin(good))
            row = part.start + first if rows is None else int(rows[part.start + first])
            found = "has length zero and no direction" if (block[first] == 0).all() else "is not finite"
            raise ValueError(f"row {row} of {name} {found}: leave it out or embed it anew")
    in_place = rows is None and given_ND.dtype == wanted and given_ND.flags.c_contiguous
    if in_place and (np.abs(length_N - 1) <= 8 * np.finfo(wanted).eps).all():
        return given_ND
    unit_ND = np.empty((num_rows, given_ND.shape[1]), wanted)
    for part in _chunks(num_rows, given_ND.shape[1]):
        block = _rows_of(given_ND, rows, part)
        block /= length_N[part, None]
        block += 0.0  # one zero only, not two
        unit_ND[part] = block
    return unit_ND


def _chunks(num_rows: int, width: int) -> Iterator[slice]:
    step = max(1, _NUMBERS_A_CHUNK // width)
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def _rows_of(given_ND: np.ndarray, rows: np.ndarray | None, part: slice) -> np.ndarray:
    """Returns a part of the rows as float64, a new array."""
    return given_ND[part if rows is None else rows[part]].astype(np.float64)


def average_flip(embedding_ND: ArrayLike, flipped_ND: ArrayLike) -> np.ndarray:
    """Returns the mean of the embeddings of pictures and of their mirror images, length 1 (both of length 1 before).

    Raises:
        ValueError: shapes that differ, a row that is not finite or zero, or a pair that cancels out.

    Source: test-time flipping as in Luo et al. 2019, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification".
    """
    if np.shape(embedding_ND) != np.shape(flipped_ND):
        raise ValueError(
            f"a mirror image for each picture is wanted, found shapes {np.shape(embedding_ND)} and {np.shape(flipped_ND)}"
        )
    both_ND = unit_length(embedding_ND, "embedding_ND") + unit_length(flipped_ND, "flipped_ND")
    return unit_length(both_ND, "the mean of embedding_ND and flipped_ND")


def pool_tracklets(embedding_ND: ArrayLike, labels: ArrayLike, cameras: ArrayLike | None = None) -> Tracklets:
    """Returns one embedding for all pictures of one individual by one camera: their mean, each of length 1 before and after.

    Pictures without a camera (None, NaN) form a tracklet of their own with the others of that label without one. A picture that is
    given twice counts twice.

    Args:
        embedding_ND: real, any length above 0.
        labels: [N], text or whole numbers.
        cameras: [N], text or whole numbers; None: pictures are pooled by label.

    Raises:
        ValueError: lengths that differ, a missing label, a row that is not finite or zero, or rows that cancel out.

    Source: average pooling over a tracklet, Zheng et al. 2016 (MARS).
    """
    unit_ND = unit_length(embedding_ND, "embedding_ND")
    label_N = read_labels(labels, len(unit_ND), "labels")
    camera_N = read_cameras(cameras, len(unit_ND), "cameras")
    both = pd.MultiIndex.from_arrays([label_N, pd.factorize(camera_N)[0]])
    tracklet_N, _ = pd.factorize(both)
    _, row_T, num_images_T = np.unique(tracklet_N, return_index=True, return_counts=True)
    order = np.argsort(tracklet_N, kind="stable")
    start_T = np.cumsum(num_images_T) - num_images_T
    total_TD = np.add.reduceat(unit_ND[order].astype(np.float64), start_T, axis=0) if len(row_T) else unit_ND
    pooled_TD = unit_length(total_TD, "the pooled tracklets").astype(unit_ND.dtype)
    return Tracklets(pooled_TD, label_N[row_T], camera_N[row_T], tracklet_N.astype(np.int64), row_T, num_images_T)


def read_cameras(cameras: ArrayLike | None, num_rows: int, name: str) -> np.ndarray:
    """Returns the cameras as text, object array, None where one is missing (None, NaN, or no cameras at all).

    Raises:
        ValueError: more or fewer cameras than rows, or one that is neither text nor a whole number (row named).
    """
    if cameras is None:
        return np.full(num_rows, None, dtype=object)
    values = np.asarray(cameras, dtype=object)
    if values.shape != (num_rows,):
        raise ValueError(f"{name} must have one camera for each of {num_rows} rows, found shape {values.shape}")
    if np.asarray(cameras).dtype.kind in "iu":
        return np.asarray(cameras).astype(str).astype(object)
    text = np.full(num_rows, None, dtype=object)
    missing = np.asarray(pd.isna(values), dtype=bool)
    for row in np.flatnonzero(~missing):
        value = values[row]
        if isinstance(value, float | np.floating) and float(value).is_integer():
            value = int(value)  # a column of whole numbers with a gap becomes float
        if not isinstance(value, str | int | np.integer) or isinstance(value, bool):
            raise ValueError(f"row {row} of {name} is {value!r}: a camera is text or a whole number")
        text[row] = str(value)
    return text
