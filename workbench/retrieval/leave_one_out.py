"""Each image of a set searches all the others: Recall@K, R-precision and MAP@R, as metric learning publishes them.

Axes: N images, Q images that are asked (their label has another image), B of a block, P pairs of an asked image and another one
of its label, T groups of equally similar images that hold such a pair, K numbers of first places.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.intervals import Average, class_means, interval_of_class_means
from workbench.retrieval.leave_one_out_protocol import LeaveOneOutProtocol
from workbench.retrieval.mistakes import Answers, GroupMistakes, class_table, compare_groups, confusion_table
from workbench.retrieval.reid_ranking import Block, Search, count_nearer
from workbench.retrieval.reid_values import cumulative_match
from workbench.retrieval.similarities import CosineSimilarity
from workbench.retrieval.stats import Metric


@dataclass(frozen=True)
class LeaveOneOutResult:
    """What was found among the others.

    Attributes:
        protocol: the protocol that was followed.
        metrics: "recall@K/micro" and "/macro" for every K of protocol.top, "R-precision/..." and "MAP@R/...": micro is the mean
            over images (as published), macro the mean over labels.
        predictions: a row for each image that was asked: query (row as given), label, absent (False), predicted (label of the
            nearest other image; of equally near ones the first by label), similarity (to it), reference (its row), correct
            (recall@1: where images tie, the expected value).
        per_class: `mistakes.class_table`.
        confusions: `mistakes.confusion_table`.
        num_absent_queries: images that are alone under their label, which were not asked.
        hits: by metric name without the average, float32 [1, Q], 0 to 1, for `stats.paired_difference`.
        hit_labels: label of each column of hits; hit_queries: its row as given.
        chance: see `chance_leave_one_out`.
    """

    protocol: LeaveOneOutProtocol
    metrics: dict[str, Metric]
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    confusions: pd.DataFrame
    num_absent_queries: int
    hits: dict[str, np.ndarray]
    hit_labels: np.ndarray
    hit_queries: np.ndarray
    chance: dict[str, Metric]
    _answers: Answers = field(repr=False)
    _names: np.ndarray = field(repr=False)

    @property
    def measures(self) -> tuple[str, ...]:
        """Returns what is compared with another embedder, without the average."""
        return ("recall@1", "MAP@R")

    @property
    def measure(self) -> str:
        """Returns the one of the headline."""
        return "recall@1"

    def group_mistakes(self, groups: Mapping[str, str]) -> GroupMistakes:
        """Returns accuracy at group level and the share of mistakes within a group, see `GroupMistakes`.

        Args:
            groups: the group of each label.

        Raises:
            ValueError: a label has no group.
        """
        class_Q = np.searchsorted(self._names, self.hit_labels)
        correct = {"all": self._answers.credit(np.arange(len(self._names)), class_Q)}
        line = {"all": self.protocol.describe()}
        return compare_groups({"all": self._answers}, correct, class_Q, self._names, groups, line, "all")


def evaluate_leave_one_out(
    embedding_ND: np.ndarray, labels: ArrayLike, protocol: LeaveOneOutProtocol | None = None
) -> LeaveOneOutResult:
    """Returns how well each image finds its label among all the other images.

    Recall@K is the share of images among whose first K others at least one has their label (image level). With R other images
    of its label, an image's R-precision is the share of its first R that have its label, and MAP@R is (P(1) + ... + P(R)) / R, where
    P(i) is the precision among its first i if the i-th has its label, else 0.

    An image is left out by its row: a copy of it in another row is searched like any other. Where others are equally similar
    every number is its mean over all orders of these. Blocks of images are compared with all, so that N x N numbers never exist.

    Args:
        embedding_ND: real numbers, any scale, rows not zero.
        labels: [N], text or numbers, read as text.
        protocol: the conventions; None is `LeaveOneOutProtocol()`.

    Raises:
        ValueError: fewer than two images, rows that are not finite or zero, missing labels, an image alone under its label
            (absent_queries "error"), or no label with two images.
    """
    protocol = protocol or LeaveOneOutProtocol()
    image_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    label_N = read_labels(labels, len(image_ND), "labels")
    names, class_N = np.unique(label_N, return_inverse=True)
    count_C = np.bincount(class_N, minlength=len(names))
    asked_Q = np.flatnonzero(count_C[class_N] > 1)
    num_alone = len(image_ND) - len(asked_Q)
    alone = f"{num_alone:,} of {len(image_ND):,} images are alone under their label, such as {', '.join(names[count_C == 1][:5])}"
    if not len(asked_Q):
        raise ValueError(f"no label has two images, so that none can be found among the others: {alone}")
    if num_alone and protocol.absent_queries == "error":
        raise ValueError(f'{alone}: nothing can be found for them; add images, or set absent_queries to "skip"')
    class_Q = class_N[asked_Q]
    search = Search(CosineSimilarity(image_ND[asked_Q], image_ND), class_Q, class_N, asked_Q, np.arange(len(image_ND)))
    values, nearest, tied = [], [], []
    for block in search.blocks():
        values.append(_values(*_ties(block), np.array(protocol.top)))
        row_B, similarity_B, tied_M2 = _nearest(block, class_N)
        nearest.append((row_B, similarity_B))
        tied.append(tied_M2 + np.array([block.start, 0]))
    value_MQ = np.concatenate(values, axis=1)
    row_Q, similarity_Q = (np.concatenate(part) for part in zip(*nearest, strict=True))
    tied_M2 = np.concatenate(tied)
    answers = Answers(class_N[row_Q][None].astype(np.int32), np.insert(tied_M2, 0, 0, axis=1))
    measures = _measures(protocol)
    predictions = pd.DataFrame(
        {
            "query": asked_Q,
            "label": names[class_Q].astype(str),
            "absent": False,
            "predicted": names[class_N[row_Q]].astype(str),
            "similarity": similarity_Q.astype(np.float64),
            "reference": row_Q,
            "correct": value_MQ[0],
        }
    )
    confusions = confusion_table(predictions)
    others = dict(zip(names.tolist(), (count_C - 1).tolist(), strict=True))
    return LeaveOneOutResult(
        protocol,
        _metrics(protocol, value_MQ, class_Q, len(names), num_alone),
        predictions,
        class_table(value_MQ[:1], names[class_Q], others, confusions),
        confusions,
        num_alone,
        {name: value_Q[None].astype(np.float32) for name, value_Q in zip(measures, value_MQ, strict=True)},
        names[class_Q],
        asked_Q,
        chance_leave_one_out(label_N, protocol),
        answers,
        names,
    )


def chance_leave_one_out(labels: ArrayLike, protocol: LeaveOneOutProtocol | None = None) -> dict[str, Metric]:
    """Returns what a random order of the others gives, by name, such as `chance/recall@1/micro`: all others tie.

    Exact, so that the interval has no width. Images alone under their label are left out, as they are not asked.

    Args:
        labels: [N].
        protocol: as of the result beside it.
    """
    protocol = protocol or LeaveOneOutProtocol()
    class_N = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)[1]
    count_C = np.bincount(class_N)
    right_B = count_C[count_C > 1] - 1
    zero_B = np.zeros_like(right_B)
    value_MB = _values(np.arange(len(right_B)), zero_B, zero_B + len(class_N) - 1, right_B, np.array(protocol.top))
    means = {"micro": value_MB @ (right_B + 1) / (right_B + 1).sum(), "macro": value_MB.mean(axis=1)}
    line = f"expected over all orders of the {len(class_N) - 1:,} other images; exact, so the interval has no width"
    return {
        f"chance/{name}/{average}": Metric(value, value, value, int((right_B + 1).sum()), line)
        for average, values in means.items()
        for name, value in zip(_measures(protocol), values.tolist(), strict=True)
    }


def _measures(protocol: LeaveOneOutProtocol) -> list[str]:
    return [*(f"recall@{k}" for k in protocol.top), "R-precision", "MAP@R"]


def _ties(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row_T, nearer_T, tied_T, right_T) of the groups of equally similar images that hold a right one, nearest first."""
    nearer_P, tied_P = count_nearer(block)
    row_P, value_P = block.row_P, block.value_P
    opens = np.flatnonzero(np.r_[True, (row_P[1:] != row_P[:-1]) | (value_P[1:] != value_P[:-1])])
    return row_P[opens], nearer_P[opens], tied_P[opens], np.diff(np.r_[opens, len(row_P)])


def _values(
    row_T: np.ndarray, nearer_T: np.ndarray, tied_T: np.ndarray, right_T: np.ndarray, top_K: np.ndarray
) -> np.ndarray:
    """Returns float64 [K + 2, B]: Recall@K, R-precision and MAP@R of each image, whose groups stand together, nearest first.

    Of t tied images behind n nearer ones, r are right and h right ones are nearer. Over all orders of these, place n + j is right
    with probability r / t, and h + (j - 1) (r - 1) / (t - 1) right ones then stand before it.

    Args:
        row_T: int64, the image of each group, 0 to B-1, ascending; each has a group.
        nearer_T: others that are nearer than the group.
        tied_T: others in it.
        right_T: right ones in it, at least 1.
        top_K: the K of Recall@K.
    """
    start_B = np.flatnonzero(np.r_[True, row_T[1:] != row_T[:-1]])
    num_B = np.add.reduceat(right_T, start_B)
    before_T = np.cumsum(right_T) - right_T - (np.cumsum(num_B) - num_B)[row_T]
    within_T = np.clip(num_B[row_T] - nearer_T, 0, tied_T)  # places of the group that are among the first R
    follow_T = (right_T - 1) / np.maximum(tied_T - 1, 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, num_B.max() + 1))])
    first_T = np.minimum(nearer_T, num_B.max())  # beyond it no place counts
    inverse_T = harmonic[first_T + within_T] - harmonic[first_T]
    precision_T = (before_T + 1 - follow_T * (nearer_T + 1)) * inverse_T + follow_T * within_T
    recall_KB = cumulative_match(np.stack([nearer_T, tied_T, right_T], axis=1)[start_B], top_K, "expected")
    at_r = [np.add.reduceat(right_T / tied_T * part_T, start_B) / num_B for part_T in (within_T, precision_T)]
    return np.concatenate([recall_KB, at_r])


def _nearest(block: Block, class_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row_B, similarity_B, tied_M2): the nearest other image; of those that tie the first by label, then by row.

    tied_M2 holds (image of the block, class) for every class that shares the first place with another.
    """
    row_B = block.similarity_BG.argmax(axis=1)
    similarity_B = block.similarity_BG[np.arange(len(row_B)), row_B]
    is_nearest_BN = block.similarity_BG == similarity_B[:, None]
    several = np.flatnonzero(np.count_nonzero(is_nearest_BN, axis=1) > 1)
    place, found = np.nonzero(is_nearest_BN[several])
    order = np.lexsort((found, class_N[found], place))
    place, found = place[order], found[order]
    row_B[several] = found[np.flatnonzero(np.r_[True, place[1:] != place[:-1]])] if len(place) else several
    shared = np.unique(np.stack([several[place], class_N[found]], axis=1), axis=0)
    return row_B, similarity_B, shared[np.bincount(shared[:, 0], minlength=1)[shared[:, 0]] > 1]


def _metrics(
    protocol: LeaveOneOutProtocol, value_MQ: np.ndarray, class_Q: np.ndarray, num_labels: int, num_alone: int
) -> dict[str, Metric]:
    mean_MC, count_C = class_means(value_MQ, class_Q)
    line = (
        f"{protocol.describe()}; {len(class_Q) + num_alone:,} images of {num_labels:,} labels, {num_alone:,} not asked"
    )
    metrics: dict[str, Metric] = {}
    intervals = {
        average: interval_of_class_means(mean_MC[:, None], count_C, average, num_replicates=protocol.num_replicates)
        for average in get_args(Average)
    }
    for row, name in enumerate(_measures(protocol)):
        level = ", image level (any of the first images)" if name.startswith("recall") else ""
        for average, words in (("micro", "mean over images"), ("macro", "mean over labels")):
            value, low, high, doubt = (array[row].item() for array in intervals[average])
            said = f"{line}; {name}{level}; {average}: {words}"
            metrics[f"{name}/{average}"] = Metric(value, low, high, len(class_Q), said, doubt)
    return metrics
