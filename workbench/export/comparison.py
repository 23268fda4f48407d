"""The answers of two models to the same queries, side by side: nearest rows, neighbours, ties, and what strangers would get.

Axes: Q queries, N gallery rows (references), B queries of a block, W rows of a chunk, D width. Similarities are cosines summed in
float64 from rows of length 1 in float32; rows that differ by at most `TIED` are equally near, because float32 tells no more.
"""

from dataclasses import dataclass

import numpy as np

from workbench.export.sides import Kept
from workbench.retrieval.arrays import normalise

TIED = 1e-7
"""A coordinate of a float32 unit row is off by at most 6e-8 of itself, a cosine of two such rows by at most 1.2e-7."""
_NUMBERS_A_CHUNK = 2**21
_ROWS_A_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Answers:
    """What the first model (before) and the second one (after) answer; float64 unless said.

    Attributes:
        right_before_Q, right_after_Q: 0 to 1, whether the nearest row has the query's label; expected value where rows tie.
        nearest_before_Q, nearest_after_Q: int64, the gallery row. Of rows that tie after, the one that was farthest before.
        margin_Q: the similarity before of the nearest row before, less that of the nearest row after; 0 or more. Above `TIED` the
            answer has changed its row.
        label_changes_Q: bool; a row is nearest after whose label none of the nearest rows before has.
        overlap_Q: 0 to 1, the share of the k nearest rows after that were among the k nearest before (ties with the k-th are).
        top_before_Q, top_after_Q: similarity of the nearest row.
        stranger_before_Q, stranger_after_Q: similarity of the nearest row of another label, -inf where there is none: what the
            query would get if its label were not in the gallery.
    """

    right_before_Q: np.ndarray
    right_after_Q: np.ndarray
    nearest_before_Q: np.ndarray
    nearest_after_Q: np.ndarray
    margin_Q: np.ndarray
    label_changes_Q: np.ndarray
    overlap_Q: np.ndarray
    top_before_Q: np.ndarray
    top_after_Q: np.ndarray
    stranger_before_Q: np.ndarray
    stranger_after_Q: np.ndarray


def compare_rows(before_ND: np.ndarray, after_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (cosine_N, difference_N, ratio_N), float64, of the two embeddings of each image.

    The cosine, -1 to 1; the largest absolute difference of a coordinate, rows at length 1; the length after over the length before.
    NaN where the row after has no direction (NaN, infinity or zeros).

    Args:
        before_ND: finite rows, not zero.
        after_ND: the same shape.
    """
    columns = []
    for start in range(0, len(before_ND), _ROWS_A_BLOCK):
        first_BD, second_BD = (rows[start : start + _ROWS_A_BLOCK].astype(np.float64) for rows in (before_ND, after_ND))
        good_B = np.isfinite(second_BD).all(axis=1) & second_BD.any(axis=1)
        unit_BD, moved_BD = normalise(first_BD, "before_ND"), np.full(second_BD.shape, np.nan)
        moved_BD[good_B] = normalise(second_BD[good_B], "after_ND")
        difference_BD = moved_BD - unit_BD
        ratio_B = np.vecdot(moved_BD, second_BD) / np.vecdot(unit_BD, first_BD)  # of lengths, without a square
        # 1 - |a - b|^2 / 2 keeps digits near 1 that the product a.b loses.
        cosine_B = np.maximum(1 - (difference_BD**2).sum(axis=1) / 2, -1.0)
        columns.append((cosine_B, np.abs(difference_BD).max(axis=1), ratio_B))
    cosine_N, difference_N, ratio_N = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return cosine_N, difference_N, ratio_N


def compare_answers(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], kept: Kept, k: int, *, by_image: bool
) -> Answers:
    """Returns both models' answers; the matrix of all similarities never exists.

    Args:
        before: (gallery [N, D], queries [Q, D]), float32 of length 1.
        after: the same rows by the second model; its width may differ.
        kept: what may answer; every query needs at least k rows.
        k: neighbours compared, from 1.
        by_image: tied rows count each (re-identification), not each of their labels (recognition).
    """
    num_queries = len(kept.label_Q)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in Answers.__dataclass_fields__}
    for start in range(0, num_queries, kept.rows_a_block):
        rows = slice(start, min(start + kept.rows_a_block, num_queries))
        kept_BN = kept.block(rows)
        own_BN = kept.label_Q[rows, None] == kept.label_N
        before_BN, after_BN = (_similarity(query[rows], gallery, kept_BN) for gallery, query in (before, after))
        for name, similarity_BN in (("before", before_BN), ("after", after_BN)):
            columns[f"top_{name}_Q"].append(similarity_BN.max(axis=1))
            stranger_B = np.max(similarity_BN, axis=1, where=~own_BN, initial=-np.inf)
            columns[f"stranger_{name}_Q"].append(stranger_B)
            right_B = _share_right(_nearest(similarity_BN), own_BN, kept.label_N, by_image)
            columns[f"right_{name}_Q"].append(right_B)
        for name, values_B in _changes(before_BN, after_BN, kept.label_N).items():
            columns[name].append(values_B)
        columns["overlap_Q"].append(_overlap(before_BN, after_BN, k))
    return Answers(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _similarity(query_BD: np.ndarray, gallery_ND: np.ndarray, kept_BN: np.ndarray) -> np.ndarray:
    similarity_BN = np.empty(kept_BN.shape)
    query_BD, step = query_BD.astype(np.float64), max(1, _NUMBERS_A_CHUNK // gallery_ND.shape[1])
    for start in range(0, len(gallery_ND), step):
        chunk_WD = gallery_ND[start : start + step].astype(np.float64)
        similarity_BN[:, start : start + step] = query_BD @ chunk_WD.T
    similarity_BN[~kept_BN] = -np.inf
    return similarity_BN


def _nearest(similarity_BN: np.ndarray) -> np.ndarray:
    return np.asarray(similarity_BN >= similarity_BN.max(axis=1, keepdims=True) - TIED)


def _share_right(nearest_BN: np.ndarray, own_BN: np.ndarray, label_N: np.ndarray, by_image: bool) -> np.ndarray:
    right_B, all_B = (nearest_BN & own_BN).sum(axis=1), nearest_BN.sum(axis=1)
    if not by_image:
        right_B = np.minimum(right_B, 1)
        for row in np.flatnonzero(all_B > 1):
            all_B[row] = len(np.unique(label_N[nearest_BN[row]]))
    return np.asarray(right_B / all_B)


def _changes(before_BN: np.ndarray, after_BN: np.ndarray, label_N: np.ndarray) -> dict[str, np.ndarray]:
    nearest_before_BN, nearest_after_BN = _nearest(before_BN), _nearest(after_BN)
    rows = np.arange(len(before_BN))
    # Where rows tie after, any of them may be given: the one that was farthest before is taken.
    chosen_B = np.where(nearest_after_BN, before_BN, np.inf).argmin(axis=1)
    margin_B = before_BN.max(axis=1) - before_BN[rows, chosen_B]
    label_changes_B = np.zeros(len(rows), dtype=bool)
    for row in np.flatnonzero(margin_B > TIED):
        known = np.isin(label_N[nearest_after_BN[row]], label_N[nearest_before_BN[row]])
        label_changes_B[row] = not known.all()
    return {
        "nearest_before_Q": before_BN.argmax(axis=1),
        "nearest_after_Q": chosen_B,
        "margin_Q": margin_B,
        "label_changes_Q": label_changes_B,
    }


def _overlap(before_BN: np.ndarray, after_BN: np.ndarray, k: int) -> np.ndarray:
    kth_before_B1, kth_after_B1 = (
        -np.partition(-values_BN, k - 1, axis=1)[:, k - 1 : k] for values_BN in (before_BN, after_BN)
    )
    among_before_BN = before_BN >= kth_before_B1 - TIED
    surely_BN = after_BN > kth_after_B1 + TIED
    tied_BN = (after_BN >= kth_after_B1 - TIED) & ~surely_BN
    places_B = k - surely_BN.sum(axis=1)  # left for the rows that tie with the k-th
    of_tied_B = (tied_BN & among_before_BN).sum(axis=1) / tied_BN.sum(axis=1)
    return np.asarray(((surely_BN & among_before_BN).sum(axis=1) + places_B * of_tied_B) / k)
