"""One embedding from several: of a picture and its mirror image, and of the pictures of one individual by one camera.

Axes: N embeddings, T tracklets, D width.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_cameras, read_labels


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
    both_ND = normalise(embedding_ND, "embedding_ND") + normalise(flipped_ND, "flipped_ND")
    return normalise(both_ND, "the mean of embedding_ND and flipped_ND")


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
    unit_ND = normalise(embedding_ND, "embedding_ND")
    label_N = read_labels(labels, len(unit_ND), "labels")
    camera_N = read_cameras(cameras, len(unit_ND), "cameras")
    both = pd.MultiIndex.from_arrays([label_N, pd.factorize(camera_N)[0]])
    tracklet_N, _ = pd.factorize(both)
    _, row_T, num_images_T = np.unique(tracklet_N, return_index=True, return_counts=True)
    order = np.argsort(tracklet_N, kind="stable")
    start_T = np.cumsum(num_images_T) - num_images_T
    total_TD = np.add.reduceat(unit_ND[order].astype(np.float64), start_T, axis=0) if len(row_T) else unit_ND
    pooled_TD = normalise(total_TD, "the pooled tracklets").astype(unit_ND.dtype)
    return Tracklets(pooled_TD, label_N[row_T], camera_N[row_T], tracklet_N.astype(np.int64), row_T, num_images_T)
