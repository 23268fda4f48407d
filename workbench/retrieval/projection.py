"""Embeddings as points of a map: PCA, which is quick and linear, or UMAP, which keeps neighbours together.

Axes: N rows, M rows placed later, D the embedding's width.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Method = Literal["pca", "umap"]
_UMAP_NEIGHBOURS = 15


@dataclass(frozen=True, eq=False)
class Projection:
    """A map and how further embeddings get their place in it.

    Attributes:
        xy_N2: float64, where the rows lie.
        words: what the two axes are and what they are not.
        place: from embeddings [M, D] to places [M, 2]; the map stays as it is.
    """

    xy_N2: np.ndarray
    words: str
    place: Callable[[np.ndarray], np.ndarray]


def project(embedding_ND: np.ndarray, method: Method = "pca", seed: int = 0) -> Projection:
    """Returns a map of the rows.

    Args:
        embedding_ND: finite numbers, at least one row; for UMAP at least five.
        method: `pca` or `umap`.
        seed: of UMAP; PCA draws nothing.

    Raises:
        ValueError: another shape or method, or too few rows.

    Source: McInnes, Healy and Melville, "UMAP", 2018, through umap-learn, cosine distance, its default of 15 neighbours.
    """
    embedding_ND = np.asarray(embedding_ND, dtype=np.float64)
    if embedding_ND.ndim != 2 or embedding_ND.size == 0 or not np.isfinite(embedding_ND).all():
        raise ValueError(f"A map wants finite embeddings [rows, width]; found an array of {list(embedding_ND.shape)}.")
    if method == "pca":
        return _pca(embedding_ND)
    if method == "umap":
        return _umap(embedding_ND, seed)
    raise ValueError(f"The method of a map is pca or umap; found {method!r}.")


def _pca(embedding_ND: np.ndarray) -> Projection:
    mean_D = embedding_ND.mean(axis=0)
    _, spread, axis_AD = np.linalg.svd(embedding_ND - mean_D, full_matrices=False)
    axis_2D = np.zeros((2, embedding_ND.shape[1]))  # one row or one column spans no plane: the rest stays 0
    axis_2D[: len(axis_AD)] = axis_AD[:2]
    largest_2 = axis_2D[np.arange(2), np.abs(axis_2D).argmax(axis=1)]
    axis_2D[largest_2 < 0] *= -1  # a singular vector has no sign of its own: the same map in every run
    total = float((spread**2).sum())
    share = float((spread[:2] ** 2).sum()) / total if total > 0 else 1.0
    words = f"PCA: the two axes hold {share:.0%} of the variance, so that points may look nearer than they are"

    def place(more_MD: np.ndarray) -> np.ndarray:
        return np.asarray((np.asarray(more_MD, dtype=np.float64) - mean_D) @ axis_2D.T)

    return Projection(place(embedding_ND), words, place)


def _umap(embedding_ND: np.ndarray, seed: int) -> Projection:
    if len(embedding_ND) < 5:
        raise ValueError(f"UMAP wants at least 5 rows, found {len(embedding_ND)}; take pca.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it misses Tensorflow, which nothing here needs
        import umap  # here, because it compiles for seconds, and PCA needs none of it

    neighbours = min(_UMAP_NEIGHBOURS, len(embedding_ND) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, metric="cosine", init="pca", random_state=seed, n_jobs=1)
    xy_N2 = np.asarray(reducer.fit_transform(embedding_ND.astype(np.float32)), dtype=np.float64)
    words = f"UMAP, {neighbours} neighbours, cosine: who is near whom counts, distances and sizes of clusters do not"
    return Projection(xy_N2, words, lambda more_MD: np.asarray(reducer.transform(np.asarray(more_MD, np.float32))))
