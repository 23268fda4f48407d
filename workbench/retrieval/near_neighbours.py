"""Pictures that an embedder finds nearer than different objects usually are: copies that no hash of the pixels finds.

Axes: N pictures, B pictures of a block, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.label_errors import rows_a_block
from workbench.retrieval.similarities import CosineSimilarity

ALIKE_SHARE = 0.01
"""Share of the pictures that may have a picture of another label as near as the threshold. One in a hundred."""


@dataclass(frozen=True)
class NearNeighbours:
    """Pairs above a similarity that hardly any two different objects reach.

    Attributes:
        table: a row a pair: row, other_row (as given), label, other_label, split, other_split, same_label, across_splits,
            similarity. Pairs between two of the tested splits come first, then other pairs across splits, then within a split;
            in each, those with two labels first, then the nearest.
        stranger_N: float64, the similarity of each picture to the nearest of another label; NaN where all have one label.
        threshold: the similarity that a pair has at least; NaN where all pictures have one label, so that nothing says what is usual.
        protocol: one line with the definition.
    """

    table: pd.DataFrame
    stranger_N: np.ndarray
    threshold: float
    protocol: str


def near_neighbours(
    embedding_ND: np.ndarray,
    labels: ArrayLike,
    splits: ArrayLike,
    *,
    tested_splits: Iterable[str] = ("reference", "query", "gallery"),
    alike_share: float = ALIKE_SHARE,
) -> NearNeighbours:
    """Returns the nearest neighbours that are nearer than pictures of different labels usually get.

    Each picture has three candidates: the nearest picture of its label in another split, in its own split, and the nearest
    one of any other label. The similarities of the last kind say how near two different objects get: the threshold is what only
    `alike_share` of the pictures reach with another label. Above it stand the pairs of one label that hardly differ (copies,
    pictures of a moment), and, by definition, that share of the pictures with their pairs of two labels: siblings, or one object
    under two labels. A list to look at. What ties is decided by the order of the rows. Every picture is compared with
    every other, in blocks: N x N x D operations, N numbers kept.

    Args:
        embedding_ND: real numbers, any scale, rows not zero.
        labels: [N], read as text.
        splits: [N], text.
        tested_splits: splits that hold references and queries.
        alike_share: above 0, below 1.

    Raises:
        ValueError: alike_share out of range, lengths that differ, rows that are not finite or zero.
    """
    if not 0 < alike_share < 1:
        raise ValueError(f"alike_share is a share above 0 and below 1, found {alike_share}.")
    image_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    label_N = read_labels(labels, len(image_ND), "labels")
    split_N = read_labels(splits, len(image_ND), "splits")
    nearest = _nearest_of_each_kind(
        image_ND, *(np.unique(names, return_inverse=True)[1] for names in (label_N, split_N))
    )
    stranger_N = nearest.loc[nearest["kind"] == "other label", "similarity"].replace(-np.inf, np.nan).to_numpy()
    is_known = bool(len(stranger_N)) and not np.isnan(stranger_N).any()
    threshold = float(np.quantile(stranger_N, 1 - alike_share)) if is_known else float("nan")
    pairs = nearest[nearest["similarity"] >= threshold]
    ends = np.sort(pairs[["row", "other_row"]].to_numpy(), axis=1)
    table = pairs.assign(row=ends[:, 0], other_row=ends[:, 1]).drop_duplicates(["row", "other_row"])
    for name, values in (("label", label_N), ("split", split_N)):
        table[name] = values[table["row"]].astype(str)
        table[f"other_{name}"] = values[table["other_row"]].astype(str)
    table["same_label"] = table["label"] == table["other_label"]
    table["across_splits"] = table["split"] != table["other_split"]
    tested = set(tested_splits)
    both = table["across_splits"] & table["split"].isin(tested) & table["other_split"].isin(tested)
    table["rank"] = 2 - table["across_splits"].astype(int) - both.astype(int)
    order = {"rank": True, "same_label": True, "similarity": False, "row": True, "other_row": True}
    table = table.sort_values(list(order), ascending=list(order.values()), ignore_index=True)
    columns = ["row", "other_row", "label", "other_label", "split", "other_split", "same_label", "across_splits"]
    usual = (
        f"at least {threshold:.4f}, which only {alike_share:.0%} of the pictures reach with a picture of another label"
    )
    protocol = (
        f"embedding neighbours: cosine similarity {usual if is_known else '(one label only: no threshold, no pairs)'}; each "
        f"picture's nearest of its label in its split and in others, and of another label; n = {len(image_ND):,} pictures"
    )
    return NearNeighbours(table[[*columns, "similarity"]], stranger_N, threshold, protocol)


def _nearest_of_each_kind(image_ND: np.ndarray, label_N: np.ndarray, split_N: np.ndarray) -> pd.DataFrame:
    """Returns row, other_row, similarity (-inf where there is none) and kind of three neighbours a picture."""
    similarity, parts = CosineSimilarity(image_ND, image_ND), []
    step = rows_a_block(max(len(image_ND), 1))
    for start in range(0, len(image_ND), step):
        row_B = np.arange(start, min(start + step, len(image_ND)))
        similarity_BN = similarity.block(start, start + len(row_B))
        similarity_BN[np.arange(len(row_B)), row_B] = -np.inf
        alike_BN = label_N[row_B, None] == label_N
        here_BN = split_N[row_B, None] == split_N
        kinds = {"same split": alike_BN & here_BN, "other split": alike_BN & ~here_BN, "other label": ~alike_BN}
        for kind, among_BN in kinds.items():
            masked_BN = np.where(among_BN, similarity_BN, -np.inf)
            other_B = masked_BN.argmax(axis=1)
            near_B = masked_BN[np.arange(len(row_B)), other_B].astype(np.float64)
            parts.append(pd.DataFrame({"row": row_B, "other_row": other_B, "similarity": near_B, "kind": kind}))
    empty = pd.DataFrame({"row": [], "other_row": [], "similarity": [], "kind": []})
    found = pd.concat(parts, ignore_index=True) if parts else empty
    return found.astype({"row": np.int64, "other_row": np.int64, "similarity": np.float64})
