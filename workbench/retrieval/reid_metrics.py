"""Metrics with intervals from the places of all positives: means over queries or individuals, and the share of accepted pairs.

Axes: Q queries, B queries with a match, M metrics, R ranks, C individuals, F false accept rates.
"""

import numpy as np
import pandas as pd

from workbench.retrieval.false_accepts import far_name
from workbench.retrieval.intervals import (
    NUM_REPLICATES,
    class_means,
    class_weights,
    interval_of_class_means,
    moderate,
    num_clusters,
    num_trials,
    share_interval,
    variance_of_mean,
)
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_result import match_by_query
from workbench.retrieval.reid_values import Places
from workbench.retrieval.stats import Metric


def mean_metrics(
    per_query: pd.DataFrame, counted: np.ndarray, places: Places, protocol: ReidProtocol, line: str
) -> tuple[dict[str, Metric], np.ndarray]:
    """Returns the metrics that are means over queries, and the weight of each query in them."""
    match_RQ = match_by_query(places, np.array(protocol.ranks), protocol.ties, len(per_query))
    graded = per_query[["average_precision", "inverse_negative_penalty"]].to_numpy().T
    names = ["mAP", *(f"rank-{rank}" for rank in protocol.ranks), "mINP"]
    identity = np.unique(per_query["label"][counted].to_numpy(dtype=object), return_inverse=True)[1]
    value_MQ = np.stack([graded[0], *match_RQ, graded[1]])[:, counted]
    (mean_MC, count_C), (square_MC, _) = class_means(value_MQ, identity), class_means(value_MQ**2, identity)
    per_identity = protocol.average == "identity"
    weight_C = class_weights(count_C, "macro" if per_identity else "micro")
    value_M = np.round(mean_MC @ weight_C, 12)  # all right is 1 in spite of rounding
    variance_M, df_M = variance_of_mean(mean_MC[:, None], weight_C, NUM_REPLICATES, seed=0)
    second_M = np.maximum(square_MC @ weight_C - value_M**2, 0.0)  # a precision varies less than a yes or no
    unit_M, df_M, doubt_M = moderate(variance_M, second_M, num_trials(weight_C, count_C), num_clusters(weight_C), df_M)
    low_M, high_M = share_interval(value_M, unit_M, df_M, second=second_M)
    weight_Q = np.zeros(len(per_query))
    weight_Q[counted] = 1 / (count_C[identity] * len(count_C)) if per_identity else 1 / len(identity)
    numbers = zip(names, *(array.tolist() for array in (value_M, low_M, high_M, doubt_M)), strict=True)
    metrics = {name: Metric(value, low, high, len(identity), line, doubt) for name, value, low, high, doubt in numbers}
    return metrics, weight_Q


def true_accepts(
    accepted_FQ: np.ndarray, places: Places, label_Q: np.ndarray, protocol: ReidProtocol, line: str
) -> dict[str, Metric]:
    """Returns the share of matching pairs that are accepted: over pairs, whatever the average over queries is."""
    identity = np.unique(label_Q[places.query_B], return_inverse=True)[1]
    pairs_C = np.bincount(identity, weights=places.num_positives_B)
    mean_FC = np.stack([np.bincount(identity, weights=row[places.query_B]) for row in accepted_FQ]) / pairs_C
    found = interval_of_class_means(mean_FC[:, None], pairs_C, "micro")
    line = f"{line}; over {int(pairs_C.sum())} matching pairs, non-matching pairs above the threshold are false accepts"
    return {
        far_name(far): Metric(value, low, high, len(places.query_B), line, doubt)
        for far, value, low, high, doubt in zip(protocol.far, *(array.tolist() for array in found), strict=True)
    }
