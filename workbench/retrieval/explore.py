"""What a person who explores a gallery asks again and again, kept as sorted arrays so that each answer comes at once.

Axes: Q queries, K of them whose label has a reference, U of them asked as unknown products, G thresholds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.retrieval.leave_out import LeftOut, as_written
from workbench.retrieval.stats import Metric, cluster_interval


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """How many answers a threshold accepts, refuses and gets wrong, for any threshold by three binary searches.

    Attributes:
        right_K, wrong_K: float64, ascending: similarity of the nearest reference where it is right, and where it is wrong.
        unknown_U: float64, ascending: similarity of the nearest reference of another label, as if the query's own were not there.
    """

    right_K: np.ndarray
    wrong_K: np.ndarray
    unknown_U: np.ndarray

    @property
    def num_known(self) -> int:
        """Returns the number of queries whose label has a reference."""
        return len(self.right_K) + len(self.wrong_K)

    def at(self, threshold: float) -> dict[str, int]:
        """Returns the counts when an answer is accepted above the threshold; one that lies on it is refused.

        Keys: `right` and `wrong` (accepted), `refused` and, of these, `refused_right` (they would have been right): together
        all known queries; `false_accepts` and `refused_unknown`: the same queries with their label out of the gallery.

        Raises:
            ValueError: the threshold is not a number.
        """
        if np.isnan(threshold):
            raise ValueError("A threshold is a cosine similarity from -1 to 1, found NaN.")
        refused_right, refused_wrong, refused_unknown = (
            int(np.searchsorted(rising, threshold, side="right"))
            for rising in (self.right_K, self.wrong_K, self.unknown_U)
        )
        return {
            "right": len(self.right_K) - refused_right,
            "wrong": len(self.wrong_K) - refused_wrong,
            "refused": refused_right + refused_wrong,
            "refused_right": refused_right,
            "false_accepts": len(self.unknown_U) - refused_unknown,
            "refused_unknown": refused_unknown,
        }

    def span(self) -> tuple[float, float]:
        """Returns the smallest and the largest similarity there is; (-1, 1) without any."""
        value_Q = np.concatenate([self.right_K, self.wrong_K, self.unknown_U])
        return (float(value_Q.min()), float(value_Q.max())) if len(value_Q) else (-1.0, 1.0)

    def curve(self, num_thresholds: int = 200) -> pd.DataFrame:
        """Returns a row a threshold, ascending over `span`, with the columns `threshold` and those of `at`."""
        low, high = self.span()
        threshold_G = np.linspace(low, high, num_thresholds)
        return pd.DataFrame([{"threshold": float(one), **self.at(float(one))} for one in threshold_G])


def count_answers(left_out: LeftOut) -> ThresholdCounts:
    """Returns the counts of these answers.

    Similarities are taken with the fewest digits that give the float32 back, as `recognise` compares them: what is counted
    here is what a recognition with the same threshold decides, but for ties with another label, which count as wrong.
    """
    is_right_Q, is_wrong_Q = left_out.is_known_Q & left_out.right_Q, left_out.is_known_Q & ~left_out.right_Q
    parts = (left_out.known_Q[is_right_Q], left_out.known_Q[is_wrong_Q], left_out.unknown_Q[left_out.is_unknown_Q])
    return ThresholdCounts(*(np.sort(as_written(part)) for part in parts))


def threshold_metrics(left_out: LeftOut, threshold: float, how: str, seed: int = 0) -> dict[str, Metric]:
    """Returns the shares that `ThresholdCounts.at` counts, with intervals over labels; what has no query is left out.

    Args:
        left_out: the answers.
        threshold: cosine; above it an answer is accepted.
        how: where queries and gallery are from, in words; kept with each number.
        seed: of the intervals' bootstrap.
    """
    line = (
        f"accepted above cosine {threshold:.6g}; {how}; nearest reference; mean over queries; 95 % interval over labels"
    )
    known_Q, unknown_Q = as_written(left_out.known_Q), as_written(left_out.unknown_Q)
    accepted_Q, right_Q = known_Q > threshold, left_out.right_Q
    shares = {
        "accepted and right": (accepted_Q & right_Q, left_out.is_known_Q, "queries whose label has a reference"),
        "accepted and wrong": (accepted_Q & ~right_Q, left_out.is_known_Q, "queries whose label has a reference"),
        "refused": (~accepted_Q, left_out.is_known_Q, "queries whose label has a reference"),
        "unknown but accepted": (
            unknown_Q > threshold,
            left_out.is_unknown_Q,
            "queries asked without their label's references",
        ),
    }
    return {
        name: cluster_interval(
            is_so_Q[asked_Q].astype(float), left_out.label_Q[asked_Q], protocol=f"{whose}; {line}", seed=seed
        )
        for name, (is_so_Q, asked_Q, whose) in shares.items()
        if asked_Q.any()
    }
