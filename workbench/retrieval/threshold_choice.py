"""The threshold above which an answer is accepted, chosen so that unknown products are accepted at a stated rate.

Each class plays the unknown product in turn: it leaves the gallery, and the other classes choose the threshold of that gallery,
each query asked without its own class. How the class fares then is how a product fares that had no part in anything. The plain
quantile of the queries that are asked without their own class accepts more than its rate of such products: queries of a class are
alike, and two classes that are alike raise each other's values, so that it knows the products that it is tested with.

Axes: V queries, J rivals of each, C classes, R rows of class weights, F rates of false accepts, K what is checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.retrieval.false_accepts import num_accepted
from workbench.retrieval.open_set_measures import accepted_above, candidate_thresholds, last_within, thin_thresholds


@dataclass(frozen=True, eq=False)
class Strangers:
    """Queries that a gallery answered without their own class, as it answers an unknown product.

    Attributes:
        value_V: float, what is compared with the threshold.
        class_V: int64, 0 and above.
        rival_VJ: int64, all other classes without which the value would be another (others may be among them).
        without_VJ: float, the value without that rival too; -inf where nothing is left that could answer.
    """

    value_V: np.ndarray
    class_V: np.ndarray
    rival_VJ: np.ndarray
    without_VJ: np.ndarray

    def take(self, rows: np.ndarray) -> "Strangers":
        """Returns some of them."""
        return Strangers(self.value_V[rows], self.class_V[rows], self.rival_VJ[rows], self.without_VJ[rows])

    def share_above(self) -> np.ndarray:
        """Returns the share of the other classes' queries that are answered with at least the query's value, float64 [V].

        All are asked of the gallery without the query's class. The share is 0 where there is no other class.
        """
        level, place = np.unique(np.concatenate([self.value_V, self.without_VJ.ravel()]), return_inverse=True)
        place_V, without_VJ = place[: len(self.value_V)], place[len(self.value_V) :].reshape(self.without_VJ.shape)

        def count(class_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
            """Of N values, those that belong to each query's class and are at least its value."""
            key_N = np.sort(class_N * len(level) + place_N)
            first_V, last_V = self.class_V * len(level) + place_V, (self.class_V + 1) * len(level)
            return np.searchsorted(key_N, last_V) - np.searchsorted(key_N, first_V)

        above_V = len(place_V) - np.searchsorted(np.sort(place_V), place_V) - count(self.class_V, place_V)
        for rival_V, without_V in zip(self.rival_VJ.T, without_VJ.T, strict=True):
            above_V += count(rival_V, without_V) - count(rival_V, place_V)
        num_others_V = len(place_V) - np.bincount(self.class_V)[self.class_V]
        return np.asarray(above_V / np.maximum(num_others_V, 1))


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries that a gallery answered: their statistic, how much of each counts (None: all), and their class."""

    value_V: np.ndarray
    amount_V: np.ndarray | None
    class_V: np.ndarray

    def take(self, rows: np.ndarray) -> "Asked":
        """Returns some of them."""
        amount_V = None if self.amount_V is None else self.amount_V[rows]
        return Asked(self.value_V[rows], amount_V, self.class_V[rows])


@dataclass(frozen=True, eq=False)
class Choice:
    """A threshold for a rate of false accepts.

    Attributes:
        threshold: what lies above it is accepted.
        accepted_V: bool, the queries that are accepted at the threshold that is chosen without their class.
        resolved: whether the queries can tell the rate: it is at least one of them, and at least as many as lie above all other
            classes' (all asked without the class). Else the threshold is the largest value, which accepts nobody knows how many.
    """

    threshold: float
    accepted_V: np.ndarray
    resolved: bool


def choose_thresholds(strangers: Strangers, fars: Sequence[float]) -> list[Choice]:
    """Returns the threshold for each rate: so high that classes which had no part in it are accepted at that rate.

    It lies between two values where the rate falls between two queries, and never accepts more than the rate of the queries
    that chose it.

    Args:
        strangers: at least one query.
        fars: rates of false accepts.

    Source: leave-one-group-out cross-validation (Stone 1974), of the gallery and the threshold together. Where a class has one query
        and classes are not alike, the threshold for V * rate = m queries lies near the m-th largest value, which a new one
        surpasses in m of V + 1 cases.
    """
    share_V, num_queries = strangers.share_above(), len(strangers.value_V)
    nominal, count = np.unique(share_V, return_counts=True)
    found = np.cumsum(count) / num_queries
    if nominal[0] > 0:
        nominal, found = np.append(0.0, nominal), np.append(0.0, found)
    threshold_G, count_G = np.unique(-strangers.value_V.astype(np.float64), return_counts=True)
    above_G = (np.cumsum(count_G) - count_G) / num_queries
    choices = []
    for far in fars:
        resolved = bool(found[0] <= far and num_accepted(far, num_queries) >= 1)
        rate = np.interp(far, found, nominal) if resolved else 0.0
        threshold = -float(np.interp(rate, above_G, threshold_G))
        threshold = max(threshold, smallest_within(strangers.value_V, far))
        choices.append(Choice(threshold, share_V <= rate + 1e-12, resolved))
    return choices


def smallest_within(value_V: np.ndarray, far: float) -> float:
    """Returns the smallest of the values above which at most the share far of them lies: what these very values would choose."""
    return float(np.sort(value_V)[::-1][num_accepted(far, len(value_V))])


def follow(
    chosen: Strangers, checked: Sequence[Asked], fars: Sequence[float], weight_RC: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Returns (value_FK, replicate_RFK, resolved_F): for each rate the threshold, then the shares of each of `checked` above it.

    Args:
        chosen: they choose the thresholds.
        checked: what is counted at them.
        fars: rates of false accepts.
        weight_RC: weight of each class. A replicate takes the smallest value at which at most the rate of `chosen` is
            accepted, among about 600 where there are more: replicates are for the spread, not for the value.
    """
    choices = choose_thresholds(chosen, fars)
    value_FK = np.array(
        [[one.threshold, *(_mean_above(asked, one.threshold) for asked in checked)] for one in choices], np.float64
    )
    threshold_G = candidate_thresholds([chosen.value_V])[:-1]
    threshold_G = thin_thresholds(threshold_G, chosen.value_V, chosen.value_V)
    threshold_G = threshold_G[np.isfinite(threshold_G)]

    def share_above(asked: Asked) -> np.ndarray:
        above_CG = accepted_above(asked.value_V, asked.amount_V, asked.class_V, weight_RC.shape[1], threshold_G)
        count_C = np.bincount(asked.class_V, minlength=weight_RC.shape[1])
        return np.asarray((weight_RC @ above_CG) / (weight_RC @ count_C)[:, None])

    chosen_RG, checked_RG = (
        share_above(Asked(chosen.value_V, None, chosen.class_V)),
        [share_above(one) for one in checked],
    )
    rows, columns = np.arange(len(weight_RC)), []
    for far in fars:
        place_R = last_within(chosen_RG, far)
        columns.append(np.stack([threshold_G[place_R], *(share_RG[rows, place_R] for share_RG in checked_RG)], axis=1))
    return value_FK, np.stack(columns, axis=1), [one.resolved for one in choices]


def _mean_above(asked: Asked, threshold: float) -> float:
    above_V = asked.value_V.astype(np.float64) > threshold
    return float((above_V if asked.amount_V is None else above_V * asked.amount_V).mean())
