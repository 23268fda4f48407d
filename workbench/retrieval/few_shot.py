"""Few-shot recognition by a gallery: accuracy when each label is known from k reference photographs.

Axes: N reference rows, P photographs, Q queries, C classes (labels of the gallery), D draws (of vectors: the width).
Labels are coded in int64 before anything is computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.draws import choose_queries, draw_ranks, order_references
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.intervals import class_means, interval_of_class_means
from workbench.retrieval.mistakes import (
    Answers,
    GroupMistakes,
    class_table,
    compare_groups,
    confusion_table,
    nearest_of_class,
)
from workbench.retrieval.stats import Metric
from workbench.retrieval.sweep import num_shots, sweep
from workbench.retrieval.tally import Tally

__all__ = ["FewShotProtocol", "FewShotResult", "evaluate_few_shot"]


@dataclass(frozen=True)
class FewShotResult:
    """What an evaluation found.

    Attributes:
        protocol: the protocol that was followed.
        metrics: `accuracy@K/shots=k/micro` and `/macro` at class level for every K of protocol.top, and for vote "nearest"
            and K above 1 `image_accuracy@K/shots=k/...` (photographs; the other votes order no images). "shots=all" for all.
        predictions: a row a query that was asked, headline shots, draw 0: query (row as given), label, absent, predicted,
            similarity (to the predicted label: its nearest reference or centre), second_label, second_similarity (NaN with one
            label), reference (row of the nearest one of the predicted label), correct (0 to 1: where labels tie, the
            expected value, and predicted is the first of them by label; NaN for absent).
        per_class: `mistakes.class_table`.
        confusions: `mistakes.confusion_table`.
        num_short_classes: by shots ("1", "all"), how many labels have fewer references.
        num_absent_queries: queries whose label is not in the gallery (skipped, or kept for the open set).
        hits: by metric name without the average ("accuracy@1/shots=5"), float32 [D, Q], 0 to 1, of the present queries, for
            `stats.paired_difference`; with "all" D is 1.
        hit_labels: label of each column of hits; hit_queries: its row as given.
    """

    protocol: FewShotProtocol
    metrics: dict[str, Metric]
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    confusions: pd.DataFrame
    num_short_classes: dict[str, int]
    num_absent_queries: int
    hits: dict[str, np.ndarray]
    hit_labels: np.ndarray
    hit_queries: np.ndarray
    _answers: dict[str, Answers] = field(repr=False)
    _names: np.ndarray = field(repr=False)

    @property
    def measures(self) -> tuple[str, ...]:
        """Returns what is compared with another embedder, without the average: accuracy@1 for all shots."""
        return tuple(f"accuracy@1/shots={shots}" for shots in self.protocol.shots)

    @property
    def measure(self) -> str:
        """Returns the one of the headline shots."""
        return f"accuracy@1/shots={self.protocol.headline}"

    def group_mistakes(self, groups: Mapping[str, str]) -> GroupMistakes:
        """Returns accuracy at group level and the share of mistakes within a group, see `GroupMistakes`.

        Args:
            groups: the group of each label, for every label of the gallery.

        Raises:
            ValueError: a label of the gallery has no group.
        """
        class_Q = np.searchsorted(self._names, self.hit_labels)
        correct = {str(shots): self.hits[f"accuracy@1/shots={shots}"] for shots in self.protocol.shots}
        lines = {str(shots): self.protocol.describe(shots) for shots in self.protocol.shots}
        headline = str(self.protocol.headline)
        return compare_groups(self._answers, correct, class_Q, self._names, groups, lines, headline)


def evaluate_few_shot(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray,
    query_labels: ArrayLike,
    protocol: FewShotProtocol,
    reference_source_N: np.ndarray | None = None,
) -> FewShotResult:
    """Returns the accuracy of a gallery with its intervals, and the tables of its mistakes.

    Equal similarities (a photograph filed under two labels) are never ordered: a hit is its expected value. Equal
    reference vectors are compared with a query once, so that they tie to the bit. Labels with fewer than k photographs keep what they
    have and are counted; k may be larger than every label's number.

    Shuffling queries or classes changes nothing (with queries_per_class: as long as the order within a label stays).
    Shuffling the references changes nothing if reference_source_N is shuffled with them; without it a row's place within
    its label is its number, and another order within a label gives other draws (but the same for shots "all").

    Args:
        reference_ND: real numbers, any scale, rows not zero; a photograph or an augmented copy a row.
        reference_labels: [N], text or numbers, read as text ("007" is not "7").
        query_ND: as reference_ND, of the same width.
        query_labels: [Q].
        protocol: the conventions; see `FewShotProtocol`. A query whose label has no reference is an error, is skipped, or
            under "open_set" stays in `predictions` (absent True, correct NaN, with the similarities of the best two labels,
            for the open-set evaluation) and counts in no accuracy.
        reference_source_N: integer, the photograph that each row comes from; needed with augmented copies. Draws choose
            photographs, the copies follow, and a photograph is as near as the nearest of its rows.

    Raises:
        ValueError: no references or queries, widths or lengths that differ, a row that is not finite or zero, a label that is
            missing, a query of an absent label (absent_queries "error"), source numbers that contradict labels or protocol.

    Source: nearest reference image for k references: NVIDIA Retail Object Recognition (model card); one reference with
    augmented copies: RetailKLIP (Srivastava 2023).
    """
    reference_ND, query_ND = (
        normalise(reference_ND, "reference_ND", dtype=np.float32),
        normalise(query_ND, "query_ND", dtype=np.float32),
    )
    for name, rows in (("reference_ND", reference_ND), ("query_ND", query_ND)):
        if not len(rows):
            raise ValueError(f"{name} is empty: at least one row is needed")
    if reference_ND.shape[1] != query_ND.shape[1]:
        raise ValueError(
            f"references and queries must have one width, found {reference_ND.shape[1]} and {query_ND.shape[1]}: were they "
            "embedded by the same embedder?"
        )
    labels_N = read_labels(reference_labels, len(reference_ND), "reference_labels")
    labels_Q = read_labels(query_labels, len(query_ND), "query_labels")
    references = order_references(reference_ND, labels_N, reference_source_N, protocol.reference_augmentations)
    del reference_ND  # the ordered copy is enough
    asked_Q = choose_queries(labels_Q, protocol.queries_per_class, protocol.seed)
    absent_Q = ~np.isin(labels_Q[asked_Q], references.names)
    num_absent = int(absent_Q.sum())
    if num_absent and protocol.absent_queries == "error":
        missing = np.unique(labels_Q[asked_Q][absent_Q])
        raise ValueError(
            f"{num_absent} queries have a label without a reference, among them {', '.join(missing[:5])}: add references, "
            'or set absent_queries to "skip" or "open_set"'
        )
    if absent_Q.all():
        raise ValueError("no query has its label among the references: are the labels of both written the same way?")
    if protocol.absent_queries == "skip":
        asked_Q, absent_Q = asked_Q[~absent_Q], absent_Q[~absent_Q]
    class_Q = np.where(absent_Q, 0, np.searchsorted(references.names, labels_Q[asked_Q]))
    query_QD = query_ND if len(asked_Q) == len(query_ND) else query_ND[asked_Q]
    del query_ND
    rank_DP = draw_ranks(references.class_P, references.names, protocol.draws, protocol.seed)
    tally = Tally(protocol, references, rank_DP, class_Q, absent_Q)
    for step in sweep(protocol, references, query_QD, rank_DP, class_Q):
        tally.add(step)

    shots = protocol.headline
    used_N = (rank_DP[0] < num_shots(shots, references))[references.photo_N]
    labels_Q = labels_Q[asked_Q]
    predicted_Q = tally.predicted[str(shots)][0]
    correct_Q = np.where(absent_Q, np.nan, tally.hits[f"accuracy@1/shots={shots}"][0].astype(np.float64))
    predictions = pd.DataFrame(
        {
            "query": asked_Q,
            "label": labels_Q.astype(str),
            "absent": absent_Q,
            "predicted": references.names[predicted_Q].astype(str),
            "similarity": tally.similarity_2Q[0],
            "second_label": pd.Series([None if c < 0 else references.names[c] for c in tally.second_Q], dtype="str"),
            "second_similarity": tally.similarity_2Q[1],
            "reference": nearest_of_class(references, query_QD, predicted_Q, used_N),
            "correct": correct_Q,
        }
    )
    hits = {name: values[:, ~absent_Q] if absent_Q.any() else values for name, values in tally.hits.items()}
    num_short = {str(k): 0 if k == "all" else int((references.num_photos_C < k).sum()) for k in protocol.shots}
    confusions = confusion_table(predictions)
    in_gallery = np.minimum(references.num_photos_C, num_shots(shots, references))
    per_class = class_table(
        hits[f"accuracy@1/shots={shots}"],
        labels_Q[~absent_Q],
        dict(zip(references.names, in_gallery.tolist(), strict=True)),
        confusions,
    )
    return FewShotResult(
        protocol,
        _metrics(protocol, hits, class_Q[~absent_Q], num_short, len(references.names), num_absent),
        predictions,
        per_class,
        confusions,
        num_short,
        num_absent,
        hits,
        labels_Q[~absent_Q],
        asked_Q[~absent_Q],
        {key: tally.answers(key) for key in tally.predicted},
        references.names,
    )


def _metrics(
    protocol: FewShotProtocol,
    hits: Mapping[str, np.ndarray],
    class_Q: np.ndarray,
    num_short: Mapping[str, int],
    num_classes: int,
    num_absent: int,
) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    means = [class_means(values, class_Q) for values in hits.values()]
    mean_MDC = np.stack([np.broadcast_to(mean_DC, (protocol.draws, mean_DC.shape[1])) for mean_DC, _ in means])
    intervals = {
        "micro": interval_of_class_means(mean_MDC, means[0][1], "micro", num_replicates=protocol.num_replicates),
        "macro": interval_of_class_means(mean_MDC, means[0][1], "macro", num_replicates=protocol.num_replicates),
    }
    lines = {str(shots): protocol.describe(shots) for shots in protocol.shots}
    for row, name in enumerate(hits):
        kind, _, shots = name.partition("/shots=")
        level = (
            "image level (any of the first photographs)"
            if kind.startswith("image")
            else "class level (distinct labels)"
        )
        line = f"{lines[shots]}; {kind.replace('_', ' ')}, {level}; {num_classes} labels"
        if num_short[shots]:
            line += f", {num_short[shots]} of them with fewer than {shots} references"
        if num_absent:
            line += f"; {num_absent} queries of absent labels not counted"
        for average, words in (("micro", "mean over queries"), ("macro", "mean over labels")):
            value, low, high, doubt = (array[row].item() for array in intervals[average])
            metrics[f"{name}/{average}"] = Metric(value, low, high, len(class_Q), f"{line}; {average}: {words}", doubt)
    return metrics
