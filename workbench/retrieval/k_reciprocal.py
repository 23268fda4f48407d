"""k-reciprocal encoding: an image is described by who its neighbours are, and two images are near if they share neighbours.

Axes: N images (the queries, then the gallery), Q queries, G gallery rows, B queries of a block, K neighbours, D width. Nothing of N x N is
ever held: neighbour lists are found in blocks, the encodings are sparse, and distances are made a block of queries at a time.

Of image i, with d its Euclidean distance to others, squared once and divided by the largest of them:
    R(i)   the images among i's first k1 that have i among their first k1 (i itself is always in)
    R*(i)  R(i), with the like set (k1 / 2) of each of its members of which more than two thirds are in R(i)
    V(i)   exp(-d) on R*(i), sum 1; then the mean of the V of i's first k2 (i itself is the first)
    J(q,g) 1 - sum(min(V(q), V(g))) / sum(max(V(q), V(g)))
and the distance is (1 - weight) J + weight d.

Source: Zhong, Zheng, Cao and Li 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding", sections 3.2 to 3.5.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from workbench.retrieval.similarities import CosineSimilarity, Similarity

_BLOCK_BYTES = 32 * 2**20
_GROUP_SIZE = 16
_ROUNDING = 1e-14
_DECIMALS = 12  # what differs by rounding alone ties


@dataclass(frozen=True)
class Neighbours:
    """The images nearest to each, the nearest first; equally near ones in the order of their rows.

    Attributes:
        row_NK: int64.
        similarity_NK: cosine; infinite for an image to itself.
        least_N: the smallest similarity of each to any other.
    """

    row_NK: np.ndarray
    similarity_NK: np.ndarray
    least_N: np.ndarray


@dataclass(frozen=True)
class RerankedDistances:
    """Similarities that are negated re-ranked distances, a block of queries at a time.

    Attributes:
        cosine: of the queries to the gallery, float64.
        largest_Q: the largest distance of each query to any image, squared where `squared`.
        encoding_QN: V of the queries, rows sum to 1.
        encoding_NG: V of the gallery, transposed.
        weight: of the distance itself, 0 to 1; the neighbours have the rest.
        squared: the distance is squared once, as the authors do.
    """

    cosine: CosineSimilarity
    largest_Q: np.ndarray
    encoding_QN: csr_array
    encoding_NG: csr_array
    weight: float
    squared: bool
    is_cosine: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (Q, G)."""
        return self.cosine.shape

    @property
    def itemsize(self) -> int:
        """Returns the bytes of a similarity."""
        return self.cosine.itemsize

    def block(self, start: int, stop: int) -> np.ndarray:
        """Returns similarity_BG of queries start..stop, minus their re-ranked distances (0 to 1), float64, a new array.

        Rounded to 12 decimals, so that rounding errors break no tie.
        """
        distance_BG = _distances(self.cosine.block(start, stop), self.squared)
        distance_BG *= (self.weight / self.largest_Q[start : start + len(distance_BG)])[:, None]
        distance_BG += 1 - self.weight
        for distance_G, query in zip(distance_BG, range(start, stop), strict=False):
            shared_G = self._shared(query)
            shared_G /= 2 - shared_G  # both sum to 1: the larger ones sum to 2 less the smaller ones
            shared_G *= 1 - self.weight
            distance_G -= shared_G
        np.round(distance_BG, _DECIMALS, out=distance_BG)
        return np.negative(distance_BG, out=distance_BG)

    def take(self, columns: np.ndarray) -> "RerankedDistances":
        """Returns the similarities to some gallery rows only; neighbours stay what they were."""
        return replace(self, cosine=self.cosine.take(columns), encoding_NG=self.encoding_NG[:, columns])

    def ask(self, rows: np.ndarray) -> "RerankedDistances":
        """Returns the similarities of some queries only; neighbours stay what they were."""
        cosine = CosineSimilarity(self.cosine.query_QD[rows], self.cosine.gallery_GD)
        return replace(self, cosine=cosine, largest_Q=self.largest_Q[rows], encoding_QN=self.encoding_QN[rows])

    def _shared(self, query: int) -> np.ndarray:
        """Returns the sum of the smaller of V(query) and V(g), for each gallery row g, from the lists of who has a neighbour."""
        own = slice(*self.encoding_QN.indptr[query : query + 2])
        neighbour_M, value_M = self.encoding_QN.indices[own], self.encoding_QN.data[own]
        start_M, stop_M = self.encoding_NG.indptr[neighbour_M], self.encoding_NG.indptr[neighbour_M + 1]
        size_M = stop_M - start_M
        cell_E = np.repeat(start_M - (np.cumsum(size_M) - size_M), size_M) + np.arange(size_M.sum())
        smaller_E = np.minimum(self.encoding_NG.data[cell_E], np.repeat(value_M, size_M))
        shared_G = np.bincount(self.encoding_NG.indices[cell_E], weights=smaller_E, minlength=self.shape[1])
        return shared_G.astype(np.float64, copy=False)  # counts, where there is nothing to sum


def encode_neighbours(
    query_QD: np.ndarray, gallery_GD: np.ndarray, k1: int, k2: int, weight: float, squared: bool
) -> RerankedDistances:
    """Returns the re-ranked distances of queries to a gallery, all images of both being each other's neighbours.

    An image is its own first neighbour, whatever else equals it; k1 and k2 beyond what there is mean all there is.

    Args:
        query_QD: float64, length 1.
        gallery_GD: float64, length 1.
        k1: neighbours that may be reciprocal, at least 1; half of them, rounded to even, expand the set.
        k2: images whose encodings are averaged, at least 1; 1 averages nothing.
        weight: of the distance itself, 0 to 1.
        squared: the distance is squared once.
    """
    embedding_ND = np.concatenate([query_QD, gallery_GD])
    found = find_neighbours(CosineSimilarity(embedding_ND, embedding_ND), max(k1 + 1, k2), to_itself=True)
    largest_N = _distances(found.least_N.copy(), squared)
    largest_N[found.least_N > 1 - _ROUNDING] = 1.0  # all images are equal
    members = _expand(_reciprocal(found.row_NK[:, : k1 + 1]), _reciprocal(found.row_NK[:, : round(k1 / 2) + 1]))
    encoding = _mean_of_nearest(_weigh(members, embedding_ND, largest_N, squared), found.row_NK[:, :k2])
    num_queries = len(query_QD)
    return RerankedDistances(
        CosineSimilarity(embedding_ND[:num_queries], embedding_ND[num_queries:]),
        largest_N[:num_queries],
        encoding[:num_queries],
        encoding[num_queries:].T.tocsr(),
        weight,
        squared,
    )


def find_neighbours(similarity: Similarity, k: int, *, to_itself: bool = False) -> Neighbours:
    """Returns the k columns nearest to each row (all, if there are fewer), in blocks of rows.

    Args:
        similarity: of rows to columns.
        k: at least 1.
        to_itself: row i and column i are one image, which comes first.
    """
    num_rows, num_columns = similarity.shape
    k = min(k, num_columns)
    rows_a_block = max(1, _BLOCK_BYTES // (similarity.itemsize * num_columns))
    parts = []
    for start in range(0, num_rows, rows_a_block):
        similarity_BN = similarity.block(start, min(start + rows_a_block, num_rows))
        least_B = similarity_BN.min(axis=1)
        if to_itself:
            own = np.arange(len(similarity_BN))
            similarity_BN[own, start + own] = np.inf
        parts.append((*_nearest(similarity_BN, k), least_B))
    return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _nearest(similarity_BN: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row_BK, similarity_BK): only what reaches the k-th largest of the maxima of groups of columns is sorted."""
    num_rows, num_columns = similarity_BN.shape
    size = min(_GROUP_SIZE, num_columns // k)
    group_BM = similarity_BN[:, : num_columns // size * size].reshape(num_rows, size, -1).max(axis=1)
    bound_B = np.partition(group_BM, -k, axis=1)[:, -k]
    cell_C = np.flatnonzero(similarity_BN >= bound_B[:, None])
    row_C, column_C = np.divmod(cell_C, num_columns)
    value_C = similarity_BN.ravel()[cell_C]
    order = np.lexsort((column_C, -value_C, row_C))
    first_B = np.searchsorted(row_C, np.arange(num_rows))
    chosen_BK = order[first_B[:, None] + np.arange(k)]
    return column_C[chosen_BK], value_C[chosen_BK]


def _distances(similarity: np.ndarray, squared: bool) -> np.ndarray:
    """Returns the Euclidean distances of images of this cosine similarity, overwritten, squared or not."""
    similarity *= -2
    similarity += 2
    np.maximum(similarity, 0, out=similarity)
    return similarity if squared else np.sqrt(similarity, out=similarity)


def _reciprocal(row_NK: np.ndarray) -> csr_array:
    """Returns R: 1 where i has j in its list and j has i."""
    num_images, k = row_NK.shape
    listed = csr_array(
        (np.ones(row_NK.size, np.int32), row_NK.ravel(), np.arange(0, row_NK.size + 1, k)),
        shape=(num_images, num_images),
    )
    return listed.multiply(listed.T.tocsr()).tocsr()


def _expand(reciprocal: csr_array, half: csr_array) -> csr_array:
    """Returns R*, stored where i has j: each member's half-sized set joins if more than two thirds of it are members."""
    overlap = (reciprocal @ half.T.tocsr()).multiply(reciprocal).tocsr()
    size_N = np.diff(half.indptr)
    overlap.data = (3 * overlap.data > 2 * size_N[overlap.indices]).astype(np.int32)
    overlap.eliminate_zeros()
    return (reciprocal + overlap @ half).tocsr()


def _weigh(members: csr_array, embedding_ND: np.ndarray, largest_N: np.ndarray, squared: bool) -> csr_array:
    """Returns V before averaging: exp(-d) on the members, each row divided by its sum."""
    value = np.empty(members.nnz)
    for image in range(len(embedding_ND)):
        own = slice(*members.indptr[image : image + 2])
        distance_M = _distances(embedding_ND[members.indices[own]] @ embedding_ND[image], squared)
        weight_M = np.exp(-distance_M / largest_N[image])
        value[own] = weight_M / weight_M.sum()
    return csr_array((value, members.indices, members.indptr), shape=members.shape)


def _mean_of_nearest(encoding: csr_array, row_NK: np.ndarray) -> csr_array:
    """Returns the mean of the encodings of each image's first K."""
    k = row_NK.shape[1]
    if k == 1:
        return encoding
    mean = csr_array(
        (np.full(row_NK.size, 1 / k), row_NK.ravel(), np.arange(0, row_NK.size + 1, k)), shape=encoding.shape
    )
    return (mean @ encoding).tocsr()
