"""Pairs of 64-bit hashes that differ in few bits, without comparing every hash with every other.

Axes: N hashes, M pairs.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

MAX_RADIUS = 15
_NUM_BANDS = 4
_BAND_BITS = 16
_CANDIDATES_A_CHUNK = 2_000_000


def hamming_distance(first_M: np.ndarray, second_M: np.ndarray) -> np.ndarray:
    """Returns in how many bits each pair of uint64 differs, 0 to 64, uint8 [M]."""
    return np.bitwise_count(np.bitwise_xor(first_M, second_M))


def pairs_within(
    hash_N: ArrayLike, radius: int, other_N: ArrayLike | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (first_M, second_M, distance_M) in chunks: every pair of rows whose hashes differ in at most `radius` bits.

    Without `other_N` the rows of `hash_N` are compared with each other, each pair once, first < second. With it,
    `hash_N[first]` is compared with `other_N[second]`. The order of pairs has no meaning. Exact: two hashes that differ in at
    most r bits differ in at most r // 4 bits in one of their four bands of 16 bits, so that it is enough to look up each band
    and what lies r // 4 flips around it. For N hashes that are spread evenly, and r up to 7, that is N * N * 34 / 65536
    candidates; each pair is kept in the first band that finds it. Equal hashes are pairs, too: k of them are k (k - 1) / 2.

    Args:
        hash_N: uint64.
        radius: 0 to `MAX_RADIUS`.
        other_N: uint64, of any length.

    Raises:
        ValueError: a radius out of range, or arrays that are not uint64 with one axis.

    Source: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012, proposition 1.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius is a number of bits from 0 to {MAX_RADIUS}, found {radius}.")
    first_N, second_N = np.asarray(hash_N), np.asarray(hash_N if other_N is None else other_N)
    for given in (first_N, second_N):
        if given.dtype != np.uint64 or given.ndim != 1:
            raise ValueError(f"Hashes are uint64 with one axis, found {given.dtype} of shape {given.shape}.")
    reach = radius // _NUM_BANDS
    for band in range(_NUM_BANDS):
        asked_N, key_N = _band(first_N, band), _band(second_N, band)
        row_by_key = np.argsort(key_N, kind="stable")
        start_K = np.searchsorted(key_N[row_by_key], np.arange(2**_BAND_BITS + 1))
        for mask in _masks(reach):
            bucket_N = asked_N ^ mask
            size_N = start_K[bucket_N + 1] - start_K[bucket_N]
            for start, stop in _chunks(size_N):
                size_B = size_N[start:stop]
                first_M = np.repeat(np.arange(start, stop), size_B)
                place_M = np.arange(len(first_M)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
                second_M = row_by_key[start_K[bucket_N[first_M]] + place_M]
                if other_N is None:
                    once_M = first_M < second_M
                    first_M, second_M = first_M[once_M], second_M[once_M]
                differ_M = first_N[first_M] ^ second_N[second_M]
                distance_M = np.bitwise_count(differ_M)
                keep_M = distance_M <= radius
                for earlier in range(band):
                    keep_M &= np.bitwise_count(_band(differ_M, earlier)) > reach
                if keep_M.any():
                    yield first_M[keep_M], second_M[keep_M], distance_M[keep_M]


def _band(hash_N: np.ndarray, band: int) -> np.ndarray:
    return ((hash_N >> np.uint64(_BAND_BITS * band)) & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)


def _masks(reach: int) -> list[int]:
    """Returns the flips of at most `reach` bits of a band."""
    flips = [bits for count in range(reach + 1) for bits in combinations(range(_BAND_BITS), count)]
    return [sum(1 << bit for bit in bits) for bits in flips]


def _chunks(size_N: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields slices of rows that have about as many candidates as fit in memory at once, at least one row each."""
    end_N = np.cumsum(size_N)
    start = 0
    while start < len(size_N) and end_N[-1] > (end_N[start - 1] if start else 0):
        done = end_N[start - 1] if start else 0
        stop = max(int(np.searchsorted(end_N, done + _CANDIDATES_A_CHUNK, side="right")), start + 1)
        yield start, stop
        start = stop
