"""How similar each query is to each class: one pass over the references, then any gallery is a choice of classes.

Axes: N rows of the references, Q queries, C classes of the references, D draws of the references (1 with all of them),
W width, k the nearest references that are kept of each class, B queries of a block.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.draws import References, choose_queries, draw_ranks, order_references
from workbench.retrieval.open_set_protocol import OpenSetProtocol
from workbench.retrieval.similarities import CosineSimilarity
from workbench.retrieval.threshold_choice import Strangers

MOST_BYTES_HELD = 4 * 2**30
_CELLS_A_BLOCK = 16_000_000


@dataclass(frozen=True)
class Answers:
    """What one gallery answers to every query.

    Attributes:
        similarity_Q: float32, to the nearest reference.
        margin_Q: float32, less that of the second class, 0 where two classes tie; NaN in a gallery of one class, or where
            it was not asked for.
        statistic_Q: float32, what is compared with the threshold.
        right_Q: float64, 0 to 1: 1 where the nearest class is the query's, its share where classes tie, 0 where the
            query's class is not in the gallery.
    """

    similarity_Q: np.ndarray
    margin_Q: np.ndarray
    statistic_Q: np.ndarray
    right_Q: np.ndarray


@dataclass(frozen=True)
class ClassSimilarities:
    """The nearest references of each class, for every query.

    Attributes:
        top_DQCk: float32, -1 to 1, the k largest similarities of each class, in no order; -inf where a class has fewer.
        names: object array of str: the C classes of the references first, sorted, then labels that only queries have.
        class_Q: int64, place in names; C and above: no reference of the label.
        query_Q: int64, row of each query as given.
        protocol: statistic, k and shots belong to it.
    """

    top_DQCk: np.ndarray
    names: np.ndarray
    class_Q: np.ndarray
    query_Q: np.ndarray
    protocol: OpenSetProtocol

    @property
    def num_classes(self) -> int:
        """Returns C."""
        return self.top_DQCk.shape[2]

    @property
    def asked_C(self) -> np.ndarray:
        """Returns which classes have queries, bool."""
        return np.bincount(self.class_Q, minlength=len(self.names))[: self.num_classes] > 0

    def answers(self, keep_C: np.ndarray, split: int = 0, *, margins: bool = False) -> Answers:
        """Returns what the gallery of the classes keep_C answers.

        Args:
            keep_C: bool, the classes of the gallery, at least one (two for the statistic "margin").
            split: its draw of the references is searched.
            margins: find the margins even where the statistic does not need them.

        Raises:
            ValueError: too few classes for the statistic.
        """
        statistic, num_queries = self.protocol.statistic, len(self.class_Q)
        kept, own_Q = self._keep(keep_C, self.protocol.least_classes)
        top_QCk = self.top_DQCk[split % len(self.top_DQCk)]
        best_Q, second_Q = np.empty(num_queries, np.float32), np.full(num_queries, np.nan, np.float32)
        mean_Q, right_Q = np.empty(num_queries, np.float32), np.zeros(num_queries)
        margins = (margins or statistic == "margin") and len(kept) > 1
        rows = max(1, _CELLS_A_BLOCK // (4 * top_QCk.shape[1] * top_QCk.shape[2]))
        for start in range(0, num_queries, rows):
            block = slice(start, start + rows)
            top_BCk = top_QCk[block][:, kept]
            best_BC = top_BCk[..., 0] if top_BCk.shape[2] == 1 else top_BCk.max(axis=2)
            best_Q[block] = best_BC.max(axis=1)
            tied_BC = best_BC == best_Q[block, None]
            own_B = own_Q[block]
            found_B = (own_B >= 0) & tied_BC[np.arange(len(own_B)), own_B]
            right_Q[block] = found_B / tied_BC.sum(axis=1)
            if margins:
                second_Q[block] = np.partition(best_BC, len(kept) - 2, axis=1)[:, -2]
            if statistic == "mean_k":
                mean_Q[block] = _mean_of_largest(top_BCk.reshape(len(top_BCk), -1), self.protocol.k)
        margin_Q = best_Q - second_Q
        return Answers(best_Q, margin_Q, {"nearest": best_Q, "margin": margin_Q, "mean_k": mean_Q}[statistic], right_Q)

    def strangers(self, keep_C: np.ndarray, split: int = 0) -> Strangers:
        """Returns what the gallery of the classes keep_C answers to each query without the query's own class.

        Args:
            keep_C: bool, at least two classes (three for the statistic "margin"); queries of other classes are asked as well.
            split: its draw of the references is searched.

        Raises:
            ValueError: too few classes for the statistic.
        """
        kept, own_Q = self._keep(keep_C, self.protocol.least_classes + 1)
        top_QCk = self.top_DQCk[split % len(self.top_DQCk)]
        # the value hangs on so many classes at most; the next one takes the place of one that leaves
        num_rivals = min({"nearest": 1, "margin": 2, "mean_k": self.protocol.k}[self.protocol.statistic] + 1, len(kept))
        value_Q, rival_QJ = np.empty(len(own_Q), np.float32), np.empty((len(own_Q), num_rivals), np.int64)
        without_QJ = np.empty(rival_QJ.shape, np.float32)
        rows = max(1, _CELLS_A_BLOCK // (4 * top_QCk.shape[1] * top_QCk.shape[2]))
        for start in range(0, len(own_Q), rows):
            block = slice(start, start + rows)
            top_BCk, own_B = top_QCk[block][:, kept], own_Q[block]
            there_B = np.flatnonzero(own_B >= 0)
            top_BCk[there_B, own_B[there_B]] = -np.inf
            rival_BJ = np.argpartition(top_BCk.max(axis=2), len(kept) - num_rivals, axis=1)[:, len(kept) - num_rivals :]
            rival_QJ[block] = np.where(rival_BJ == own_B[:, None], -1, kept[rival_BJ])
            top_BJk = np.take_along_axis(top_BCk, rival_BJ[..., None], axis=1)
            value_Q[block] = self._statistic(top_BJk)
            for j in range(num_rivals):
                without_QJ[block, j] = self._statistic(np.delete(top_BJk, j, axis=1))
        return Strangers(value_Q, self.class_Q, rival_QJ, without_QJ)

    def _keep(self, keep_C: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
        """The classes of the gallery, and the place of each query's own among them; -1 where it is not there."""
        kept = np.flatnonzero(keep_C)
        if len(kept) < least:
            raise ValueError(
                f"the statistic {self.protocol.statistic!r} wants at least {least} classes in the gallery, found {len(kept)}"
            )
        place_C = np.full(len(self.names), -1)
        place_C[kept] = np.arange(len(kept))
        return kept, place_C[self.class_Q]

    def _statistic(self, top_BJk: np.ndarray) -> np.ndarray:
        """The statistic of a gallery of J classes; -inf where too few of them have a reference."""
        if self.protocol.statistic == "mean_k":
            return _mean_of_largest(top_BJk.reshape(len(top_BJk), -1), self.protocol.k)
        best_BJ = np.sort(top_BJk.max(axis=2), axis=1)
        if self.protocol.statistic == "nearest":
            return best_BJ[:, -1]
        margin_B = np.full(len(best_BJ), -np.inf, np.float32)
        return np.subtract(best_BJ[:, -1], best_BJ[:, -2], out=margin_B, where=np.isfinite(best_BJ[:, -2]))


def measure_similarities(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_QD: np.ndarray,
    query_labels: ArrayLike,
    protocol: OpenSetProtocol,
    reference_source_N: np.ndarray | None = None,
) -> ClassSimilarities:
    """Returns the similarities of the queries to each class, from one pass; the Q x N matrix exists in blocks only.

    Args:
        reference_ND: [N, width], real numbers; divided by their length here.
        reference_labels: [N].
        query_QD: [Q, width].
        query_labels: [Q]; a label without a reference is unknown in every gallery.
        protocol: statistic, shots, queries_per_class, reference_augmentations, num_splits and seed.
        reference_source_N: integer, the photograph that a row comes from; None: each row is one.

    Raises:
        ValueError: widths differ, no reference or no query, a row that is not finite or has length zero, labels that are
            missing, or more than 4 GiB to hold.
    """
    reference_labels = read_labels(reference_labels, len(reference_ND), "reference_labels")
    query_labels = read_labels(query_labels, len(query_QD), "query_labels")
    if not len(reference_labels) or not len(query_labels):
        raise ValueError(f"references and queries are wanted, found {len(reference_labels)} and {len(query_labels)}")
    reference_ND = normalise(reference_ND, "reference_ND", dtype=np.float32)
    references = order_references(reference_ND, reference_labels, reference_source_N, protocol.reference_augmentations)
    query_Q = choose_queries(query_labels, protocol.queries_per_class, protocol.seed)
    query_QD = normalise(np.asanyarray(query_QD)[query_Q], "query_QD", dtype=np.float32)
    if query_QD.shape[1] != reference_ND.shape[1]:
        raise ValueError(
            f"references have width {reference_ND.shape[1]} and queries {query_QD.shape[1]}: embed both with one embedder"
        )
    extra = sorted(set(query_labels) - set(references.names))
    names = np.array([*references.names, *extra], dtype=object)
    code = {name: place for place, name in enumerate(names)}
    class_Q = np.array([code[label] for label in query_labels[query_Q]], np.int64)
    top_DQCk = _nearest_of_classes(references, query_QD, protocol)
    return ClassSimilarities(top_DQCk, names, class_Q, query_Q, protocol)


def _nearest_of_classes(references: References, query_QD: np.ndarray, protocol: OpenSetProtocol) -> np.ndarray:
    class_N = references.class_P[references.photo_N]
    if protocol.shots == "all":
        rows_D = [np.arange(len(class_N))]
    else:
        rank_DP = draw_ranks(references.class_P, references.names, protocol.num_splits, protocol.seed)
        rows_D = [np.flatnonzero(rank_P[references.photo_N] < protocol.shots) for rank_P in rank_DP]
    largest = max(int(np.bincount(class_N[rows]).max()) for rows in rows_D)
    k = min(protocol.k, largest) if protocol.statistic == "mean_k" else 1
    shape = (len(rows_D), len(query_QD), len(references.names), k)
    if 4 * np.prod(shape, dtype=np.float64) > MOST_BYTES_HELD:
        raise ValueError(
            f"the similarities of {shape[1]} queries to {shape[2]} classes in {shape[0]} draws, k = {k}, are more than 4 GiB: "
            "set queries_per_class"
        )
    top_DQCk = np.full(shape, -np.inf, np.float32)
    search = CosineSimilarity(query_QD, references.embedding_ND)
    num_rows = max(1, _CELLS_A_BLOCK // len(class_N))
    for start in range(0, len(query_QD), num_rows):
        stop = min(start + num_rows, len(query_QD))
        similarity_BN = search.block(start, stop)
        for rows, top_QCk in zip(rows_D, top_DQCk, strict=True):
            block_BN = similarity_BN if len(rows) == len(class_N) else similarity_BN[:, rows]
            first_C = np.searchsorted(class_N[rows], np.arange(len(references.names) + 1))
            if k == 1:
                top_QCk[start:stop, :, 0] = np.maximum.reduceat(block_BN, first_C[:-1], axis=1)
                continue
            for c, (first, last) in enumerate(pairwise(first_C)):
                kept = min(k, last - first)
                part_Bn = np.partition(block_BN[:, first:last], last - first - kept, axis=1)
                top_QCk[start:stop, c, :kept] = part_Bn[:, last - first - kept :]
    return top_DQCk


def _mean_of_largest(value_BN: np.ndarray, k: int) -> np.ndarray:
    k = min(k, value_BN.shape[1])
    largest_Bk = np.partition(value_BN, value_BN.shape[1] - k, axis=1)[:, -k:]
    largest_Bk.sort(axis=1)  # a fixed order of summation: equal similarities give equal means
    there_Bk = np.isfinite(largest_Bk)
    sum_B, num_B = np.where(there_Bk, largest_Bk, 0).sum(axis=1, dtype=np.float64), there_Bk.sum(axis=1)
    return np.divide(sum_B, num_B, out=np.full(len(sum_B), -np.inf), where=num_B > 0).astype(np.float32)
