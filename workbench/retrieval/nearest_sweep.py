"""Vote "nearest" at every number of shots of a draw, counted from the few photographs that can matter to a query.

Only a photograph at least as similar as the right class's best can change a hit, and as similar as the class in place `top`
of the smallest gallery (galleries are nested: those classes are as near or nearer in the larger ones). The photographs above both
bounds are picked from the similarities once for all draws. Each of them is ahead of the right class from the shots at
which it enters the gallery to the shots at which a photograph of the right class overtakes it: one interval of shots, and
the answers are sums over intervals. Whoever cannot be answered so is left open, to be looked up among all photographs.

Axes: P photographs, C classes, B queries of a chunk, N candidates (a query and a photograph), S numbers of shots, ascending.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.retrieval.draws import References

MOST_SHOTS = 63  # a set of shots is an integer of 64 bits
_BOUND_SHOTS = 4
_LEAST_LIMIT = (
    512  # candidates of a query: above that, and above the share of the photographs, all of them are looked at
)
_LIMIT_SHARE = 1 / 8


@dataclass(frozen=True)
class NestedGalleries:
    """The galleries of one draw.

    Attributes:
        draw: the draw's number.
        shots_S: int64, photographs a class may have, ascending, at most `MOST_SHOTS` of them.
        entry_P: intp, the first of the S galleries that holds the photograph; S: none does.
        by_rank_P: int64, the photographs by class, within a class by rank.
        small_P: int64, ascending, the photographs of a small gallery that is within all S, every class among them.
        small_start_C: int64, where each class begins in small_P.
    """

    draw: int
    shots_S: np.ndarray
    entry_P: np.ndarray
    by_rank_P: np.ndarray
    small_P: np.ndarray
    small_start_C: np.ndarray


@dataclass(frozen=True)
class NearestAnswers:
    """The answers of the galleries of one draw; where open_SB is True the others have no meaning.

    Attributes:
        draw: the draw's number.
        ahead_SB: int32, classes that are more similar than the right one; exact below the largest top, else at least that.
        photos_ahead_SB: int32, photographs of other classes that are more similar than the right one's best; as exact.
        found_SB: int32, the class found.
        open_SB: bool, not decided: similarities tie where it matters, or too many photographs are similar.
    """

    draw: int
    ahead_SB: np.ndarray
    photos_ahead_SB: np.ndarray
    found_SB: np.ndarray
    open_SB: np.ndarray


def nest_galleries(references: References, rank_P: np.ndarray, draw: int, shots: Sequence[int]) -> NestedGalleries:
    """Returns the galleries of a draw with these numbers of shots.

    Args:
        references: all of them.
        rank_P: int64, the place of each photograph within its class in this draw.
        draw: the draw's number.
        shots: ascending, at most `MOST_SHOTS`.
    """
    shots_S = np.asarray(shots, np.int64)
    small_P = np.flatnonzero(rank_P < min(shots_S[0], _BOUND_SHOTS))
    return NestedGalleries(
        draw,
        shots_S,
        np.searchsorted(shots_S, rank_P, side="right"),
        np.lexsort((rank_P, references.class_P)),
        small_P,
        np.searchsorted(references.class_P[small_P], np.arange(len(references.names))),
    )


def nearest_answers(
    similarity_BP: np.ndarray, class_B: np.ndarray, class_P: np.ndarray, galleries: Sequence[NestedGalleries], top: int
) -> Iterator[NearestAnswers]:
    """Returns the answers of each of the galleries to a chunk of queries.

    Args:
        similarity_BP: similarity of each photograph, its best copy.
        class_B: int64, the right class; for a query without one any class: found_SB then is as good as ever.
        class_P: int64, ascending, 0..C-1, each class at least once.
        galleries: those of the draws.
        top: the largest number of first places that counts.
    """
    offset_C = np.searchsorted(class_P, np.arange(class_P[-1] + 2))
    own_GBS = [_best_of_own(similarity_BP, class_B, offset_C, one) for one in galleries]
    bound_GB = [_bound(similarity_BP, own_BS[:, 0], one, top) for own_BS, one in zip(own_GBS, galleries, strict=True)]
    candidates = _Candidates.pick(similarity_BP, np.min(bound_GB, axis=0), class_B, class_P, offset_C)
    for own_BS, bound_B, one in zip(own_GBS, bound_GB, galleries, strict=True):
        yield _count(candidates, own_BS, bound_B, class_B, one)


def class_best(similarity_BP: np.ndarray, photos: np.ndarray, start_C: np.ndarray) -> np.ndarray:
    """Returns best_BC: the similarity of the nearest of these photographs (ascending) of each class; start_C: its first one."""
    if len(photos) < similarity_BP.shape[1]:
        similarity_BP = np.take(similarity_BP, photos, axis=1)
    return similarity_BP if len(start_C) == len(photos) else np.maximum.reduceat(similarity_BP, start_C, axis=1)


@dataclass(frozen=True)
class _Candidates:
    """Photographs of other classes near enough to a query, by query, within a query by class.

    Attributes:
        query_N, photo_N, class_N: intp, the query, the photograph and its class.
        similarity_N: of the two.
        crowded_B: bool, queries with too many: they have no candidates here.
    """

    query_N: np.ndarray
    photo_N: np.ndarray
    class_N: np.ndarray
    similarity_N: np.ndarray
    crowded_B: np.ndarray

    @classmethod
    def pick(
        cls,
        similarity_BP: np.ndarray,
        bound_B: np.ndarray,
        class_B: np.ndarray,
        class_P: np.ndarray,
        offset_C: np.ndarray,
    ) -> "_Candidates":
        near_BP = similarity_BP >= bound_B[:, None]
        for near_P, start, stop in zip(
            near_BP, offset_C[class_B].tolist(), offset_C[class_B + 1].tolist(), strict=True
        ):
            near_P[start:stop] = False
        num_B = np.add.reduce(near_BP.view(np.uint8), axis=1, dtype=np.int32)
        crowded_B = num_B > max(_LEAST_LIMIT, int(_LIMIT_SHARE * len(class_P)))
        near_BP[crowded_B] = False
        query_N, photo_N = np.divmod(np.flatnonzero(near_BP), len(class_P))
        return cls(query_N, photo_N, class_P[photo_N], similarity_BP[query_N, photo_N], crowded_B)


def _best_of_own(
    similarity_BP: np.ndarray, class_B: np.ndarray, offset_C: np.ndarray, galleries: NestedGalleries
) -> np.ndarray:
    """Returns own_BS: the similarity of the right class's nearest photograph in each gallery."""
    size_B = np.minimum(np.diff(offset_C)[class_B], galleries.shots_S[-1])
    end_B = np.cumsum(size_B)
    query = np.repeat(np.arange(len(class_B)), size_B)
    photo = galleries.by_rank_P[np.arange(end_B[-1]) + np.repeat(offset_C[class_B] - (end_B - size_B), size_B)]
    enters_S = np.r_[0, galleries.shots_S[:-1]]  # the rank of the first photograph that only this gallery adds
    start_BS = (end_B - size_B)[:, None] + np.minimum(enters_S, size_B[:, None])
    own = np.append(similarity_BP[query, photo], similarity_BP.dtype.type(-np.inf))  # a start may be the end of all
    own_BS = np.maximum.reduceat(own, start_BS.ravel()).reshape(start_BS.shape)
    own_BS[enters_S >= size_B[:, None]] = -np.inf  # a short class adds nothing any more
    return np.maximum.accumulate(own_BS, axis=1)


def _bound(similarity_BP: np.ndarray, own_B: np.ndarray, galleries: NestedGalleries, top: int) -> np.ndarray:
    """Returns bound_B: what is less similar is never ahead of the right class while that is among the first `top`."""
    best_BC = class_best(similarity_BP, galleries.small_P, galleries.small_start_C)
    num_classes = best_BC.shape[1]
    if num_classes < top:
        return own_B
    return np.maximum(own_B, np.partition(best_BC, num_classes - top, axis=1)[:, num_classes - top])


def _count(
    candidates: _Candidates, own_BS: np.ndarray, bound_B: np.ndarray, class_B: np.ndarray, galleries: NestedGalleries
) -> NearestAnswers:
    num_queries, num_shots = own_BS.shape
    # A candidate counts if it beats the right class when it enters. One that enters no gallery never does.
    least_BS = np.full((num_queries, num_shots + 1), np.inf, own_BS.dtype)
    np.maximum(own_BS, bound_B[:, None], out=least_BS[:, :num_shots])
    entry_N = galleries.entry_P[candidates.photo_N]
    cell_N = candidates.query_N * (num_shots + 1) + entry_N
    kept = np.flatnonzero(candidates.similarity_N >= least_BS.ravel()[cell_N])
    query_N, class_N, similarity_N = candidates.query_N[kept], candidates.class_N[kept], candidates.similarity_N[kept]
    entry_N, cell_N = entry_N[kept], cell_N[kept]
    own_NS = own_BS[query_N]
    stop_N = np.add.reduce((own_NS < similarity_N[:, None]).view(np.uint8), axis=1, dtype=np.intp)
    open_BS = np.repeat(candidates.crowded_B[:, None], num_shots, axis=1)
    level_N, level_S = np.divmod(np.flatnonzero(own_NS == similarity_N[:, None]), num_shots)
    inside = level_S >= entry_N[level_N]
    open_BS[query_N[level_N[inside]], level_S[inside]] = True  # as similar as the right class
    stop_N = np.maximum(stop_N, entry_N)

    change = np.bincount(cell_N, minlength=least_BS.size)
    change -= np.bincount(cell_N - entry_N + stop_N, minlength=least_BS.size)
    photos_ahead_BS = np.cumsum(change.reshape(num_queries, -1), axis=1, dtype=np.int32)[:, :num_shots]
    ahead_BS = _count_classes(query_N, class_N, entry_N, stop_N, own_BS.shape)
    found_BS = _find_classes(query_N, class_N, entry_N, similarity_N, own_BS, class_B, open_BS)
    return NearestAnswers(galleries.draw, ahead_BS.T, photos_ahead_BS.T, found_BS.T, open_BS.T)


def _count_classes(
    query_N: np.ndarray, class_N: np.ndarray, entry_N: np.ndarray, stop_N: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Returns ahead_BS, int32: how many classes have a photograph ahead, each from its entry to its stop."""
    ahead_BS = np.zeros(shape, np.int32)
    if not len(query_N):
        return ahead_BS
    bit_S = np.left_shift(np.uint64(1), np.arange(shape[1] + 1, dtype=np.uint64))
    shots_N = bit_S[stop_N] - bit_S[entry_N]
    first = np.flatnonzero(np.r_[True, (query_N[1:] != query_N[:-1]) | (class_N[1:] != class_N[:-1])])
    shots = np.bitwise_or.reduceat(shots_N, first).astype("<u8")
    bits = np.unpackbits(shots.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, : shape[1]]
    queries, start = np.unique(query_N[first], return_index=True)
    ahead_BS[queries] = np.add.reduceat(bits, start, axis=0, dtype=np.int32)
    return ahead_BS


def _find_classes(
    query_N: np.ndarray,
    class_N: np.ndarray,
    entry_N: np.ndarray,
    similarity_N: np.ndarray,
    own_BS: np.ndarray,
    class_B: np.ndarray,
    open_BS: np.ndarray,
) -> np.ndarray:
    """Returns found_BS, int32: the class of the nearest photograph; where several are, open_BS is set."""
    num_shots = own_BS.shape[1]
    cell_N = query_N * num_shots + entry_N
    best_BS = np.full(own_BS.shape, -np.inf, own_BS.dtype)
    np.maximum.at(best_BS.ravel(), cell_N, similarity_N)
    np.maximum.accumulate(best_BS, axis=1, out=best_BS)
    leads = np.flatnonzero(similarity_N == best_BS.ravel()[cell_N])
    query, entry, similarity = query_N[leads], entry_N[leads], similarity_N[leads]
    found_BS = np.full(own_BS.shape, -1, np.int32)
    found_BS[query, entry] = class_N[leads]
    for shots in range(1, num_shots):
        np.copyto(found_BS[:, shots], found_BS[:, shots - 1], where=found_BS[:, shots] < 0)

    num_leads = np.bincount(cell_N[leads], minlength=own_BS.size)[cell_N[leads]]
    equals_last = (entry > 0) & (best_BS[query, entry - 1] == similarity)
    tied = np.flatnonzero((num_leads > 1) | equals_last)
    tied_NS = (best_BS[query[tied]] == similarity[tied, None]) & (np.arange(num_shots) >= entry[tied, None])
    row, shots_ = np.nonzero(tied_NS)
    open_BS[query[tied[row]], shots_] = True
    return np.where(best_BS > own_BS, found_BS, class_B[:, None].astype(np.int32))
