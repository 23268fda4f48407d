"""Average precision, first hit, cumulative match and inverse negative penalty of queries, from the places of their positives.

Axes: B queries with at least one positive, P their positives, sorted by query, the nearest first. Rows that are equally near form a tie:
`num_nearer` rows stand before it, `num_tied` are in it, `num_right` of these are positives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from scipy.special import digamma, gammaln

AveragePrecision = Literal["step", "trapezoid"]
Ties = Literal["expected", "threshold", "optimistic", "pessimistic"]
AS_GROUPS: tuple[Ties, ...] = ("expected", "threshold")
"""Rules that do not order what ties. They differ in average precision; a place, CMC and mINP are the mean over all orders in both."""


@dataclass(frozen=True)
class Places:
    """The ties that a query's nearest and farthest positive stand in, and what follows from all its positives.

    Attributes:
        query_B: int64, ascending, the queries that have a positive.
        average_precision_B: 0 to 1.
        num_positives_B: int64, at least 1.
        first_B3: int64, (num_nearer, num_tied, num_right) of the tie of the nearest positive.
        last_B3: int64, the same of the farthest positive.
    """

    query_B: np.ndarray
    average_precision_B: np.ndarray
    num_positives_B: np.ndarray
    first_B3: np.ndarray
    last_B3: np.ndarray

    @staticmethod
    def join(parts: Sequence["Places"]) -> "Places":
        """Returns the places of all parts, in their order."""
        return Places(*(np.concatenate([getattr(part, name.name) for part in parts]) for name in fields(Places)))


def read_places(
    row_P: np.ndarray,
    value_P: np.ndarray,
    nearer_P: np.ndarray,
    tied_P: np.ndarray,
    average_precision: AveragePrecision,
    ties: Ties,
) -> Places:
    """Returns the places of the positives of each query, queries in ascending order.

    Average precision under ties: "expected" is the mean over all orders of the tied rows; "threshold" takes a tie as one step of the
    threshold, as scikit-learn does, so that each of its positives gets the precision after the whole tie; "optimistic" puts
    the positives of a tie first, "pessimistic" last. Without a tie all four are one.

    Args:
        row_P: the query of each positive, ascending.
        value_P: similarity, descending within a query.
        nearer_P: kept rows strictly nearer.
        tied_P: kept rows as near, the positive itself among them.
        average_precision: "step" is the mean of the precision at each hit; "trapezoid" the mean of the precisions at and just
            before each hit (1 before the first row).
        ties: as above.

    Source: Zheng et al. 2015 (Market-1501): its Matlab code takes the trapezoid. "expected": McSherry and Najork 2008, "Computing
    Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", section 2.
    """
    if len(row_P) == 0:
        none = np.empty(0, np.int64)
        return Places(none, np.empty(0), none, np.empty((0, 3), np.int64), np.empty((0, 3), np.int64))
    index_P = np.arange(len(row_P))
    start_B = np.flatnonzero(np.r_[True, row_P[1:] != row_P[:-1]])
    size_B = np.diff(np.r_[start_B, len(row_P)])
    opens = np.r_[True, (row_P[1:] != row_P[:-1]) | (value_P[1:] != value_P[:-1])]
    tie_P = np.cumsum(opens) - 1
    first_of_tie = np.flatnonzero(opens)
    right_P = np.diff(np.r_[first_of_tie, len(row_P)])[tie_P]
    before_P = first_of_tie[tie_P] - np.repeat(start_B, size_B)
    if ties in AS_GROUPS:
        hits_P, places_P, hits_before_P, places_before_P = before_P + right_P, nearer_P + tied_P, before_P, nearer_P
    else:
        wrong_first_P = (tied_P - right_P) * (ties == "pessimistic")
        hits_before_P = index_P - np.repeat(start_B, size_B)
        places_before_P = nearer_P + wrong_first_P + index_P - first_of_tie[tie_P]
        hits_P, places_P = hits_before_P + 1, places_before_P + 1
    precision_P = hits_P / places_P
    if average_precision == "trapezoid":
        precision_P = (
            precision_P + np.where(places_before_P == 0, 1.0, hits_before_P / np.maximum(places_before_P, 1))
        ) / 2
    if ties == "expected" and len(shared := np.flatnonzero(tied_P > 1)):
        precision_P[shared] = _mean_precision(
            before_P[shared], nearer_P[shared], tied_P[shared], right_P[shared], average_precision
        )
    tie_P3 = np.stack([nearer_P, tied_P, right_P], axis=1)
    return Places(
        query_B=row_P[start_B],
        average_precision_B=np.add.reduceat(precision_P, start_B) / size_B,
        num_positives_B=size_B,
        first_B3=tie_P3[start_B],
        last_B3=tie_P3[start_B + size_B - 1],
    )


def _mean_precision(
    before_T: np.ndarray,
    nearer_T: np.ndarray,
    tied_T: np.ndarray,
    right_T: np.ndarray,
    average_precision: AveragePrecision,
) -> np.ndarray:
    """Returns the precision at a positive of a tie, the mean over all orders of the tied rows and over the positives in it.

    A positive at the i-th of a tie's t places has on average (i - 1) (r - 1) / (t - 1) others of the tie's r positives before it. With
    h hits among the n rows before the tie, the mean precision there is (h + 1 + (i - 1) (r - 1) / (t - 1)) / (n + i), and all t
    places are equally likely; the sum over i needs only the sum of 1 / (n + i). Just before the positive there is one hit and one
    place less; the precision is 1 where there is no place before it.
    """
    others_T = (right_T - 1) / np.maximum(tied_T - 1, 1)
    inverse_T = _sum_of_inverses(nearer_T, tied_T)
    at_T = others_T + (before_T + 1 - (nearer_T + 1) * others_T) * inverse_T / tied_T
    if average_precision == "step":
        return at_T
    inverse_T += 1 / np.maximum(nearer_T, 1) - 1 / (nearer_T + tied_T)
    just_before_T = others_T + (before_T - nearer_T * others_T) * inverse_T / tied_T
    return (at_T + np.where(nearer_T == 0, right_T / tied_T, just_before_T)) / 2


def _sum_of_inverses(first_T: np.ndarray, num_T: np.ndarray) -> np.ndarray:
    """Returns 1 / (first + 1) + ... + 1 / (first + num), to some 1e-14 of itself.

    Source: the expansion of the harmonic numbers about n + 1/2 (DeTemple and Wang 1991): log(n + 1/2) plus Euler's constant plus `rest`.
    """

    def rest(middle_T: np.ndarray) -> np.ndarray:
        squared_T = middle_T**2
        return (1 / 24 - (7 / 960 - 31 / 8064 / squared_T) / squared_T) / squared_T

    start_T, stop_T = first_T + 0.5, first_T + num_T + 0.5
    # for few rows before the tie; for many a difference of two digammas would lose its digits
    few_T = digamma(first_T + num_T + 1.0) - digamma(first_T + 1.0)
    return np.where(first_T < 64, few_T, np.log1p(num_T / start_T) + rest(stop_T) - rest(start_T))


def first_hit(first_B3: np.ndarray, ties: Ties) -> np.ndarray:
    """Returns the place of the nearest positive, float64, from 1.

    "expected" and "threshold": the mean over all orders of the tied rows, num_nearer + (num_tied + 1) / (num_right + 1).
    """
    nearer_B, tied_B, right_B = first_B3.T
    if ties in AS_GROUPS:
        return nearer_B + (tied_B + 1) / (right_B + 1)
    return nearer_B + 1.0 + (tied_B - right_B) * (ties == "pessimistic")


def cumulative_match(first_B3: np.ndarray, ranks: np.ndarray, ties: Ties) -> np.ndarray:
    """Returns match_RB, 0 to 1, for each rank and query: 1 if a positive is among the first `rank` kept rows.

    "expected" and "threshold": the share of all orders of the tied rows in which it is (hypergeometric). It never falls as the
    rank grows; beyond the last kept row it stays at 1.

    Source: cumulative match characteristic, Gray et al. 2007.
    """
    nearer_B, tied_B, right_B = first_B3.T
    if ties not in AS_GROUPS:
        return (first_hit(first_B3, ties) <= ranks[:, None]).astype(np.float64)
    places_RB = ranks[:, None] - nearer_B
    wrong_B = tied_B - right_B
    drawn_RB = np.clip(places_RB, 0, wrong_B)
    log_missed_RB = (
        gammaln(wrong_B + 1.0)
        - gammaln(wrong_B - drawn_RB + 1.0)
        + gammaln(tied_B - drawn_RB + 1.0)
        - gammaln(tied_B + 1.0)
    )
    chance_RB = np.clip(-np.expm1(log_missed_RB), 0.0, 1.0)
    return np.where(places_RB <= 0, 0.0, np.where(places_RB > wrong_B, 1.0, chance_RB))


def inverse_negative_penalty(num_positives_B: np.ndarray, last_B3: np.ndarray, ties: Ties) -> np.ndarray:
    """Returns the number of positives over the place of the farthest of them, above 0, at most 1.

    "expected" and "threshold": the mean of this ratio over all orders of the tied rows; "optimistic" and "pessimistic" put the positives of
    the tie first and last.

    Source: Ye et al. 2021, "Deep Learning for Person Re-identification: A Survey and Outlook", section 5.1 (mINP).
    """
    nearer_B, tied_B, right_B = last_B3.T
    if ties not in AS_GROUPS:
        return num_positives_B / (nearer_B + (right_B if ties == "optimistic" else tied_B))
    distinct, of_B = np.unique(last_B3, axis=0, return_inverse=True)
    return num_positives_B * np.array([_mean_inverse_of_last(*row) for row in distinct.tolist()])[of_B.ravel()]


def _mean_inverse_of_last(num_nearer: int, num_tied: int, num_right: int) -> float:
    """Returns the mean of 1 / (place of the last positive) where num_right of num_tied places are drawn at random."""
    if num_right == num_tied:
        return 1.0 / (num_nearer + num_tied)
    last = np.arange(num_right, num_tied + 1, dtype=np.float64)
    log_ways = gammaln(last) - gammaln(num_right) - gammaln(last - num_right + 1)
    log_all = gammaln(num_tied + 1.0) - gammaln(num_right + 1.0) - gammaln(num_tied - num_right + 1.0)
    return float((np.exp(log_ways - log_all) / (num_nearer + last)).sum())
