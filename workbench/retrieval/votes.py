"""How a gallery names a query: a value for every class under each vote, and the rank of the right class among them.

Axes: N rows of the gallery (of votes: voters), P photographs, C classes, M centres, B queries of a chunk, D width. Values
of classes are compared first by `first_CB`, then, where there is one, by `second_CB`; what is equal in both ties. Equal values are never
ordered: a hit is then its expected value, 0 to 1, over all orders of the tied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

VOTES = ("nearest", "prototype", "kmeans:m", "knn:k", "softmax_knn:k")
_FIXED_POINT = 2.0**40
_MAX_STEPS = 100


@dataclass(frozen=True)
class ClassValues:
    """What a vote says of B queries: the larger, the likelier.

    Attributes:
        first_CB: the value that decides: similarity, number of votes, or weight of the votes.
        second_CB: similarity of the nearest reference of the class, decides where the first is equal; or None.
    """

    first_CB: np.ndarray
    second_CB: np.ndarray | None = None

    @property
    def similarity_CB(self) -> np.ndarray:
        """Returns the similarity of the query to the class: its nearest reference or centre, -1 to 1."""
        return self.first_CB if self.second_CB is None else self.second_CB

    def rank_of(self, class_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ahead_B, tied_B), int32: how many classes beat class_B, and how many others equal it."""
        columns = np.arange(len(class_B))
        own_B = self.first_CB[class_B, columns]
        ahead_CB, equal_CB = self.first_CB > own_B, self.first_CB == own_B
        if self.second_CB is not None:
            own_B = self.second_CB[class_B, columns]
            ahead_CB = ahead_CB | (equal_CB & (self.second_CB > own_B))
            equal_CB = equal_CB & (self.second_CB == own_B)
        return _count(ahead_CB), _count(equal_CB) - 1

    def best(self) -> np.ndarray:
        """Returns best_CB, bool: the classes that nothing beats; more than one in a column where they tie."""
        best_CB = self.first_CB == self.first_CB.max(axis=0)
        if self.second_CB is not None:
            among_CB = np.where(best_CB, self.second_CB, -np.inf)
            best_CB &= among_CB == among_CB.max(axis=0)
        return best_CB

    def take(self, columns: np.ndarray) -> "ClassValues":
        """Returns the values of some of the queries (indices, or a mask)."""
        second_CB = None if self.second_CB is None else self.second_CB[:, columns]
        return ClassValues(self.first_CB[:, columns], second_CB)


def parse_vote(vote: str) -> tuple[str, int]:
    """Returns (kind, number): ("nearest", 0), ("kmeans", m) with m centres, ("knn", k) or ("softmax_knn", k).

    "prototype", the class mean, is ("kmeans", 1): one centre a class.

    Raises:
        ValueError: none of the votes that there are.
    """
    kind, colon, number = vote.partition(":") if isinstance(vote, str) else ("", "", "")
    if vote == "nearest":
        return kind, 0
    if vote == "prototype":
        return "kmeans", 1
    if kind in ("kmeans", "knn", "softmax_knn") and colon and number.isdecimal() and int(number) > 0:
        return kind, int(number)
    raise ValueError(f"vote must be one of {', '.join(VOTES)} (m and k at least 1), {vote!r} was given")


def expected_hit(ahead_B: np.ndarray, tied_B: np.ndarray, top: int) -> np.ndarray:
    """Returns the chance, 0 to 1, that the right class is among the first `top` classes when those that tie are shuffled.

    `ties: expected`, the mean over all orders; without a tie 1 if fewer than `top` classes are ahead, else 0.
    """
    return np.clip((top - ahead_B) / (tied_B + 1.0), 0.0, 1.0)


def image_hit(
    similarity_PB: np.ndarray,
    columns: np.ndarray,
    best_CB: np.ndarray,
    class_B: np.ndarray,
    photo_by_rank_P: np.ndarray,
    num_photos_C: np.ndarray,
    shots: int,
    tops: Sequence[int],
) -> np.ndarray:
    """Returns hit_TB, 0 to 1: whether any of the gallery's first T photographs is of the right class (image level).

    Only photographs of classes whose best is at least the right class's best can stand before it, so only those are counted.
    Photographs that tie are shuffled: 1 less the chance that none of the right class is drawn (hypergeometric).

    Args:
        similarity_PB: similarity of each photograph, its best copy.
        columns: int64, the queries of it to look at; the arrays that follow have these alone.
        best_CB: best of each class within the gallery.
        class_B: the right class.
        photo_by_rank_P: photographs by class, within a class by rank in this draw.
        num_photos_C: photographs of each class.
        shots: the gallery holds the first `shots` of each class.
        tops: the T.
    """
    own_B = best_CB[class_B, np.arange(len(class_B))]
    rival_C, rival_B = np.nonzero(best_CB >= own_B)
    size = np.minimum(num_photos_C, shots)[rival_C]
    start_C = np.cumsum(num_photos_C) - num_photos_C
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    photo, query = photo_by_rank_P[np.repeat(start_C[rival_C], size) + within], np.repeat(rival_B, size)
    value, right = similarity_PB[photo, columns[query]], np.repeat(rival_C == class_B[rival_B], size)
    ahead_B = np.bincount(query[value > own_B[query]], minlength=len(own_B))
    equal = value == own_B[query]
    own_tied_B = np.bincount(query[equal & right], minlength=len(own_B))
    others_tied_B = np.bincount(query[equal & ~right], minlength=len(own_B))
    hit_TB = np.empty((len(tops), len(own_B)))
    for row, top in enumerate(tops):
        places_B = top - ahead_B
        safe_B = np.clip(places_B, 0, others_tied_B)
        all_B = others_tied_B + own_tied_B
        log_missed_B = (
            gammaln(others_tied_B + 1)
            - gammaln(others_tied_B - safe_B + 1)
            + gammaln(all_B - safe_B + 1)
            - gammaln(all_B + 1)
        )
        hit_TB[row] = np.where(places_B <= 0, 0.0, np.where(places_B > others_tied_B, 1.0, -np.expm1(log_missed_B)))
    return hit_TB


def nearest_values(
    similarity_PB: np.ndarray, by_rank: Sequence[tuple[np.ndarray, np.ndarray]], num_classes: int, shots: Sequence[int]
) -> Iterator[ClassValues]:
    """Returns, for each of the ascending shots, the similarity of the nearest photograph of rank below it of each class.

    One pass serves all shots: the value of k shots is a running maximum over the draw's order. A value lives until
    the next one is asked for. by_rank is what `photographs_by_rank` gives; rank 0 has every class.
    """
    best_CB = np.full((num_classes, similarity_PB.shape[1]), -np.inf, similarity_PB.dtype)
    slice_CB = np.empty_like(best_CB)
    done = 0
    for count in shots:
        for photos, classes in by_rank[done:count]:
            taken = np.take(similarity_PB, photos, axis=0, out=slice_CB[: len(photos)], mode="clip")
            if len(photos) == num_classes:
                np.maximum(best_CB, taken, out=best_CB)
            else:
                best_CB[classes] = np.maximum(best_CB[classes], taken)
        done = count
        yield ClassValues(best_CB)


def neighbour_values(similarity_BP: np.ndarray, class_P: np.ndarray, k: int, temperature: float | None) -> ClassValues:
    """Returns the votes of the k nearest photographs of a gallery for each class; all vote where there are fewer than k.

    Equal votes go to the class with the nearer reference; so classes without a vote come last, by their nearest reference. Photographs
    that tie for the last places among the k share these places equally.

    Args:
        similarity_BP: the gallery's photographs, sorted by class.
        class_P: ascending; every class is there.
        k: number of neighbours.
        temperature: None counts votes; else they weigh exp(similarity / temperature), in fixed point (2^-40 of the
            nearest one's weight) so that the same weights in another order have the same sum.

    Source: softmax weighting with temperature 0.07: Oquab et al. 2023 (DINOv2), after Wu et al. 2018.
    """
    start_C = np.flatnonzero(np.r_[True, class_P[1:] != class_P[:-1]])
    best_BC = np.maximum.reduceat(similarity_BP, start_C, axis=1)
    k, num_queries = min(k, len(class_P)), len(similarity_BP)
    last_B = np.partition(similarity_BP, len(class_P) - k, axis=1)[:, len(class_P) - k]
    query_N, photo_N = np.divmod(np.flatnonzero(similarity_BP >= last_B[:, None]), len(class_P))  # N voters
    similarity_N = similarity_BP[query_N, photo_N]
    sure_N = similarity_N > last_B[query_N]
    num_sure_B = np.bincount(query_N[sure_N], minlength=num_queries)
    num_shared_B = np.bincount(query_N[~sure_N], minlength=num_queries)
    places_B = k - num_sure_B
    if temperature is None:  # votes times num_shared_B: whole numbers
        part_N = np.where(sure_N, num_shared_B[query_N], places_B[query_N])
    else:
        weight_N = np.where(sure_N, 1.0, (places_B / num_shared_B)[query_N]) * _FIXED_POINT
        nearest_N = best_BC.max(axis=1)[query_N]
        weight_N *= np.exp((similarity_N.astype(np.float64) - nearest_N) / temperature)
        part_N = np.rint(weight_N).astype(np.int64)
    votes_BC = np.zeros(best_BC.shape, np.int64)
    num_of_P = np.repeat(np.arange(len(start_C)), np.diff(np.r_[start_C, len(class_P)]))
    np.add.at(votes_BC.ravel(), query_N * len(start_C) + num_of_P[photo_N], part_N)
    return ClassValues(votes_BC.T, best_BC.T)


def class_centres(embedding_ND: np.ndarray, class_N: np.ndarray, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (centre_MD, class_M): up to m centres of each class, float32 of length 1, sorted by class.

    Rows of a class are clustered by Lloyd's iterations from a k-means++ start that depends on the seed alone; m = 1 is the mean. A
    class with at most m different rows keeps these. Rows that cancel out give a centre of zeros, similarity 0.
    """
    centres: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    for rows in np.split(np.arange(len(class_N)), np.flatnonzero(np.diff(class_N)) + 1):
        found = _cluster(embedding_ND[rows].astype(np.float64), m, np.random.default_rng(seed))
        length = np.linalg.norm(found, axis=1, keepdims=True)
        centres.append(np.divide(found, length, out=np.zeros_like(found), where=length > 1e-7).astype(np.float32))
        classes.append(np.full(len(found), class_N[rows[0]]))
    return np.concatenate(centres), np.concatenate(classes)


def _cluster(point_ND: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    if m == 1:
        return point_ND.mean(axis=0, keepdims=True)
    distinct_ND = np.unique(point_ND, axis=0)
    if len(distinct_ND) <= m:
        return distinct_ND
    centre_MD = point_ND[[rng.integers(len(point_ND))]]
    for _ in range(m - 1):
        distance_N = _squared_distance(point_ND, centre_MD).min(axis=1)
        if not distance_N.any():
            break
        centre_MD = np.vstack([centre_MD, point_ND[rng.choice(len(point_ND), p=distance_N / distance_N.sum())]])
    nearest_N = _squared_distance(point_ND, centre_MD).argmin(axis=1)
    for _ in range(_MAX_STEPS):
        centre_MD = np.stack([point_ND[nearest_N == cluster].mean(axis=0) for cluster in np.unique(nearest_N)])
        before_N, nearest_N = nearest_N, _squared_distance(point_ND, centre_MD).argmin(axis=1)
        if np.array_equal(before_N, nearest_N):
            break
    return centre_MD


def _squared_distance(point_ND: np.ndarray, centre_MD: np.ndarray) -> np.ndarray:
    cross_NM = point_ND @ centre_MD.T
    squared = (point_ND**2).sum(axis=1)[:, None] - 2 * cross_NM + (centre_MD**2).sum(axis=1)
    squared[squared < 1e-12] = 0.0
    return squared


def _count(mask_CB: np.ndarray) -> np.ndarray:
    return np.add.reduce(mask_CB.view(np.uint8), axis=0, dtype=np.int32)
