"""The places of each query's positives in its ranked gallery, by counting what is nearer: the gallery is never sorted.

Axes: Q queries, G gallery rows, B queries of a block, P pairs of a query and one of its positives. Positive: a gallery
row with the query's label that is not junk. Kept: what is not junk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from workbench.retrieval.similarities import Similarity

_BLOCK_BYTES = 32 * 2**20
_FEWEST_ROWS = 32  # a matrix product of fewer rows waits for memory
_COUNTED_CELLS = 160_000  # so that what is counted at once stays in the processor's cache
_NUM_BINS = 2048
_MOST_COUNTED_ROWS = 512  # so that the bins of all rows are numbers that float32 holds exactly


@dataclass(frozen=True)
class Block:
    """Some queries against the whole gallery, with junk taken away.

    Attributes:
        start: the first of its queries.
        similarity_BG: larger is nearer; -inf where the row is junk for the query.
        row_P: int64, the query of each positive, from 0 within the block; ascending.
        column_P: int64, the gallery row of each positive; within a query the nearest first.
    """

    start: int
    similarity_BG: np.ndarray
    row_P: np.ndarray
    column_P: np.ndarray

    @property
    def value_P(self) -> np.ndarray:
        """Returns the similarity of each positive."""
        return self.similarity_BG[self.row_P, self.column_P]


@dataclass(frozen=True)
class Search:
    """Queries, a gallery, who is whom, and which gallery rows are junk for which query.

    Attributes:
        similarity: of every query to every gallery row.
        query_label_Q: int64 codes.
        gallery_label_G: int64 codes.
        query_camera_Q: int64 codes; None: no row is junk.
        gallery_camera_G: int64 codes; None: no row is junk.
    """

    similarity: Similarity
    query_label_Q: np.ndarray
    gallery_label_G: np.ndarray
    query_camera_Q: np.ndarray | None
    gallery_camera_G: np.ndarray | None

    @property
    def rows_a_block(self) -> int:
        """Returns how many queries are compared at once."""
        return max(_FEWEST_ROWS, _BLOCK_BYTES // (self.similarity.itemsize * self.similarity.shape[1]))

    def take(self, columns: np.ndarray) -> "Search":
        """Returns the same search in some of the gallery's rows."""
        camera_G = None if self.gallery_camera_G is None else self.gallery_camera_G[columns]
        return Search(
            self.similarity.take(columns),
            self.query_label_Q,
            self.gallery_label_G[columns],
            self.query_camera_Q,
            camera_G,
        )

    def blocks(self) -> Iterator[Block]:
        """Yields the queries in order, block after block; a block's similarities may be overwritten."""
        for start in range(0, self.similarity.shape[0], self.rows_a_block):
            stop = min(start + self.rows_a_block, self.similarity.shape[0])
            similarity_BG = self.similarity.block(start, stop)
            row_P, column_P, junk_P = self.own_rows(np.arange(start, stop))
            similarity_BG[row_P[junk_P], column_P[junk_P]] = -np.inf
            row_P, column_P = row_P[~junk_P], column_P[~junk_P]
            order = np.lexsort((column_P, -similarity_BG[row_P, column_P], row_P))
            yield Block(start, similarity_BG, row_P[order], column_P[order])

    def own_rows(self, queries_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (row_P, column_P, junk_P): the gallery rows of each query's label, and whether they are junk for it."""
        first_B, size_B = self._own_range(queries_B)
        row_P = np.repeat(np.arange(len(queries_B)), size_B)
        within_P = np.arange(len(row_P)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
        column_P = self._by_label[np.repeat(first_B, size_B) + within_P]
        if self.query_camera_Q is None or self.gallery_camera_G is None:
            return row_P, column_P, np.zeros(len(row_P), dtype=bool)
        return row_P, column_P, self.query_camera_Q[queries_B][row_P] == self.gallery_camera_G[column_P]

    def num_own(self) -> int:
        """Returns the number of pairs of equal label, junk or not."""
        return int(self._own_range(np.arange(len(self.query_label_Q)))[1].sum())

    def _own_range(self, queries_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        label_B, sorted_G = self.query_label_Q[queries_B], self._sorted_label
        first_B = np.searchsorted(sorted_G, label_B)
        return first_B, np.searchsorted(sorted_G, label_B, side="right") - first_B

    @cached_property
    def _by_label(self) -> np.ndarray:
        return np.argsort(self.gallery_label_G, kind="stable")

    @cached_property
    def _sorted_label(self) -> np.ndarray:
        return self.gallery_label_G[self._by_label]


def count_nearer(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Returns (nearer_P, tied_P), int64: kept rows strictly nearer than each positive, and as near (itself among them).

    The similarities of a query are counted in bins between its farthest and its nearest positive. A bin is a monotone function
    of the similarity, so rows in another bin than a positive stand on the right side of it; only rows that share a
    bin with a positive are compared with it. Exact, ties included; of the order of G a query, however many positives.
    """
    nearer_P, tied_P = np.empty(len(block.row_P), np.int64), np.empty(len(block.row_P), np.int64)
    rows, start_R = np.unique(block.row_P, return_index=True)
    bound_R = np.append(start_R, len(block.row_P))
    num_columns = block.similarity_BG.shape[1]
    step = min(max(1, _COUNTED_CELLS // num_columns), _MOST_COUNTED_ROWS, max(len(rows), 1))
    work = _Work(step * num_columns, block.similarity_BG.dtype)
    for first in range(0, len(rows), step):
        part, bounds = rows[first : first + step], bound_R[first : first + step + 1]
        together = part[-1] - part[0] + 1 == len(part)
        similarity_RG = block.similarity_BG[slice(part[0], part[-1] + 1) if together else part]
        own = slice(bounds[0], bounds[-1])
        row_P = np.repeat(np.arange(len(part)), np.diff(bounds))
        nearer_P[own], tied_P[own] = _count_in_bins(
            similarity_RG, row_P, block.column_P[own], (bounds - bounds[0]).tolist(), work
        )
    return nearer_P, tied_P


class _Work:
    """Memory for what is counted at once, taken once: a fresh array costs more than the sums in it."""

    def __init__(self, num_cells: int, dtype: np.dtype) -> None:
        self.bins = np.empty(num_cells, dtype)
        self.short = np.empty(num_cells, np.int32)
        self.cells = np.empty(num_cells, np.intp)
        self.is_near = np.empty(num_cells, dtype=bool)


def _count_in_bins(
    similarity_RG: np.ndarray, row_P: np.ndarray, column_P: np.ndarray, bounds: list[int], work: _Work
) -> tuple[np.ndarray, np.ndarray]:
    value_P = similarity_RG[row_P, column_P]
    num_columns, num_bins = similarity_RG.shape[1], _NUM_BINS + 3
    cells = _find_bins(similarity_RG, value_P[bounds[:-1]], value_P[np.array(bounds[1:]) - 1], num_bins, work)
    cell_P = cells[row_P * num_columns + column_P]
    count = np.bincount(cells, minlength=len(similarity_RG) * num_bins)
    shared = np.zeros(len(count), dtype=bool)
    shared[cell_P] = True
    count[shared] = 0
    below = np.cumsum(count.reshape(-1, num_bins), axis=1)
    nearer_P = below[row_P, -1] - below.ravel()[cell_P]
    near = np.flatnonzero(shared.take(cells, out=work.is_near[: len(cells)], mode="clip"))
    near_value = similarity_RG.ravel()[near]
    near_bounds = np.searchsorted(near, np.arange(len(similarity_RG) + 1) * num_columns).tolist()
    tied_P = np.empty_like(nearer_P)
    for (first, last), (near_first, near_last) in zip(pairwise(bounds), pairwise(near_bounds), strict=True):
        among, value = near_value[near_first:near_last], value_P[first:last]
        among.sort()
        up_to_P = among.searchsorted(value, side="right")
        nearer_P[first:last] += len(among) - up_to_P
        tied_P[first:last] = up_to_P - among.searchsorted(value)
    return nearer_P, tied_P


def _find_bins(
    similarity_RG: np.ndarray, nearest_R: np.ndarray, farthest_R: np.ndarray, num_bins: int, work: _Work
) -> np.ndarray:
    """Returns the bin of each cell, intp: equally wide from a row's farthest to its nearest positive, one for all beyond either.

    The bins of a row stand behind those of the row before. Every step rounds monotonically: no value overtakes another.
    """
    limits = np.finfo(similarity_RG.dtype)
    smallest = np.maximum(np.abs(nearest_R) * 1e-3, limits.tiny * _NUM_BINS)
    first_R = (np.arange(len(similarity_RG)) * num_bins).astype(similarity_RG.dtype)[:, None]
    bin_RG = work.bins[: similarity_RG.size].reshape(similarity_RG.shape)
    with np.errstate(over="ignore"):  # what overflows is clipped
        scale_R = (_NUM_BINS / np.clip(nearest_R - farthest_R, smallest, limits.max))[:, None]
        np.multiply(similarity_RG, scale_R, out=bin_RG)
    bin_RG += first_R + 1 - farthest_R[:, None] * scale_R
    np.clip(bin_RG, first_R, first_R + (num_bins - 1), out=bin_RG)
    short, cells = work.short[: similarity_RG.size], work.cells[: similarity_RG.size]
    np.copyto(short, bin_RG.ravel(), casting="unsafe")  # in two steps, which takes half the time of one
    np.copyto(cells, short)
    return cells
