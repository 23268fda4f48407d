"""Exact search in a flat faiss index, with answers that do not depend on the batch or the device.

Axes: N rows of the index, D the embedding's width, Q queries, B queries of one block, W candidates, K answers.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

# More answers than this faiss does not give on a GPU (it keeps them in registers); wider searches run on the CPU.
_GPU_MAX_WIDTH = 2048
_SPARE_CANDIDATES = 8
_RESCORED_AT_ONCE = 2**23  # numbers of a block of candidates, 64 MiB as float64


@dataclass(frozen=True, eq=False)
class Matches:
    """The answers to queries, the best first; equal similarities in ascending order of the reference's id.

    Attributes:
        similarity_QK: float32, cosine, -1..1 (up to rounding); equal to the last bit however queries are batched.
        label_QK: object array of str.
        reference_QK: int64, the reference's id (see `Gallery.references`).
    """

    similarity_QK: np.ndarray
    label_QK: np.ndarray
    reference_QK: np.ndarray


class FlatRows:
    """Rows [N, D] float32 that are searched where they are, in a mapped file say, as an IndexFlatIP would search them."""

    def __init__(self, embedding_ND: np.ndarray):
        """Keeps a view of the rows."""
        self._embedding_ND = embedding_ND

    def search(self, query_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Inner product (float32) and row (int64) of the `k` nearest, [Q, k]."""
        similarity_QK, row_QK = numpy_method(faiss, "knn")(
            query_QD, self._embedding_ND, k, metric=faiss.METRIC_INNER_PRODUCT
        )
        return similarity_QK, row_QK


def numpy_method(owner: Any, name: str) -> Any:
    """The method `name` of a faiss index, or of faiss, for numpy arrays.

    Importing pytorch-metric-learning imports faiss.contrib.torch_utils, which replaces these methods in the whole process: the
    new ones refuse memory-mapped arrays and search parameters. faiss's own then stay beside them as `name_numpy`.
    """
    return getattr(owner, f"{name}_numpy", None) or getattr(owner, name)


def on_gpu(index: Any) -> Any:
    """A copy of the index on the first GPU that faiss sees, or None without one."""
    if faiss.get_num_gpus() == 0:
        return None
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


def search_distinct(
    index: Any, gpu_index: Any, embedding_ND: np.ndarray, query_QD: np.ndarray, code_N: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity (float32) and row (int64) of the `k` most similar rows of distinct code, [Q, k], the best first.

    Equal similarities come in ascending order of the row. Of a code its most similar row is taken.

    Args:
        index: IndexFlatIP or FlatRows with the rows of `embedding_ND`.
        gpu_index: the same on a GPU, or None.
        embedding_ND: float32, rows of length 1.
        query_QD: the same.
        code_N: int64; the label's number, or the row's where every row counts.
        k: at most the number of distinct codes.
    """
    num_rows, dim = embedding_ND.shape
    similarity_QK = np.empty((len(query_QD), k), dtype=np.float32)
    row_QK = np.empty((len(query_QD), k), dtype=np.int64)
    pending, width = np.arange(len(query_QD)), min(k + _SPARE_CANDIDATES, num_rows)
    while len(pending):
        searched = index if gpu_index is None or width > _GPU_MAX_WIDTH else gpu_index
        block = max(1, _RESCORED_AT_ONCE // (width * dim))
        unsettled = []
        for start in range(0, len(pending), block):
            query_B = pending[start : start + block]
            similarity_BK, row_BK, settled_B = _nearest(searched, embedding_ND, query_QD[query_B], code_N, k, width)
            similarity_QK[query_B[settled_B]] = similarity_BK[settled_B]
            row_QK[query_B[settled_B]] = row_BK[settled_B]
            unsettled.append(query_B[~settled_B])
        pending, width = np.concatenate(unsettled), min(4 * width, num_rows)
    return similarity_QK, row_QK


def _nearest(
    index: Any, embedding_ND: np.ndarray, query_BD: np.ndarray, code_N: np.ndarray, k: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity and row of the `k` best of distinct code among faiss's first `width`, [B, k], and where that is certain.

    faiss's float32 sums differ in their last bits with the batch, the place of a row and the device. Its candidates are
    summed again in float64, each pair alone, so that equal embeddings tie; no row beyond the candidates can come
    before or tie with the last answer when that one lies above the candidates' end by more than the rounding error. An answer
    that is short of `k` codes is not certain and holds rows of repeated code.
    """
    rough_BW, row_BW = numpy_method(index, "search")(query_BD, width)
    similarity_BK, row_BK, num_codes_B = rank_candidates(embedding_ND, query_BD, row_BW, code_N, k)
    # Twice the bound of a float32 sum of D products of unit vectors in any order.
    # Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 3.1.
    error = embedding_ND.shape[1] * np.finfo(np.float32).eps
    beyond_B = similarity_BK[:, -1] > rough_BW[:, -1] + error
    settled_B = (num_codes_B >= k) & (beyond_B | (width == len(embedding_ND)))
    return similarity_BK, row_BK, settled_B


def rank_candidates(
    embedding_ND: np.ndarray, query_BD: np.ndarray, row_BW: np.ndarray, code_N: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity and row of the `k` best candidates of distinct code, [B, k], and how many codes there are, [B].

    Similarities are summed in float64, each pair alone, so that they depend on nothing but the pair. Where a query has fewer
    than `k` codes, the answers behind its codes hold rows of repeated code or the row -1.

    Args:
        embedding_ND: float32, rows of length 1.
        query_BD: the same.
        row_BW: int64, W at least k, distinct within a query; -1 stands for no candidate.
        code_N: int64, as in `search_distinct`.
        k: answers wanted.
    """
    similarity_BW = np.vecdot(embedding_ND[row_BW].astype(np.float64), query_BD[:, None].astype(np.float64))
    similarity_BW = np.where(row_BW < 0, -np.inf, similarity_BW).astype(np.float32)
    order_BW = np.lexsort((row_BW, -similarity_BW), axis=1)
    similarity_BW = np.take_along_axis(similarity_BW, order_BW, axis=1)
    row_BW = np.take_along_axis(row_BW, order_BW, axis=1)
    first_BW = _first_of_each(np.where(row_BW < 0, -1, code_N[row_BW])) & (row_BW >= 0)
    kept_BK = np.argsort(~first_BW, axis=1, kind="stable")[:, :k]
    similarity_BK, row_BK = (np.take_along_axis(values_BW, kept_BK, axis=1) for values_BW in (similarity_BW, row_BW))
    return similarity_BK, row_BK, first_BW.sum(axis=1)


def _first_of_each(code_BW: np.ndarray) -> np.ndarray:
    order_BW = np.argsort(code_BW, axis=1, kind="stable")
    sorted_BW = np.take_along_axis(code_BW, order_BW, axis=1)
    new_BW = np.ones(code_BW.shape, dtype=bool)
    new_BW[:, 1:] = sorted_BW[:, 1:] != sorted_BW[:, :-1]
    first_BW = np.empty_like(new_BW)
    np.put_along_axis(first_BW, order_BW, new_BW, axis=1)
    return first_BW
