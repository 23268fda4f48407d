"""The similarity above which at most a stated share of the pairs of two different individuals is accepted.

Exact in bounded memory: while the largest values of these pairs fit, one pass keeps them; else their bits are found
digit after digit, in passes over the similarities that are computed anew.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from workbench.retrieval.reid_ranking import Block, Search

MOST_VALUES_HELD = 4_000_000
_CELLS_AT_ONCE = 1_000_000
_DIGIT_BITS = 16
_NUM_DIGITS = 2**_DIGIT_BITS


def far_name(far: float, rate: str = "TAR") -> str:
    """Returns the name of a rate at a rate of false accepts, e.g. "TAR@FAR=0.1%" for 0.001."""
    return f"{rate}@FAR={far * 100:.6g}%"


def num_accepted(far: float, num_pairs: int) -> int:
    """Returns how many of num_pairs pairs may be accepted at a false accept rate, rounded down: 0.01 of 250 is 2."""
    return int(np.floor(far * num_pairs * (1 + 1e-12)))  # 0.07 * 100 is 7, not 6.999...


class FalseAccepts:
    """Pairs of a query and a gallery row that are not junk, of two individuals (non-matches) and of one (matches).

    A pair is accepted when its similarity is **above** the threshold, which is the largest similarity of a non-match that may not be
    accepted any more: never more than the stated share of non-matches is accepted, whatever ties there are, and a match as
    similar as the threshold is refused. All queries count, those without a match too.
    """

    def __init__(self, search: Search, fars: Sequence[float]) -> None:
        """Prepares for one pass over `search`; at least one pair must be a non-match."""
        self._search, num_own = search, search.num_own()
        num_queries, num_gallery = search.similarity.shape
        self._places = [num_accepted(far, num_queries * num_gallery - num_own) + 1 for far in fars]
        self._one_pass = max(self._places) + num_own <= MOST_VALUES_HELD
        self._largest = LargestValues(max(self._places))
        self._matches: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(self, block: Block) -> None:
        """Takes the next block of the search; its matches are -inf afterwards."""
        if not self._one_pass:
            return
        self._matches.append((block.start + block.row_P, block.value_P))
        for values in self._non_matches(block):
            self._largest.add(values)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (threshold_F, accepted_FQ): for each rate the similarity, and each query's matches above it, int64."""
        num_queries = self._search.similarity.shape[0]
        if self._one_pass:
            threshold_F = np.array([self._largest.ordered(place) for place in self._places])
            matches: Iterable[tuple[np.ndarray, np.ndarray]] = self._matches
        else:
            threshold_F = np.array(select_by_digits(self._pass, self._places))
            matches = ((block.start + block.row_P, block.value_P) for block in self._search.blocks())
        accepted_FQ = np.zeros((len(threshold_F), num_queries), np.int64)
        for query_P, value_P in matches:
            for which, threshold in enumerate(threshold_F):
                accepted_FQ[which] += np.bincount(query_P[value_P > threshold], minlength=num_queries)
        return threshold_F, accepted_FQ

    def _pass(self) -> Iterator[np.ndarray]:
        for block in self._search.blocks():
            yield from self._non_matches(block)

    def _non_matches(self, block: Block) -> Iterator[np.ndarray]:
        block.similarity_BG[block.row_P, block.column_P] = -np.inf
        step = max(1, _CELLS_AT_ONCE // block.similarity_BG.shape[1])
        for first in range(0, len(block.similarity_BG), step):
            yield block.similarity_BG[first : first + step]


class LargestValues:
    """The largest values of a stream, in memory for about twice as many."""

    def __init__(self, num_kept: int) -> None:
        """Keeps the num_kept largest values of all that are added, at least 1."""
        self._num_kept = num_kept
        self._bound = -np.inf
        self._parts = [np.empty(0, np.float32)]
        self._num_held = 0

    def add(self, values: np.ndarray) -> None:
        """Takes an array of any shape; -inf stands for no value."""
        taken = values[values > self._bound]
        self._parts.append(taken)
        self._num_held += len(taken)
        if self._num_held > 2 * self._num_kept:
            self._shrink()

    def ordered(self, place: int) -> float:
        """Returns the value at a place, from 1 (the largest) to num_kept; -inf if there are not so many values."""
        self._shrink()
        (values,) = self._parts
        return (
            float(np.partition(values, len(values) - place)[len(values) - place]) if place <= len(values) else -np.inf
        )

    def _shrink(self) -> None:
        values = np.concatenate(self._parts)
        if len(values) > self._num_kept:
            # a copy, or the part that is cut off would stay in memory
            values = np.partition(values, len(values) - self._num_kept)[-self._num_kept :].copy()
            self._bound = values[0]
        self._parts, self._num_held = [values], len(values)


def select_by_digits(passes: Callable[[], Iterable[np.ndarray]], places: Sequence[int]) -> list[float]:
    """Returns the values at places (1 is the largest) of all that a pass yields, exact, in memory for one block.

    Args:
        passes: yields the same blocks of values each time it is called, all float32 (two passes) or all float64 (four
            passes); -inf is smaller than all others.
        places: from 1 to the number of values.

    Source: radix selection on integers that order as IEEE 754 numbers do.
    """
    prefix, left = [0] * len(places), [int(place) for place in places]
    num_bits = shift = 8 * next(iter(passes())).dtype.itemsize
    word = np.dtype(f"u{num_bits // 8}")
    while shift:
        shift -= _DIGIT_BITS
        counts = np.zeros((len(places), _NUM_DIGITS), np.int64)
        for values in passes():
            key = _ordered_bits(values, word)
            for which, wanted in enumerate(prefix):
                chosen = key >> word.type(shift)
                if shift + _DIGIT_BITS < num_bits:
                    chosen = chosen[chosen >> word.type(_DIGIT_BITS) == wanted]
                counts[which] += np.bincount((chosen % word.type(_NUM_DIGITS)).astype(np.intp), minlength=_NUM_DIGITS)
        for which in range(len(places)):
            from_top = np.cumsum(counts[which][::-1])
            step = int(np.searchsorted(from_top, left[which]))
            left[which] -= int(from_top[step - 1]) if step else 0
            prefix[which] = prefix[which] * _NUM_DIGITS + _NUM_DIGITS - 1 - step
    top = 1 << (num_bits - 1)
    bits = [key ^ top if key & top else key ^ (2 * top - 1) for key in prefix]
    return np.array(bits, dtype=word).view(f"f{num_bits // 8}").astype(np.float64).tolist()


def _ordered_bits(values: np.ndarray, word: np.dtype) -> np.ndarray:
    bits = (values.ravel() + 0.0).view(word)  # + 0.0: one zero only
    top = word.type(1 << (8 * word.itemsize - 1))
    return np.where(bits & top, ~bits, bits | top)
