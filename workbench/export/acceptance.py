"""Whether an exported model may stand in for the original: not only similar numbers, the same answers.

Axes: Q queries, N references (gallery rows in re-identification), D width. "Before" is the model in torch, "after" the export. Answers
are compared with references and queries both by the export, and once mixed: references by torch, queries by the export.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.export.accuracies import compare_accuracies, compare_average_precision
from workbench.export.checks import Check, Limits, check_answers, check_change, check_numbers, check_threshold
from workbench.export.comparison import TIED, Answers, compare_answers, compare_rows
from workbench.export.sides import Kept, read_kept
from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.stats import Metric

NEIGHBOURS = 10
NOT_COMPUTED = "the export gave rows without a direction; answers were not compared"


class AcceptanceError(RuntimeError):
    """The export missed a limit; the message names the checks."""


@dataclass(frozen=True, eq=False)
class Acceptance:
    """The comparison of an export with its original.

    Attributes:
        limits: what was asked.
        checks: in the order of `table`.
        flips: a row a query whose nearest reference has changed, the largest margin first: query, nearest_before, nearest_after
            (rows of the references), label_before, label_after, label_changes, margin (similarity by torch of the two).
        worst: the images whose embedding changed most, the worst first: side (reference or query), row, label, cosine (NaN where the
            export gave no direction).
        cosine_N, cosine_Q: float64, -1 to 1, between an image's two embeddings.
        metrics: accuracy@1 (and mAP with cameras) of torch, exported and mixed, and their changes.
        protocol: how it was measured, in a line.
    """

    limits: Limits
    checks: tuple[Check, ...]
    flips: pd.DataFrame
    worst: pd.DataFrame
    cosine_N: np.ndarray
    cosine_Q: np.ndarray
    metrics: dict[str, Metric]
    protocol: str

    def table(self) -> pd.DataFrame:
        """Returns a row a check: check, value, limit, passed (missing where nothing was asked), n, words."""
        return pd.DataFrame([vars(check) for check in self.checks]).astype({"passed": "boolean"})

    def changes(self) -> pd.DataFrame:
        """Returns a row a changed metric, for `export_figures.change_intervals`: quantity, value, low, high, n."""
        rows = [
            (name.removeprefix("change/"), metric.value, metric.low, metric.high, metric.n)
            for name, metric in self.metrics.items()
            if name.startswith("change/")
        ]
        return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "n"])

    @property
    def failures(self) -> tuple[Check, ...]:
        """Returns the checks whose limit was missed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Returns whether every limit was kept."""
        return not self.failures

    def raise_if_failed(self) -> None:
        """Nothing where every limit was kept.

        Raises:
            AcceptanceError: names each failing check with its value, its limit and what it means.
        """
        if self.failures:
            lines = [f"- {one.check}: {one.value:.9g}, wanted {one.limit}. {one.words}" for one in self.failures]
            raise AcceptanceError(
                f"the export missed {len(lines)} of the limits {self.limits.name}; do not deploy it:\n"
                + "\n".join(lines)
            )


def accept(
    reference_ND: np.ndarray,
    query_QD: np.ndarray,
    exported_reference_ND: np.ndarray,
    exported_query_QD: np.ndarray,
    reference_labels: ArrayLike,
    query_labels: ArrayLike,
    limits: Limits,
    *,
    reference_cameras: ArrayLike | None = None,
    query_cameras: ArrayLike | None = None,
    reference_sources: ArrayLike | None = None,
    query_sources: ArrayLike | None = None,
    far: float = 0.01,
    num_worst: int = 12,
) -> Acceptance:
    """Returns what changes when the export answers in place of the original, and whether the limits allow it.

    A query is answered with its nearest reference. With cameras it is re-identification: rows of the query's label from its own
    camera are no answers, the label "-1" is left out on both sides, and mAP is compared too. Rows that tie are one answer: a change
    among them is no flip, and accuracy takes the expected value. An export that gives a row without direction (NaN, infinity, zeros)
    fails on that alone; nothing else is computed then.

    Args:
        reference_ND: by torch, real numbers, any length above 0.
        query_QD: by torch, the same width.
        exported_reference_ND: the same images in the same order by the export.
        exported_query_QD: the same.
        reference_labels: text or whole numbers.
        query_labels: the same; a query whose label no reference has counts for agreement and threshold, not for accuracy.
        limits: FP32, FP16, INT8, or one's own.
        reference_cameras: with query_cameras, makes it re-identification.
        query_cameras: the same.
        reference_sources: the photograph of each row; with query_sources, no query is answered with its own photograph.
        query_sources: the same.
        far: the rate of false accepts that the open-set threshold is set for.
        num_worst: rows of `worst`.

    Raises:
        ValueError: arrays, labels, cameras or sources that do not fit each other, torch's rows not finite or zero, no query or
            reference, no query with a reference of its label.

    Source: intervals: `stats.paired_difference`; the threshold: `threshold_choice.smallest_within` on the nearest reference of
    another label, which is what each query would get if its own label left the gallery.
    """
    if not 0 < far < 1:
        raise ValueError(f"far must be above 0 and below 1 (0.01 is 1 %), {far!r} was given")
    _check_shapes(reference_ND, query_QD, exported_reference_ND, exported_query_QD)
    label_N = read_labels(reference_labels, len(reference_ND), "reference_labels")
    label_Q = read_labels(query_labels, len(query_QD), "query_labels")
    kept = read_kept(label_N, label_Q, reference_cameras, query_cameras, reference_sources, query_sources)
    num_kept_Q, num_own_Q = kept.count()
    if not (num_own_Q > 0).any():
        raise ValueError(
            "no query has a reference of its label that may answer it: both sides must name labels in the same way, and cameras or "
            "sources must leave something to find"
        )
    before = (
        normalise(reference_ND, "reference_ND", dtype=np.float32),
        normalise(query_QD, "query_QD", dtype=np.float32),
    )
    of_references = compare_rows(np.asanyarray(reference_ND), np.asanyarray(exported_reference_ND))
    of_queries = compare_rows(np.asanyarray(query_QD), np.asanyarray(exported_query_QD))
    cosine_R, difference_R, ratio_R = (np.concatenate(pair) for pair in zip(of_references, of_queries, strict=True))
    numbers = check_numbers(cosine_R, difference_R, ratio_R, limits)
    cosine_N, cosine_Q = of_references[0], of_queries[0]
    worst = _worst(cosine_N, cosine_Q, label_N, label_Q, num_worst)
    if numbers[0].passed is False:
        return Acceptance(limits, numbers, _flips(None, kept, label_N), worst, cosine_N, cosine_Q, {}, NOT_COMPUTED)
    after = (
        normalise(exported_reference_ND, "exported_reference_ND", dtype=np.float32),
        normalise(exported_query_QD, "exported_query_QD", dtype=np.float32),
    )
    asked_Q = num_kept_Q > 0
    kept, has_own_Q = kept.of_queries(asked_Q), num_own_Q[asked_Q] > 0
    before, after = ((one[kept.row_N], two[kept.row_Q]) for one, two in (before, after))
    k, by_camera = int(min(NEIGHBOURS, num_kept_Q[asked_Q].min())), kept.camera_N is not None
    own = compare_answers(before, after, kept, k, by_image=by_camera)
    mixed = compare_answers(before, (before[0], after[1]), kept, k, by_image=by_camera)
    protocol = _protocol(kept, has_own_Q)
    metrics = compare_accuracies(own, mixed, has_own_Q, kept.label_Q, protocol)
    if by_camera:
        metrics |= compare_average_precision([before, after, (before[0], after[1])], kept)
    right_before_Q, right_after_Q = own.right_before_Q[has_own_Q], own.right_after_Q[has_own_Q]
    checks = (
        *numbers,
        *check_answers(own, mixed, k, limits),
        *check_change(metrics, right_before_Q, right_after_Q, kept.label_Q[has_own_Q], limits),
        *check_threshold(own, mixed, far),
    )
    return Acceptance(limits, checks, _flips(own, kept, label_N), worst, cosine_N, cosine_Q, metrics, protocol)


def describe_protocol(
    reference_labels: ArrayLike,
    query_labels: ArrayLike,
    reference_cameras: ArrayLike | None = None,
    query_cameras: ArrayLike | None = None,
) -> str:
    """Returns the protocol line of `accept` before anything is embedded.

    Raises:
        ValueError: labels or cameras that do not fit each other.
    """
    label_N, label_Q = (np.asarray(labels, dtype=object) for labels in (reference_labels, query_labels))
    label_N = read_labels(label_N, None, "reference_labels")
    label_Q = read_labels(label_Q, None, "query_labels")
    kept = read_kept(label_N, label_Q, reference_cameras, query_cameras, None, None)
    num_kept_Q, num_own_Q = kept.count()
    asked_Q = num_kept_Q > 0
    return _protocol(kept.of_queries(asked_Q), num_own_Q[asked_Q] > 0)


def _check_shapes(
    reference_ND: np.ndarray, query_QD: np.ndarray, exported_reference_ND: np.ndarray, exported_query_QD: np.ndarray
) -> None:
    for side, first, second in (
        ("reference", reference_ND, exported_reference_ND),
        ("query", query_QD, exported_query_QD),
    ):
        if np.shape(first) != np.shape(second) or np.ndim(first) != 2 or not len(first):
            raise ValueError(
                f"{side} embeddings by torch and by the export must have the same rows and width, at least one row; found shapes "
                f"{np.shape(first)} and {np.shape(second)}: embed the same catalog with both"
            )
    if reference_ND.shape[1] != query_QD.shape[1]:
        raise ValueError(
            f"references and queries must come from one model: widths {reference_ND.shape[1]} and {query_QD.shape[1]}"
        )


def _worst(
    cosine_N: np.ndarray, cosine_Q: np.ndarray, label_N: np.ndarray, label_Q: np.ndarray, num_worst: int
) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"side": side, "row": np.arange(len(labels)), "label": labels, "cosine": cosine})
        for side, labels, cosine in (("query", label_Q, cosine_Q), ("reference", label_N, cosine_N))
    ]
    ordered = pd.concat(parts).sort_values("cosine", kind="stable", na_position="first")
    return ordered.head(num_worst).reset_index(drop=True)


def _flips(own: Answers | None, kept: Kept, label_N: np.ndarray) -> pd.DataFrame:
    columns = ["query", "nearest_before", "nearest_after", "label_before", "label_after", "label_changes", "margin"]
    if own is None:
        return pd.DataFrame(columns=columns)
    flipped = np.flatnonzero(own.margin_Q > TIED)
    flipped = flipped[np.argsort(-own.margin_Q[flipped], kind="stable")]
    first, second = kept.row_N[own.nearest_before_Q[flipped]], kept.row_N[own.nearest_after_Q[flipped]]
    values = (kept.row_Q[flipped], first, second, label_N[first], label_N[second], own.label_changes_Q[flipped])
    return pd.DataFrame(dict(zip(columns, (*values, own.margin_Q[flipped]), strict=True)))


def _protocol(kept: Kept, has_own_Q: np.ndarray) -> str:
    rule = "own label in own camera left out; " if kept.camera_N is not None else ""
    rule += "own photograph left out; " if kept.source_N is not None else ""
    return (
        f"exported against torch, paired by query; nearest row by cosine, ties: expected; {rule}{len(kept.row_Q):,} queries of "
        f"{len(np.unique(kept.label_Q)):,} labels, {int((~has_own_Q).sum()):,} without a row of their label; "
        f"{len(kept.row_N):,} rows of {len(np.unique(kept.label_N)):,} labels"
    )
