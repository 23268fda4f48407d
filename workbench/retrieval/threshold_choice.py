"""A threshold that is chosen on some queries and followed on others, with what the choice itself adds to the interval.

Axes: Q queries, V of them, C classes, S splits, R rows of class weights, F rates of false accepts, G thresholds (descending).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.retrieval.false_accepts import num_accepted
from workbench.retrieval.open_set_measures import (
    accepted_above,
    candidate_thresholds,
    interval_over_splits,
    last_within,
    thin_thresholds,
)
from workbench.retrieval.open_set_search import ClassSimilarities


@dataclass(frozen=True)
class Asked:
    """Queries that a gallery answered: their statistic, how much of each counts (None: all), and their class."""

    value_V: np.ndarray
    amount_V: np.ndarray | None
    class_V: np.ndarray

    def take(self, rows: np.ndarray) -> "Asked":
        """Returns some of them."""
        amount_V = None if self.amount_V is None else self.amount_V[rows]
        return Asked(self.value_V[rows], amount_V, self.class_V[rows])


def leave_out_in_turn(similarities: ClassSimilarities, gallery_C: np.ndarray, number: int) -> Asked:
    """Returns the queries of the gallery's classes, each asked while its class is out of the gallery."""
    protocol, class_Q = similarities.protocol, similarities.class_Q
    rng = np.random.default_rng([protocol.seed, number, 2])
    classes = rng.permutation(np.flatnonzero(gallery_C & similarities.asked_C))
    parts = []
    for part in np.array_split(classes, min(round(1 / protocol.held_out_share), len(classes))):
        without_C = gallery_C.copy()
        without_C[part] = False
        answers = similarities.answers(without_C, number)
        parts.append(Asked(answers.statistic_Q, None, class_Q).take(np.isin(class_Q, part)))
    return Asked(
        np.concatenate([part.value_V for part in parts]), None, np.concatenate([part.class_V for part in parts])
    )


def smallest_within(value_V: np.ndarray, far: float) -> float:
    """Returns the smallest of the values above which at most the share far of them lies."""
    return float(np.sort(value_V)[::-1][num_accepted(far, len(value_V))])


def follow(chosen: Asked, checked: Sequence[Asked], fars: Sequence[float], weight_RC: np.ndarray | None) -> np.ndarray:
    """Returns found_RFK, float64: for each rate the threshold, then the shares of each of `checked` above it.

    Args:
        chosen: the threshold is the smallest at which at most the rate of these is accepted.
        checked: what is counted at it.
        fars: rates of false accepts.
        weight_RC: weight of each class; the threshold is chosen anew for each row, among about 600 candidates where there are
            more. None: one row, every query counts the same.
    """
    threshold_G = candidate_thresholds([chosen.value_V])[:-1]
    weights = np.ones((1, 1)) if weight_RC is None else weight_RC
    if weight_RC is not None:
        threshold_G = thin_thresholds(threshold_G, chosen.value_V, chosen.value_V)
        threshold_G = threshold_G[np.isfinite(threshold_G)]

    def share_above(asked: Asked) -> np.ndarray:
        class_V = np.zeros_like(asked.class_V) if weight_RC is None else asked.class_V
        above_CG = accepted_above(asked.value_V, asked.amount_V, class_V, weights.shape[1], threshold_G)
        count_C = np.bincount(class_V, minlength=weights.shape[1])
        return np.asarray((weights @ above_CG) / (weights @ count_C)[:, None])

    chosen_RG, checked_RG = share_above(chosen), [share_above(asked) for asked in checked]
    rows, columns = np.arange(len(weights)), []
    for far in fars:
        place_R = last_within(chosen_RG, far)
        columns.append(np.stack([threshold_G[place_R], *(share_RG[rows, place_R] for share_RG in checked_RG)], axis=1))
    return np.stack(columns, axis=1)


def over_splits(
    value_S: np.ndarray,
    replicate_SR: np.ndarray,
    similarities: ClassSimilarities,
    rows_S: Sequence[np.ndarray],
    is_share: bool = True,
) -> tuple[float, float, float]:
    """Returns a value over splits with its interval; rows_S: the queries that it is about in each split."""
    any_Q = np.any(rows_S, axis=0)
    value, low, high = interval_over_splits(
        value_S[:, None],
        replicate_SR[:, :, None],
        least_unknown=min(len(np.unique(similarities.class_Q[rows])) for rows in rows_S),
        num_unknown=len(np.unique(similarities.class_Q[any_Q])),
        num_queries=int(any_Q.sum()),
        is_share=is_share,
    )
    return float(value[0]), float(low[0]), float(high[0])
