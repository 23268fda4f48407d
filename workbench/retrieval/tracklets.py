"""One embedding from several: of a picture and its mirror image, and of the pictures of one individual by one camera.

Axes: N embeddings, T tracklets, D width.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.draws import read_labels

_ROWS_A_CHUNK = 8192


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


def unit_length(embedding_ND: ArrayLike, name: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Returns the rows (or those named) divided by their length: float64 stays float64, everything else is float32.

    Raises:
        ValueError: not two axes, not real numbers, or a row (named) that is not finite or has length zero.
    """
    given_ND = check_embedding(embedding_ND, name)
    chosen = np.arange(len(given_ND)) if rows is None else rows
    unit_ND = np.empty((len(chosen), given_ND.shape[1]), np.float64 if given_ND.dtype == np.float64 else np.float32)
    for start in range(0, len(chosen), _ROWS_A_CHUNK):
        part = chosen[start : start + _ROWS_A_CHUNK]
        block = given_ND[part].astype(np.float64)
        length = np.linalg.norm(block, axis=1, keepdims=True)
        good = np.isfinite(length[:, 0]) & (length[:, 0] > 0)
        if not good.all():
            row = int(part[np.argmin(good)])
            found = "has length zero and no direction" if (block[np.argmin(good)] == 0).all() else "is not finite"
            raise ValueError(f"row {row} of {name} {found}: leave it out or embed it anew")
        unit_ND[start : start + len(part)] = block / length + 0.0  # + 0.0: one zero only, not two
    return unit_ND


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
