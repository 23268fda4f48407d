"""Which photographs a k-shot gallery holds, and which queries are asked: seeded, nested, by label.

Axes: N rows of the references (a photograph or an augmented copy of one), P photographs, C classes, D draws, Q queries.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class References:
    """The references in the order that the evaluation works in: by label, within a label by photograph.

    Attributes:
        embedding_ND: float32, length 1.
        row_N: int64, where each row was in the arrays that were given.
        photo_N: int64, the photograph 0..P-1 of each row, ascending.
        class_P: int64, the class 0..C-1 of each photograph, ascending.
        names: object array of str, [C], the labels, sorted.
    """

    embedding_ND: np.ndarray
    row_N: np.ndarray
    photo_N: np.ndarray
    class_P: np.ndarray
    names: np.ndarray

    @property
    def num_photos_C(self) -> np.ndarray:
        """Returns the number of photographs of each class, int64, at least 1."""
        return np.bincount(self.class_P, minlength=len(self.names))


def order_references(
    embedding_ND: np.ndarray, labels_N: np.ndarray, source_N: np.ndarray | None, copies: int
) -> References:
    """Returns the references sorted by label, within a label by source number.

    Args:
        embedding_ND: float32, length 1.
        labels_N: text; classes are coded in int64, so that labels of any length or number stay apart.
        source_N: integer, the photograph that a row comes from; None: each row is a photograph of its own.
        copies: augmented copies that each photograph must have beside itself.

    Raises:
        ValueError: source_N has another length or is no integer, a photograph with two labels, or with another number of rows
            than 1 + copies.
    """
    names, class_N = np.unique(labels_N, return_inverse=True)
    source_N = np.arange(len(labels_N)) if source_N is None else np.asarray(source_N)
    if source_N.shape != class_N.shape or source_N.dtype.kind not in "iu":
        raise ValueError(
            f"reference_source_N must hold one integer for each of {len(class_N)} references, found shape "
            f"{source_N.shape} of {source_N.dtype}"
        )
    row_N = np.lexsort((np.arange(len(class_N)), source_N, class_N)).astype(np.int64)
    class_N, source_N = class_N[row_N], source_N[row_N]
    first = np.ones(len(row_N), dtype=bool)
    first[1:] = (class_N[1:] != class_N[:-1]) | (source_N[1:] != source_N[:-1])
    photo_N = np.cumsum(first) - 1
    sources, times = np.unique(source_N[first], return_counts=True)
    if (times > 1).any():
        source = sources[np.argmax(times > 1)]
        found = sorted(names[class_N[first & (source_N == source)]])
        raise ValueError(
            f"photograph {source} of reference_source_N has rows with different labels: {', '.join(found)}"
        )
    rows_P = np.bincount(photo_N)
    if (rows_P != 1 + copies).any():
        photo = int(np.argmax(rows_P != 1 + copies))
        raise ValueError(
            f"reference_augmentations = {copies} means {1 + copies} rows a photograph, but photograph "
            f"{source_N[first][photo]} has {rows_P[photo]}: set reference_augmentations to what was embedded, and pass "
            "reference_source_N, the photograph that each row comes from"
        )
    return References(embedding_ND[row_N], row_N, photo_N, class_N[first].astype(np.int64), names)


def draw_ranks(class_P: np.ndarray, names: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Returns rank_DP, int64: the place, 0-based, of each photograph within its class in each draw.

    The k-shot gallery of a draw holds the photographs of rank below k, so that it is part of the (k+1)-shot gallery. The
    order depends on the seed, the class's label and the place of the photograph among its class, and on nothing else:
    another class, a reordering of classes or more draws change nothing.

    Args:
        class_P: int64, ascending.
        names: labels of the classes.
        draws: number of draws, at least 1.
        seed: 0 or more.
    """
    rank_DP = np.empty((draws, len(class_P)), np.int64)
    start_C = np.searchsorted(class_P, np.arange(len(names) + 1))
    for name, start, stop in zip(names, start_C[:-1], start_C[1:], strict=True):
        rng = _generator(seed, "draw", name)
        for draw in range(draws):
            rank_DP[draw, start:stop] = rng.permutation(stop - start)
    return rank_DP


def choose_queries(labels_Q: np.ndarray, per_class: int | None, seed: int) -> np.ndarray:
    """Returns the rows of the queries to ask, int64, ascending: at most per_class of each label, or all of them (None).

    The choice depends on the seed, the label and the order of the queries of that label.
    """
    if per_class is None:
        return np.arange(len(labels_Q))
    groups = pd.Series(np.arange(len(labels_Q))).groupby(labels_Q).indices
    chosen = [_generator(seed, "queries", str(label)).permutation(rows)[:per_class] for label, rows in groups.items()]
    return np.sort(np.concatenate(chosen))


def photographs_by_rank(rank_P: np.ndarray, class_P: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns, rank after rank, the photographs of that rank of one draw and their classes, both ascending, int64."""
    order = np.lexsort((class_P, rank_P))
    start = np.searchsorted(rank_P[order], np.arange(rank_P.max() + 2))
    slices = [order[first:last] for first, last in pairwise(start)]
    return [(photos, class_P[photos]) for photos in slices]


def _generator(seed: int, purpose: str, label: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{purpose}/{label}".encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist()])
