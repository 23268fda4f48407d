"""How unevenly the images of a set are spread over its classes.

Axes: C classes.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.catalog import Catalog

TOP_SHARE = 0.1
"""The head: a tenth of the classes, those with the most images."""

MAX_IMBALANCE = 10.0
"""Images of the largest class for one of the smallest, up to which a split counts as balanced: the mildest imbalance that the
benchmarks of long-tailed recognition are made with (they go to 200).
Source: Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019, section 5.1."""

TAIL_COLUMNS = (
    *("split", "num_images", "num_labels", "min_images", "median_images", "max_images", "imbalance"),
    *("gini", "top_share", "num_top_labels", "num_single"),
)


def gini(count_C: ArrayLike) -> float:
    """Returns the Gini coefficient of the classes' numbers of images: 0 (all alike) to (C - 1) / C (one class has all).

    The mean difference of two classes, divided by twice the mean. NaN without a class or an image.

    Source: Gini 1912; computed by ranks, 2 sum(rank * count) / (C sum(count)) - (C + 1) / C with counts ascending.

    Raises:
        ValueError: a negative count.
    """
    ascending_C = np.sort(np.asarray(count_C, dtype=np.float64))
    if ascending_C.size and ascending_C[0] < 0:
        raise ValueError(f"Wanted numbers of images, found {ascending_C[0]:g}.")
    if ascending_C.sum() == 0:
        return float("nan")
    num, rank_C = len(ascending_C), np.arange(1, len(ascending_C) + 1)
    return float(2 * (rank_C @ ascending_C) / (num * ascending_C.sum()) - (num + 1) / num)


def describe_tail(catalog: Catalog) -> pd.DataFrame:
    """Returns one row a split, in the order of the images: how its images spread over its labels.

    Columns: split; num_images, num_labels; min_, median_ and max_images (of a label); imbalance (max / min); gini; top_share (0..1,
    the share of the images that the tenth of the labels with the most of them has; that tenth is rounded up, num_top_labels);
    num_single (labels with one image). Junk (label -1) and distractors (label 0) of re-identification sets are no classes and
    are left out. An empty catalog gives no row.
    """
    frame = countable(catalog)
    rows: list[tuple[object, ...]] = []
    for split, part in frame.groupby("split", sort=False):
        counts = part["label"].value_counts().to_numpy()
        num_top = int(np.ceil(TOP_SHARE * len(counts)))
        rows.append(
            (
                *(split, len(part), len(counts), int(counts[-1]), float(np.median(counts)), int(counts[0])),
                *(counts[0] / counts[-1], gini(counts), counts[:num_top].sum() / len(part), num_top),
                int((counts == 1).sum()),
            )
        )
    return pd.DataFrame(rows, columns=list(TAIL_COLUMNS))


def countable(catalog: Catalog) -> pd.DataFrame:
    """Returns the rows of a catalog whose label names a class: all but junk and distractors of re-identification sets."""
    return catalog.frame[~catalog.is_nobody]
