"""What a gallery does with queries whose right answer is known: the source of its threshold and its probabilities.

Each query is asked twice: with its label among the references (is the answer right?) and without (how similar is the nearest of
the others, which is how an unknown product looks?). The references can be their own queries, each without its own image.
Axes: Q queries, N references, B queries of a block, M references asked, F rates.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workbench.retrieval.arrays import normalise
from workbench.retrieval.intervals import class_means, interval_of_class_means
from workbench.retrieval.stats import Metric
from workbench.retrieval.threshold_choice import Strangers, choose_thresholds

FALSE_ACCEPT_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
MOST_REFERENCES_ASKED = 10_000
"""Ten times what a rate of 0.1 % wants, so that a gallery of a million references is measured in minutes."""
_CELLS_A_BLOCK = 4_000_000
_ROWS_A_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The answers to queries with and without their label in the gallery.

    Attributes:
        label_Q: object array of str, the queries' labels.
        known_Q: float32, similarity of the nearest reference, the query's own image left out; NaN where its label has no
            (other) image in the gallery, so that no answer can be right.
        right_Q: bool, that reference has the query's label; a tie with another label counts as wrong.
        unknown_Q: float32, similarity of the nearest reference of another label; NaN where there is no other label.
        rival_Q: object array of str, the label of that reference; "" where there is none.
        without_Q: float32, similarity of the nearest reference of a third label; -inf where there is none.
    """

    label_Q: np.ndarray
    known_Q: np.ndarray
    right_Q: np.ndarray
    unknown_Q: np.ndarray
    rival_Q: np.ndarray
    without_Q: np.ndarray

    @property
    def is_known_Q(self) -> np.ndarray:
        """Returns which queries can be answered rightly, bool [Q]."""
        return ~np.isnan(self.known_Q)

    @property
    def is_unknown_Q(self) -> np.ndarray:
        """Returns which queries can be asked as unknown products, bool [Q]."""
        return ~np.isnan(self.unknown_Q)

    def strangers(self) -> Strangers:
        """Returns the queries that can be asked as unknown products, similarities as answers write them."""
        asked_Q = self.is_unknown_Q
        texts = np.concatenate([self.label_Q[asked_Q], self.rival_Q[asked_Q]]).astype(str)
        class_V, rival_V = np.unique(texts, return_inverse=True)[1].reshape(2, -1)
        value_V, without_V = as_written(self.unknown_Q[asked_Q]), as_written(self.without_Q[asked_Q])
        return Strangers(value_V, class_V, rival_V[:, None], without_V[:, None])


def ask_queries(
    query_QD: np.ndarray, query_labels: Sequence[str], reference_ND: np.ndarray, reference_labels: Sequence[str]
) -> LeftOut:
    """Returns the answers to queries that are not among the references; a label without a reference is unknown.

    Args:
        query_QD: [Q, D] finite numbers, no row all zero; normalised here.
        query_labels: Q texts.
        reference_ND: [N, D], as a gallery holds them: float32, rows of length 1.
        reference_labels: N texts.
    """
    query_QD = normalise(query_QD, "query_QD", dtype=np.float32)
    text, code = np.unique([*query_labels, *reference_labels], return_inverse=True)
    own_Q, of_N = code[: len(query_labels)], code[len(query_labels) :]
    return _ask(query_QD, text, own_Q, [], reference_ND, of_N, [])


def ask_references(
    reference_ND: np.ndarray,
    labels: Sequence[str],
    names: Sequence[str],
    most: int = MOST_REFERENCES_ASKED,
    seed: int = 0,
) -> LeftOut:
    """Returns the answers to the references themselves, each asked without its own image.

    An image's own rows are those of the same name (augmented copies; "" is no name) and those equal to the last bit (the
    same picture under two names), as far as they have its label.

    Args:
        reference_ND: [N, D], as a gallery holds them.
        labels: N texts.
        names: N texts.
        most: of more references a random part is asked; all of them are searched.
        seed: of that part.
    """
    asked_M = np.arange(len(reference_ND))
    if len(asked_M) > most:
        asked_M = np.sort(np.random.default_rng(seed).choice(len(asked_M), most, replace=False))
    text, of_N = np.unique(list(labels), return_inverse=True)
    name_N = np.unique([name or f"\n{row}" for row, name in enumerate(names)], return_inverse=True)[1]
    reference_ND = np.ascontiguousarray(reference_ND, dtype=np.float32)
    images = [name_N, _row_hashes(reference_ND)]
    image_M = [image_N[asked_M] for image_N in images]
    return _ask(reference_ND[asked_M], text, of_N[asked_M], image_M, reference_ND, of_N, images)


def false_accept_table(left_out: LeftOut, protocol: str) -> list[dict[str, Any]]:
    """Returns one entry a rate that the queries can measure, ascending, as JSON values; none where there are too few.

    An answer is accepted when its similarity is **above** the threshold: see `threshold_choice.choose_thresholds`. Keys: `rate`;
    `threshold` (cosine); `false_accepts`, the share of the queries that are accepted when their label is out of the gallery and
    out of the choice of the threshold; `right_accepted`, the share of the known queries that are accepted with the right answer,
    or None where no query is known. Both are a `Metric` as a dict, with intervals over labels.

    Args:
        left_out: what the queries were answered.
        protocol: kept with each number.
    """
    is_unknown_Q, is_known_Q = left_out.is_unknown_Q, left_out.is_known_Q
    if not is_unknown_Q.any():
        return []
    choices = choose_thresholds(left_out.strangers(), FALSE_ACCEPT_RATES)
    offered = [(rate, one) for rate, one in zip(FALSE_ACCEPT_RATES, choices, strict=True) if one.resolved]
    if not offered:
        return []
    threshold_F = np.array([one.threshold for _, one in offered])
    right_FQ = left_out.right_Q & (as_written(left_out.known_Q) > threshold_F[:, None])
    false = _shares(np.stack([one.accepted_V for _, one in offered]), left_out.label_Q[is_unknown_Q], protocol)
    right = _shares(right_FQ[:, is_known_Q], left_out.label_Q[is_known_Q], protocol)
    return [
        {
            "rate": rate,
            "threshold": one.threshold,
            "false_accepts": false[place],
            "right_accepted": right[place] if right else None,
        }
        for place, (rate, one) in enumerate(offered)
    ]


def as_written(similarity: np.ndarray) -> np.ndarray:
    """Returns float32 similarities as float64 with the fewest digits that give them back, as answers are written."""
    return np.asarray(similarity, dtype=np.float32).astype(str).astype(np.float64)


def _shares(is_so_FQ: np.ndarray, label_Q: np.ndarray, protocol: str) -> list[dict[str, Any]]:
    if not len(label_Q):
        return []
    class_Q = np.unique(label_Q.astype(str), return_inverse=True)[1]
    mean_FC, count_C = class_means(is_so_FQ.astype(np.float64), class_Q)
    found = zip(*(array.tolist() for array in interval_of_class_means(mean_FC[:, None], count_C, "micro")), strict=True)
    return [asdict(Metric(value, low, high, len(label_Q), protocol, doubt)) for value, low, high, doubt in found]


def _row_hashes(reference_ND: np.ndarray) -> np.ndarray:
    """uint64 [N]: equal for rows that are equal to the last bit; for others with a chance of about 2 to the -64."""
    weight_D = np.random.default_rng(0).integers(1, 2**63, size=reference_ND.shape[1], dtype=np.uint64)
    starts = range(0, len(reference_ND), _ROWS_A_CHUNK)
    parts = [reference_ND[start : start + _ROWS_A_CHUNK].view(np.uint32) * weight_D for start in starts]
    return np.concatenate([part.sum(axis=1, dtype=np.uint64) for part in parts])


def _ask(
    query_QD: np.ndarray,
    text: np.ndarray,
    own_Q: np.ndarray,
    images_Q: Sequence[np.ndarray],
    reference_ND: np.ndarray,
    of_N: np.ndarray,
    images_N: Sequence[np.ndarray],
) -> LeftOut:
    """The answers. own_Q and of_N are places in text; a reference with a query's label and one of its image codes is left out."""
    own_best_Q = np.full(len(query_QD), np.nan, dtype=np.float32)
    other_best_Q = own_best_Q.copy()
    without_Q = np.full(len(query_QD), -np.inf, dtype=np.float32)
    rival_Q = np.full(len(query_QD), "", dtype=object)
    num_rows = max(1, _CELLS_A_BLOCK // len(reference_ND))
    for start in range(0, len(query_QD), num_rows):
        block = slice(start, start + num_rows)
        query_BD = query_QD[block]
        similarity_BN = query_BD @ reference_ND.T
        is_own_BN = own_Q[block, None] == of_N
        is_itself_BN = np.zeros_like(is_own_BN)
        for image_Q, image_N in zip(images_Q, images_N, strict=True):
            is_itself_BN |= image_Q[block, None] == image_N
        _nearest_of(own_best_Q[block], query_BD, reference_ND, similarity_BN, is_own_BN & ~is_itself_BN)
        rival_B = _nearest_of(other_best_Q[block], query_BD, reference_ND, similarity_BN, ~is_own_BN)
        has_rival_B = ~np.isnan(other_best_Q[block])
        rival_Q[block][has_rival_B] = text[of_N[rival_B[has_rival_B]]]
        is_third_BN = ~is_own_BN & (of_N != of_N[rival_B, None])
        _nearest_of(without_Q[block], query_BD, reference_ND, similarity_BN, is_third_BN)
    is_known_Q = ~np.isnan(own_best_Q)
    right_Q = is_known_Q & ~(other_best_Q >= own_best_Q)
    known_Q = np.where(is_known_Q, np.fmax(own_best_Q, other_best_Q), np.float32(np.nan))
    return LeftOut(text[own_Q].astype(object), known_Q, right_Q, other_best_Q, rival_Q, without_Q)


def _nearest_of(
    best_B: np.ndarray,
    query_BD: np.ndarray,
    reference_ND: np.ndarray,
    similarity_BN: np.ndarray,
    allowed_BN: np.ndarray,
) -> np.ndarray:
    """The row of the nearest reference that is allowed; its similarity into best_B where there is one."""
    row_B = np.where(allowed_BN, similarity_BN, -np.inf).argmax(axis=1)
    there_B = allowed_BN[np.arange(len(row_B)), row_B]
    # summed again as Gallery.search does, so that equal embeddings have equal similarities
    sum_B = np.vecdot(query_BD.astype(np.float64), reference_ND[row_B].astype(np.float64))
    best_B[there_B] = sum_B[there_B].astype(np.float32)
    return row_B
