"""The similarities of queries to a gallery, a block of queries at a time, so that they never all exist at once.

Axes: Q queries, G gallery rows, B queries of a block, D width. Larger is nearer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

_NUMBERS_A_CHUNK = 2**16  # so that a chunk stays in the processor's cache


class Similarity(Protocol):
    """What an evaluation asks of the comparison of queries to a gallery: its size, a block of it, and some of its columns."""

    is_cosine: ClassVar[bool]

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (Q, G)."""

    @property
    def itemsize(self) -> int:
        """Returns the bytes of a similarity."""

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns similarity_BG of queries start..stop, a new array."""

    def take(self, columns: np.ndarray) -> "Similarity":
        """Returns the similarities to some gallery rows only."""


@dataclass(frozen=True)
class CosineSimilarity:
    """Similarities of embeddings of length 1, a block of queries at a time.

    Attributes:
        query_QD: float32 or float64, length 1.
        gallery_GD: the same dtype, length 1.
    """

    query_QD: np.ndarray
    gallery_GD: np.ndarray
    is_cosine: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (Q, G)."""
        return len(self.query_QD), len(self.gallery_GD)

    @property
    def itemsize(self) -> int:
        """Returns the bytes of a similarity."""
        return self.query_QD.dtype.itemsize

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns similarity_BG of queries start..stop, -1 to 1, a new array. Equal gallery rows are equally similar."""
        similarity_BG = self.query_QD[start:stop] @ self.gallery_GD.T
        first, copy = self._copies
        if len(copy):
            similarity_BG[:, copy] = similarity_BG[:, first]
        return similarity_BG

    def take(self, columns: np.ndarray) -> "CosineSimilarity":
        """Returns the similarities to some gallery rows only."""
        return CosineSimilarity(self.query_QD, self.gallery_GD[columns])

    @cached_property
    def _copies(self) -> tuple[np.ndarray, np.ndarray]:
        # A matrix product may round equal columns differently, by where they stand: found on small matrices.
        step = max(1, _NUMBERS_A_CHUNK // self.gallery_GD.shape[1])
        num_bytes = self.gallery_GD.shape[1] * self.itemsize
        word = np.dtype("u4" if num_bytes % 8 else "u8")
        weight = np.random.default_rng(0).integers(1, 2**63, size=num_bytes // word.itemsize, dtype=np.uint64)
        hashes = [
            ((self.gallery_GD[start : start + step] + 0.0).view(word) * weight).sum(
                axis=1, dtype=np.uint64
            )  # one zero only
            for start in range(0, len(self.gallery_GD), step)
        ]
        _, first, of = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
        copy = np.flatnonzero(first[of] != np.arange(len(of)))
        copy = copy[(self.gallery_GD[copy] == self.gallery_GD[first[of[copy]]]).all(axis=1)]
        return first[of[copy]], copy


@dataclass(frozen=True)
class GivenDistances:
    """Similarities that are negated distances, a block of queries at a time.

    Attributes:
        distance_QG: float32 or float64, finite.
        row_Q: int64, the rows that count.
        column_G: int64, the columns that count.
    """

    distance_QG: np.ndarray
    row_Q: np.ndarray
    column_G: np.ndarray
    is_cosine: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (Q, G)."""
        return len(self.row_Q), len(self.column_G)

    @property
    def itemsize(self) -> int:
        """Returns the bytes of a similarity."""
        return self.distance_QG.dtype.itemsize

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns similarity_BG of queries start..stop, minus their distances, a new array.

        Raises:
            ValueError: a distance that is not finite.
        """
        rows = self.distance_QG[self.row_Q[start:stop]]
        if len(self.column_G) < self.distance_QG.shape[1]:
            rows = rows[:, self.column_G]
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise ValueError(
                f"distance_QG[{self.row_Q[start + row]}, {self.column_G[column]}] is {rows[row, column]}: finite distances are "
                "wanted; put a large number where two images must not be compared"
            )
        return np.negative(rows, out=rows)

    def take(self, columns: np.ndarray) -> "GivenDistances":
        """Returns the similarities to some columns only."""
        return GivenDistances(self.distance_QG, self.row_Q, self.column_G[columns])
