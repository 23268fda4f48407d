"""Open-set recognition: may the answer be *unknown*? Classes leave the gallery and their queries must be refused.

Axes: N rows of the references, Q queries, C classes, S splits, R replicates, G thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.false_accepts import far_name
from workbench.retrieval.held_out import Split, code_groups, hold_out, make_splits, suit_protocol
from workbench.retrieval.open_set_measures import (
    accepted_above,
    bootstrap_weights,
    candidate_thresholds,
    doubt_of_threshold,
    interval_over_splits,
    measure,
    measure_names,
    thin_thresholds,
)
from workbench.retrieval.open_set_protocol import OpenSetProtocol
from workbench.retrieval.open_set_search import Answers, ClassSimilarities, measure_similarities
from workbench.retrieval.stats import Metric

__all__ = ["OpenSetProtocol", "OpenSetResult", "Split", "evaluate_open_set", "suit_protocol"]

KINDS = ("all", "near", "far")
_GUESS = (
    "a random similarity puts a known query above an unknown one half of the time; exact, so the interval has no width"
)


@dataclass(frozen=True)
class OpenSetResult:
    """What an evaluation found.

    Attributes:
        protocol: the protocol that was followed.
        metrics: `open_set/accuracy/known` (nothing refused), and for each kind of unknown queries (all, near, far) that
            occurs `open_set/AUROC/near`, `FPR@TPR=95%`, `OSCR`, `AURC` (both smaller is better) and `DIR@FAR=1%`; a
            guesser's AUROC under `chance/`.
        unresolved: names of metrics at a rate of false accepts below one query; their protocol lines say so too. Their lower
            end is 0.
        curves: a row a point: curve ("DIR": share of known queries accepted with the right answer, against FAR; this is the
            OSCR curve too; or "risk" against coverage), kind, at, value, low, high, n, resolved.
        splits: a row a split: split, classes and queries that are known, near, far and of no group, and the AUROC.
        answers: a row a split and query: split, query (row as given), label, kind, similarity (to the nearest
            reference), margin, statistic, right (0 to 1; an unknown query is never right).
        similarities: of all queries to all classes, for the threshold sheet.
        held_out: the splits.
        group_C: int64, groups of the gallery's classes and of labels that only queries have; -1 for none.
    """

    protocol: OpenSetProtocol
    metrics: dict[str, Metric]
    unresolved: frozenset[str]
    curves: pd.DataFrame
    splits: pd.DataFrame
    answers: pd.DataFrame
    similarities: ClassSimilarities = field(repr=False)
    held_out: tuple[Split, ...] = field(repr=False)
    group_C: np.ndarray = field(repr=False)


def evaluate_open_set(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_QD: np.ndarray,
    query_labels: ArrayLike,
    protocol: OpenSetProtocol | None = None,
    groups: Mapping[str, str] | None = None,
    reference_source_N: np.ndarray | None = None,
) -> OpenSetResult:
    """Returns how well known products are told from unknown ones, from one pass over the similarities.

    Queries of a label without any reference are unknown in every split. References of a class without queries are always in
    the gallery, unless its whole group is held out.

    Args:
        reference_ND: [N, width], real numbers; divided by their length here.
        reference_labels: [N].
        query_QD: [Q, width].
        query_labels: [Q].
        protocol: None is `OpenSetProtocol()`.
        groups: the group (coarse class) of a label, for those that have one; needed for every kind but "random".
        reference_source_N: the photograph that a reference comes from, where it has augmented copies.

    Raises:
        ValueError: see `measure_similarities` and `hold_out`; `suit_protocol` says beforehand what these classes allow.
    """
    protocol = protocol or OpenSetProtocol()
    reference_labels, query_labels = np.asarray(reference_labels, object), np.asarray(query_labels, object)
    names = sorted({str(label) for label in reference_labels})
    asked = {str(label) for label in query_labels}
    hold_out(
        code_groups(names, groups), np.array([name in asked for name in names], bool), protocol
    )  # before the search
    similarities = measure_similarities(
        reference_ND, reference_labels, query_QD, query_labels, protocol, reference_source_N
    )
    group_C = code_groups(similarities.names, groups)
    splits = make_splits(similarities.class_Q, similarities.num_classes, group_C, protocol)
    answers = [similarities.answers(split.gallery_C, split.number, margins=True) for split in splits]
    table = pd.concat(
        [_answer_table(similarities, split, found) for split, found in zip(splits, answers, strict=True)],
        ignore_index=True,
    )
    metrics = {"open_set/accuracy/known": _closed_accuracy(similarities, splits, answers)}
    unresolved: set[str] = set()
    curves, by_split = [], [split.count(similarities.class_Q) for split in splits]
    for kind in KINDS:
        part = _measure_kind(similarities, splits, answers, kind)
        if part is None:
            continue
        metrics |= part.metrics
        metrics[f"chance/open_set/AUROC/{kind}"] = replace(
            part.metrics[f"open_set/AUROC/{kind}"], value=0.5, low=0.5, high=0.5, protocol=_GUESS
        )
        unresolved |= part.unresolved
        curves.append(part.curves)
        for number, value in part.auroc.items():
            by_split[number][f"AUROC {kind}"] = value
    return OpenSetResult(
        protocol,
        metrics,
        frozenset(unresolved),
        pd.concat(curves, ignore_index=True),
        pd.DataFrame(by_split),
        table,
        similarities,
        splits,
        group_C,
    )


@dataclass(frozen=True)
class _Part:
    metrics: dict[str, Metric]
    unresolved: set[str]
    curves: pd.DataFrame
    auroc: dict[int, float]


def _measure_kind(
    similarities: ClassSimilarities, splits: tuple[Split, ...], answers: list[Answers], kind: str
) -> _Part | None:
    protocol, class_Q = similarities.protocol, similarities.class_Q
    weight_RC = bootstrap_weights(len(similarities.names), protocol.num_replicates, protocol.seed)
    chosen = [pair for pair in zip(splits, answers, strict=True) if pair[0].unknown(kind).any()]
    if not chosen:
        return None
    values: list[np.ndarray] = []
    replicates: list[np.ndarray] = []
    used_Q, unknown_Q = np.zeros(len(class_Q), bool), np.zeros(len(class_Q), bool)
    numbers = []
    for split, found in chosen:
        known, unknown = np.flatnonzero(split.kind_Q == "known"), np.flatnonzero(split.unknown(kind))
        x_Q, right_Q = found.statistic_Q, found.right_Q
        every_G = candidate_thresholds([x_Q[known], x_Q[unknown]])
        few_G = thin_thresholds(every_G, x_Q[unknown], x_Q[known])
        for into, threshold_G, code_Q, weight in (
            (values, every_G, np.zeros_like(class_Q), np.ones((1, 1))),
            (replicates, few_G, class_Q, weight_RC),
        ):
            known_RG, right_RG, unknown_RG = (
                weight @ accepted_above(x_Q[rows], amount, code_Q[rows], weight.shape[1], threshold_G)
                for rows, amount in ((known, None), (known, right_Q[known]), (unknown, None))
            )
            into.append(measure(known_RG, right_RG, unknown_RG, protocol.far, protocol.unknown_share))
        used_Q[known] = used_Q[unknown] = unknown_Q[unknown] = True
        numbers.append((len(np.unique(class_Q[unknown])), len(unknown), len(known)))
    least_classes, least_queries, least_known = np.min(numbers, axis=0).tolist()
    most_classes, most_queries, most_known = np.max(numbers, axis=0).tolist()
    all_unknown_classes = len(np.unique(class_Q[unknown_Q]))
    value_M, low_M, high_M = interval_over_splits(
        np.concatenate(values),
        np.stack(replicates),
        least_unknown=least_classes,
        num_unknown=all_unknown_classes,
        num_queries=int(used_Q.sum()),
    )
    line = (
        f"{protocol.describe()}; unknown: {'near and far' if kind == 'all' else kind}, in {len(chosen)} of {len(splits)} "
        f"splits, {_span(least_queries, most_queries)} queries of {_span(least_classes, most_classes)} classes in each "
        f"against {_span(least_known, most_known)} known"
    )
    num_used = int(used_Q.sum())
    metrics: dict[str, Metric] = {}
    unresolved: set[str] = set()
    rows = []
    for name, value, low, high in zip(measure_names(protocol.far), value_M, low_M, high_M, strict=True):
        curve, _, at = name.partition(" ")[2].partition(" ") if name.startswith("curve") else ("", "", "")
        resolved = True
        if curve:
            resolved = curve != "DIR" or least_queries * float(at) >= 1
            rows.append((curve, kind, float(at), value, low if resolved else 0.0, high, num_used, resolved))
            continue
        full, extra = f"open_set/{name}/{kind}", ""
        if name.startswith("DIR"):
            far = next(far for far in protocol.far if far_name(far, "DIR") == name)
            resolved = far * least_queries >= 1
            if not resolved:
                unresolved.add(full)
                low = 0.0
                extra = (
                    f"; NOT RESOLVED: {far:.6g} of {least_queries} unknown queries is less than one, so the threshold is "
                    "merely above all of them and the value too favourable"
                )
        if name == "AURC":
            extra = f"; at {protocol.unknown_share:.0%} unknown queries, which are always wrong when answered"
        doubt = doubt_of_threshold(name, all_unknown_classes)
        metrics[full] = Metric(float(value), float(low), float(high), num_used, line + extra, doubt)
    columns = ["curve", "kind", "at", "value", "low", "high", "n", "resolved"]
    auroc = {split.number: float(found[0, 0]) for (split, _), found in zip(chosen, values, strict=True)}
    return _Part(metrics, unresolved, pd.DataFrame(rows, columns=columns), auroc)


def _closed_accuracy(similarities: ClassSimilarities, splits: tuple[Split, ...], answers: list[Answers]) -> Metric:
    protocol, class_Q = similarities.protocol, similarities.class_Q
    weight_RC = bootstrap_weights(len(similarities.names), protocol.num_replicates, protocol.seed)
    values, replicates, num_classes, used_Q = [], [], [], np.zeros(len(class_Q), bool)
    for split, found in zip(splits, answers, strict=True):
        known = np.flatnonzero(split.kind_Q == "known")
        if not len(known):
            raise ValueError(
                "no query is of a class that stays in the gallery: nothing is known, nothing can be told apart"
            )
        sums = np.bincount(class_Q[known], found.right_Q[known], len(similarities.names))
        counts = np.bincount(class_Q[known], minlength=len(similarities.names))
        values.append([found.right_Q[known].mean()])
        replicates.append(((weight_RC @ sums) / (weight_RC @ counts))[:, None])
        num_classes.append(int((counts > 0).sum()))
        used_Q[known] = True
    value, low, high = interval_over_splits(
        np.array(values),
        np.stack(replicates),
        least_unknown=min(num_classes),
        num_unknown=len(np.unique(class_Q[used_Q])),
        num_queries=int(used_Q.sum()),
    )
    line = f"{protocol.describe()}; known queries only, all of them answered"
    return Metric(float(value[0]), float(low[0]), float(high[0]), int(used_Q.sum()), line)


def _answer_table(similarities: ClassSimilarities, split: Split, found: Answers) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "split": split.number,
            "query": similarities.query_Q,
            "label": similarities.names[similarities.class_Q],
            "kind": split.kind_Q,
            "similarity": found.similarity_Q,
            "margin": found.margin_Q,
            "statistic": found.statistic_Q,
            "right": found.right_Q,
        }
    )


def _span(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
