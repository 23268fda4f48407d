"""The same embeddings under every convention: how far a number moves before any model is better.

Axes: N reference rows, Q queries, G gallery rows, D draws (of vectors: the width). A table has a row for each convention and metric:
convention (what differs from the headline, in words), metric, value, low, high (95 %), n (queries), difference_points (value less
the headline's value of that metric, in percentage points), difference_low, difference_high (paired interval, only where the
same queries and draws are answered differently by another vote), is_headline, protocol (one line), note. A convention that
gives no number has NaN there, n = 0, and its note says why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import read_labels
from workbench.retrieval.draws import choose_queries
from workbench.retrieval.few_shot import FewShotProtocol, FewShotResult, evaluate_few_shot
from workbench.retrieval.intervals import Average
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_values import Ties
from workbench.retrieval.stats import Metric, cluster_interval, paired_difference

VOTES = ("nearest", "prototype", "kmeans:3", "knn:5", "softmax_knn:20")
QUERIES_PER_CLASS = 180
"""NVIDIA Retail Object Recognition asks so many of each class."""

_CLASS_LEVEL = {"accuracy@1": "accuracy@1", "accuracy@5": "accuracy@5"}
_IMAGE_LEVEL = {"accuracy@5": "image_accuracy@5"}


@dataclass(frozen=True)
class _Answer:
    """One convention's numbers by metric; differences from the headline's where queries and draws are the same."""

    metrics: dict[str, Metric]
    differences: dict[str, Metric] = field(default_factory=dict)
    note: str = ""


def few_shot_conventions(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray,
    query_labels: ArrayLike,
    protocol: FewShotProtocol,
    reference_source_N: np.ndarray | None = None,
) -> pd.DataFrame:
    """Returns accuracy@1 and @5 at the headline shots under the protocol, and with one convention after another changed.

    Changed are: the mean (over labels instead of queries), the level of the first five (any of the first photographs instead
    of distinct labels, vote nearest alone), the vote, the number of queries per label (180, or all), and, where queries
    have a label without a reference, what becomes of them. A vote costs an evaluation; the others read the headline's answers.

    Args:
        reference_ND: as for `evaluate_few_shot`.
        reference_labels: [N].
        query_ND: as reference_ND.
        query_labels: [Q].
        protocol: the headline's conventions.
        reference_source_N: as for `evaluate_few_shot`.

    Raises:
        ValueError: no convention gives a number; the headline's reason.

    Source: PROTOCOLS, few-shot gallery recognition.
    """
    head = replace(protocol, shots=(protocol.headline,), headline_shots=None, top=(1, 5))
    labels_Q = read_labels(query_labels, len(query_ND), "query_labels")
    labels_N = read_labels(reference_labels, len(reference_ND), "reference_labels")
    found: dict[FewShotProtocol, FewShotResult] = {}

    def asked(changed: FewShotProtocol) -> FewShotResult:
        # All queries answer for some of them too; another vote is asked the headline's alone.
        whole = replace(changed, queries_per_class=None) if changed.vote == head.vote else changed
        if whole not in found:
            found[whole] = evaluate_few_shot(
                reference_ND, reference_labels, query_ND, query_labels, whole, reference_source_N
            )
        return found[whole]

    def answer(changed: FewShotProtocol, **how: Any) -> _Answer:
        return _Answer(_accuracy(asked(changed), changed, labels_Q, **how))

    def other_vote(vote: str) -> _Answer:
        first, second = asked(head), asked(replace(head, vote=vote))
        return replace(answer(replace(head, vote=vote)), differences=_paired(first, second, head, labels_Q))

    cases = {
        "headline": partial(answer, head),
        "mean over labels (macro)": partial(answer, head, average="macro"),
    }
    if head.vote == "nearest":
        cases["image level"] = partial(answer, head, names=_IMAGE_LEVEL)
    cases |= {f"vote {vote}": partial(other_vote, vote) for vote in VOTES if vote != head.vote}
    if head.queries_per_class is not None:
        cases["all queries"] = partial(answer, replace(head, queries_per_class=None))
    else:
        few = replace(head, queries_per_class=QUERIES_PER_CLASS)
        cases[f"at most {QUERIES_PER_CLASS} queries per label"] = partial(answer, few)
    if not np.isin(labels_Q, labels_N).all():
        skipping = replace(head, absent_queries="skip") if head.absent_queries == "error" else head
        if skipping != head:
            cases["absent labels left out"] = partial(answer, skipping)
        cases["absent labels count as wrong"] = partial(answer, skipping, absent_wrong=True)
    return _table(cases, ("accuracy@1", "accuracy@5"))


def reid_conventions(
    query_ND: ArrayLike,
    gallery_ND: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
) -> pd.DataFrame:
    """Returns mAP and rank-1 under the protocol, and with one convention after another changed.

    Changed are: step or trapezoid average precision, queries without a match, the junk rule, the order of ties, the mean over
    queries or individuals. Each costs an evaluation (without TAR). A difference of 0 is a result: this convention does not
    explain why two groups disagree.

    Args:
        query_ND: as for `evaluate_reid`, like the others.
        gallery_ND: the same width.
        query_labels: [Q].
        gallery_labels: [G].
        query_cameras: may be None; the junk rule by cameras then gives no number, and its row says so.
        gallery_cameras: the same.
        protocol: the headline's conventions.

    Raises:
        ValueError: no convention gives a number; the headline's reason.

    Source: PROTOCOLS, re-identification.
    """
    head = replace(protocol, ranks=(1,), far=())

    def answer(changed: ReidProtocol) -> _Answer:
        result = evaluate_reid(
            query_ND, gallery_ND, query_labels, gallery_labels, query_cameras, gallery_cameras, changed
        )
        return _Answer({name: result.metrics[name] for name in ("mAP", "rank-1")})

    every = {
        "step average precision": replace(head, average_precision="step"),
        "trapezoid average precision": replace(head, average_precision="trapezoid"),
        **{f"ties {ties}": replace(head, ties=ties) for ties in get_args(Ties)},
        "queries without a match left out": replace(head, unmatched="skip"),
        "queries without a match count as 0": replace(head, unmatched="zero"),
        "mean over queries": replace(head, average="query"),
        "mean over individuals": replace(head, average="identity"),
        "same camera is junk": replace(head, junk="same_id_same_camera"),
        "no junk rule": replace(head, junk="none"),
    }
    cases = {"headline": partial(answer, head)}
    cases |= {name: partial(answer, changed) for name, changed in every.items() if changed != head}
    return _table(cases, ("mAP", "rank-1"))


def _chosen(result: FewShotResult, protocol: FewShotProtocol, labels_Q: np.ndarray) -> np.ndarray:
    """Returns, bool, the columns of the hits that the protocol asks: it may ask fewer than were evaluated."""
    return np.isin(result.hit_queries, choose_queries(labels_Q, protocol.queries_per_class, protocol.seed))


def _accuracy(
    result: FewShotResult,
    protocol: FewShotProtocol,
    labels_Q: np.ndarray,
    average: Average = "micro",
    names: Mapping[str, str] = _CLASS_LEVEL,
    absent_wrong: bool = False,
) -> dict[str, Metric]:
    shots, chosen = protocol.headline, _chosen(result, protocol, labels_Q)
    absent = np.setdiff1d(choose_queries(labels_Q, protocol.queries_per_class, protocol.seed), result.hit_queries)
    labels = np.concatenate([result.hit_labels[chosen], labels_Q[absent] if absent_wrong else []])
    words = {"micro": "micro: mean over queries", "macro": "macro: mean over labels"}[average]
    if len(absent):
        words += f"; {len(absent)} queries of absent labels {'count as wrong' if absent_wrong else 'not counted'}"
    metrics = {}
    for metric, name in names.items():
        correct_DQ = result.hits[f"{name}/shots={shots}"][:, chosen]
        if absent_wrong:
            correct_DQ = np.hstack([correct_DQ, np.zeros((len(correct_DQ), len(absent)), np.float32)])
        level = (
            "image level (any of the first photographs)"
            if name.startswith("image")
            else "class level (distinct labels)"
        )
        metrics[metric] = cluster_interval(
            correct_DQ,
            labels,
            average,
            protocol=f"{protocol.describe(shots)}; {metric}, {level}; {words}",
            num_replicates=protocol.num_replicates,
        )
    return metrics


def _paired(
    first: FewShotResult, second: FewShotResult, protocol: FewShotProtocol, labels_Q: np.ndarray
) -> dict[str, Metric]:
    """Returns the second vote's numbers less the first's; none where every answer is the same."""
    chosen = _chosen(first, protocol, labels_Q)
    differences = {}
    for metric in _CLASS_LEVEL:
        before, after = (one.hits[f"{metric}/shots={protocol.headline}"] for one in (first, second))
        if not np.array_equal(before[:, chosen], after):
            differences[metric] = paired_difference(
                after, before[:, chosen], second.hit_labels, num_replicates=protocol.num_replicates
            )
    return differences


def _table(cases: Mapping[str, Callable[[], _Answer]], metrics: tuple[str, ...]) -> pd.DataFrame:
    """Returns the rows, metric after metric; the first case is the headline. What fails as the headline does is told there."""
    answers: dict[str, _Answer] = {}
    reasons: dict[str, str] = {}
    for name, case in cases.items():
        try:
            answers[name] = case()
        except ValueError as error:
            reasons[name] = str(error)
    if not answers:
        raise ValueError(next(iter(reasons.values())))
    headline = next(iter(cases))
    alike = [name for name, reason in reasons.items() if name != headline and reason == reasons.get(headline)]
    for name, reason in reasons.items():
        more = f"; {len(alike)} further conventions fail alike" if name == headline and alike else ""
        answers[name] = _Answer({}, note=f"no number: {reason}{more}")
    rows = []
    for metric in metrics:
        base = answers[headline].metrics.get(metric)
        for name in cases:
            number, difference = answers[name].metrics.get(metric), answers[name].differences.get(metric)
            if name in alike or (number is None and answers[name].metrics):  # the latter does not concern this metric
                continue
            shown = number or Metric(np.nan, np.nan, np.nan, 0, "")
            rows.append(
                {
                    "convention": name,
                    "metric": metric,
                    **{column: getattr(shown, column) for column in ("value", "low", "high", "n")},
                    "difference_points": 100 * (shown.value - base.value) if base else np.nan,
                    "difference_low": 100 * difference.low if difference else np.nan,
                    "difference_high": 100 * difference.high if difference else np.nan,
                    "is_headline": name == headline,
                    "protocol": shown.protocol,
                    "note": answers[name].note,
                }
            )
    return pd.DataFrame(rows)
