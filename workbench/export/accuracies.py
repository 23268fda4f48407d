"""Accuracy@1 and mAP of torch, of the export and of the mixed gallery, and how they change, paired by query.

Axes: Q queries, N gallery rows, D width.
"""

import numpy as np

from workbench.export.comparison import Answers
from workbench.export.sides import Kept
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.stats import Metric, cluster_interval, paired_difference


def compare_accuracies(
    own: Answers, mixed: Answers, has_own_Q: np.ndarray, label_Q: np.ndarray, protocol: str
) -> dict[str, Metric]:
    """Returns torch/, exported/ and mixed/accuracy@1, then change/accuracy@1 and change/mixed/accuracy@1 against torch.

    Args:
        own: torch against the export with references of its own.
        mixed: torch against the export's queries with torch's references.
        has_own_Q: bool, the queries that have a reference of their label; the others are left out.
        label_Q: of each query.
        protocol: kept in the metrics.
    """
    labels = label_Q[has_own_Q]
    values = {"torch": own.right_before_Q, "exported": own.right_after_Q, "mixed": mixed.right_after_Q}
    right = {name: value_Q[has_own_Q] for name, value_Q in values.items()}
    metrics = {
        f"{name}/accuracy@1": cluster_interval(value, labels, protocol=protocol) for name, value in right.items()
    }
    for name, prefix in (("exported", ""), ("mixed", "mixed/")):
        change = paired_difference(right[name], right["torch"], labels, protocol=protocol)
        metrics[f"change/{prefix}accuracy@1"] = change
    return metrics


def compare_average_precision(sides: list[tuple[np.ndarray, np.ndarray]], kept: Kept) -> dict[str, Metric]:
    """Returns torch/, exported/ and mixed/mAP, then change/mAP and change/mixed/mAP, by the default `ReidProtocol`.

    Args:
        sides: (gallery, queries) of torch, exported and mixed, rows of length 1.
        kept: labels and cameras of these rows.
    """
    protocol = ReidProtocol(far=())
    results = [
        evaluate_reid(query_QD, gallery_ND, kept.label_Q, kept.label_N, kept.camera_Q, kept.camera_N, protocol)
        for gallery_ND, query_QD in sides
    ]
    metrics = {
        f"{name}/mAP": one.metrics["mAP"] for name, one in zip(("torch", "exported", "mixed"), results, strict=True)
    }
    first_Q, *others = (one.values_by_query("mAP") for one in results)
    counted_Q = ~np.isnan(first_Q)  # by labels and cameras alone, so the same for all
    for value_Q, prefix in zip(others, ("", "mixed/"), strict=True):
        metrics[f"change/{prefix}mAP"] = paired_difference(
            value_Q[counted_Q], first_Q[counted_Q], kept.label_Q[counted_Q], protocol=metrics["torch/mAP"].protocol
        )
    return metrics
