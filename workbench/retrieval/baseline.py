"""What an accuracy is worth: a colour histogram under the same protocol, and what a guesser gets.

Axes: N images, D = bins ** 3 cells of the histogram, Q queries, C classes of the gallery.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image
from scipy.special import digamma

from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, Picture, check_quarantine, load_image
from workbench.retrieval.arrays import read_labels
from workbench.retrieval.stats import Metric

BINS = 8
"""A channel. Source: the order of Swain and Ballard 1991 (16 x 16 x 8 cells; a half or twice as many changed little)."""

SIZE_PX = 64
"""The image is reduced to a square of 64 x 64 px, 4096 pixels for at most 512 cells."""

_EXACT = "exact, so the interval has no width"


class ColourHistograms(NamedTuple):
    """Colour histograms of a catalog's images.

    Attributes:
        embedding_ND: float32, rows of length 1, in the catalog's order.
        catalog: one row for each row of embedding_ND: the images that could be read.
        source_N: int64, 0 to N-1: each row comes from a photograph of its own.
        quarantine: the rest: columns path, reason.
    """

    embedding_ND: np.ndarray
    catalog: Catalog
    source_N: np.ndarray
    quarantine: pd.DataFrame


def colour_histogram(images: Iterable[Image.Image], bins: int = BINS, size_px: int = SIZE_PX) -> np.ndarray:
    """The joint RGB histogram of each image, [N, bins ** 3] float32, square roots of shares, so that rows have length 1.

    The inner product of two rows is the Bhattacharyya coefficient of the histograms, 0..1, and Euclidean distance orders as
    Hellinger's. Cell (r * bins + g) * bins + b counts the pixels with r = red * bins // 256 and so on. Size and aspect
    ratio do not count: the image is reduced to a square by averaging. No image gives [0, bins ** 3].

    Source: Swain and Ballard 1991, "Color Indexing" (the joint histogram); Arandjelovic and Zisserman 2012, "Three
    things everyone should know to improve object retrieval", section 3 (square root, then Euclidean distance).

    Raises:
        ValueError: `bins` out of 1..256 or `size_px` under 1.
    """
    if not 1 <= bins <= 256 or size_px < 1:
        raise ValueError(f"bins is 1..256 and size_px at least 1; found {bins} and {size_px}.")
    rows = []
    for image in images:
        small = image.convert("RGB").resize((size_px, size_px), Image.Resampling.BOX)
        bin_P3 = np.asarray(small).reshape(-1, 3).astype(np.int64) * bins // 256
        count_D = np.bincount(bin_P3 @ np.array([bins * bins, bins, 1]), minlength=bins**3)
        rows.append(np.sqrt(count_D / len(bin_P3)).astype(np.float32))
    return np.stack(rows) if rows else np.empty((0, bins**3), dtype=np.float32)


def embed_colour_histogram(
    catalog: Catalog,
    *,
    bins: int = BINS,
    size_px: int = SIZE_PX,
    num_workers: int | None = None,
    quarantine_limit: float = 0.01,
) -> ColourHistograms:
    """The colour histograms of a catalog's images, to be evaluated under the same protocol as a model's embeddings.

    Args:
        catalog: rows in any order; the result keeps it.
        bins: cells a channel (see `colour_histogram`).
        size_px: side of the square that an image is reduced to, px.
        num_workers: decoding threads; None is one a core.
        quarantine_limit: share of images that may fail to decode.

    Raises:
        QuarantineError: more images than `quarantine_limit` cannot be decoded.
        ValueError: an argument out of range.
    """

    def embed(picture: Picture) -> np.ndarray | str:
        try:
            return colour_histogram([load_image(picture, target_px=size_px)], bins, size_px)[0]
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor(num_workers) as threads:
        results = list(threads.map(embed, catalog.pictures()))
    ok_M = np.array([isinstance(result, np.ndarray) for result in results], dtype=bool)
    reasons = [result for result in results if isinstance(result, str)]
    quarantine = pd.DataFrame({"path": catalog.names()[~ok_M], "reason": reasons}, dtype="str")
    check_quarantine(quarantine, len(catalog), quarantine_limit)
    rows = [result for result in results if isinstance(result, np.ndarray)]
    embedding_ND = np.stack(rows) if rows else np.empty((0, bins**3), dtype=np.float32)
    return ColourHistograms(embedding_ND, catalog.take(np.flatnonzero(ok_M)), np.arange(len(rows)), quarantine)


def chance_accuracy(reference_labels: ArrayLike, query_labels: ArrayLike, k: int) -> tuple[float, float]:
    """The expected accuracy@k at class level, (micro, macro), 0..1, of a guesser who names k distinct classes.

    The classes are drawn uniformly among the C of the gallery, so that a query is answered with probability
    min(k, C) / C, and with 0 where its class is not in the gallery: leave such queries out where the accuracy beside it
    does. Exact. How many references a class has does not matter.

    Raises:
        ValueError: no reference, no query, or k under 1.
    """
    reference_labels, query_labels = _check_labels(reference_labels, query_labels, k)
    num_classes = len(set(reference_labels))
    return _averages(query_labels, {label: min(k, num_classes) / num_classes for label in reference_labels})


def chance_image_accuracy(
    reference_labels: ArrayLike, query_labels: ArrayLike, k: int, shots: int | None = None
) -> tuple[float, float]:
    """The expected accuracy@k at image level, (micro, macro), 0..1, of a guesser who names k distinct references.

    Of the N references, n show the query's class: the probability that one is among k is 1 - (N-n choose k) / (N choose k).
    Exact.

    Args:
        reference_labels: [N], the label of each reference; photographs, without augmented copies.
        query_labels: [Q].
        k: references named; all of them where there are fewer.
        shots: references a class that a draw keeps; a class with fewer has all of them. None keeps all.

    Raises:
        ValueError: no reference, no query, or k or shots under 1.
    """
    reference_labels, query_labels = _check_labels(reference_labels, query_labels, k)
    if shots is not None and shots < 1:
        raise ValueError(f"shots must be at least 1 or None, found {shots}.")
    names, count_C = np.unique(reference_labels, return_counts=True)
    count_C = count_C if shots is None else np.minimum(count_C, shots)
    found_C = _found_among_first(count_C, np.full_like(count_C, count_C.sum()), k)
    return _averages(query_labels, dict(zip(names, found_C.tolist(), strict=True)))


def chance_metrics(
    reference_labels: ArrayLike,
    query_labels: ArrayLike,
    shots: Sequence[int | str] = ("all",),
    ks: Sequence[int] = (1, 5),
) -> dict[str, Metric]:
    """The chance levels to lay beside few-shot accuracies, by name, such as `chance/accuracy@1/shots=1/micro`.

    For each number of shots ("all" keeps every reference): `accuracy@k` as in `chance_accuracy`, and for k above 1
    `image_accuracy@k` as in `chance_image_accuracy`. A chance level is exact: low = high = value.

    Raises:
        ValueError: no reference, no query, or k or shots out of range.
    """
    reference_labels, query_labels = _check_labels(reference_labels, query_labels, 1)
    num_classes, num_queries = len(set(reference_labels)), len(query_labels)
    metrics = {}
    for count in shots:
        if count != "all" and (not isinstance(count, int) or count < 1):
            raise ValueError(f"shots are whole numbers of at least 1 or 'all', found {count!r}.")
        kept = count if isinstance(count, int) else None
        for k in ks:
            levels = {f"accuracy@{k}": chance_accuracy(reference_labels, query_labels, k)}
            drawn = {f"accuracy@{k}": f"{k} of the gallery's {num_classes} labels"}
            if k > 1:
                levels[f"image_accuracy@{k}"] = chance_image_accuracy(reference_labels, query_labels, k, kept)
                drawn[f"image_accuracy@{k}"] = f"{k} of the gallery's references"
            for name, values in levels.items():
                for average, value in zip(("micro", "macro"), values, strict=True):
                    protocol = f"a guesser draws {drawn[name]} without repeats; {average}; {_EXACT}"
                    metric = Metric(value, value, value, num_queries, protocol)
                    metrics[f"chance/{name}/shots={count}/{average}"] = metric
    return metrics


def chance_reid(
    num_relevant_Q: ArrayLike, num_gallery_Q: ArrayLike, ranks: Sequence[int] = (1, 5, 10, 20)
) -> dict[str, Metric]:
    """The expected re-identification metrics of a random ranking: `chance/mAP` and `chance/rank-1` and so on, 0..1.

    With R matches among N gallery items in random order, a match stands at rank i with probability 1 / N each, and (i - 1)
    (R - 1) / (N - 1) others before it on average. So the expected average precision (mean of the precision at each hit) is
    (H + (R - 1) / (N - 1) * (N - H)) / N with H = 1 + 1/2 + ... + 1/N; and rank-r, the probability of a match among
    the first r, is 1 - (N-R choose r) / (N choose r). Exact: low = high = value; the mean over queries is given.

    Args:
        num_relevant_Q: R of each query, after the removal of junk. A query without a match (0) is skipped and counted.
        num_gallery_Q: N of each query, after the removal of junk; one number stands for all.
        ranks: the r wanted, each at least 1; beyond N the whole gallery counts.

    Raises:
        ValueError: no query with a match, counts that are no whole numbers, R over N, or a rank under 1.
    """
    relevant_Q, gallery_Q = np.broadcast_arrays(np.atleast_1d(num_relevant_Q), np.atleast_1d(num_gallery_Q))
    if relevant_Q.dtype.kind not in "iu" or gallery_Q.dtype.kind not in "iu":
        raise ValueError(f"Counts must be whole numbers, found {relevant_Q.dtype} and {gallery_Q.dtype}.")
    if ((relevant_Q < 0) | (relevant_Q > gallery_Q)).any():
        raise ValueError(
            "A query has fewer than 0 matches or more matches than gallery items; count both after junk removal."
        )
    if min(ranks, default=1) < 1:
        raise ValueError(f"ranks must be at least 1, found {list(ranks)}.")
    matched_Q = relevant_Q > 0
    if not matched_Q.any():
        raise ValueError(
            f"None of the {len(matched_Q)} queries has a match in the gallery; check labels and the junk rule."
        )
    num_skipped = int((~matched_Q).sum())
    relevant_Q, gallery_Q = relevant_Q[matched_Q].astype(np.int64), gallery_Q[matched_Q].astype(np.int64)
    harmonic_Q = digamma(gallery_Q + 1.0) + np.euler_gamma
    others_Q = (relevant_Q - 1) / np.maximum(gallery_Q - 1, 1)
    values = {"mAP": (harmonic_Q + others_Q * (gallery_Q - harmonic_Q)) / gallery_Q}
    values |= {f"rank-{rank}": _found_among_first(relevant_Q, gallery_Q, rank) for rank in ranks}
    protocol = (
        f"expected over all orders of the gallery, step average precision, mean over queries, {num_skipped} queries "
        f"without a match skipped; {_EXACT}"
    )
    means = {name: float(value_Q.mean()) for name, value_Q in values.items()}
    return {f"chance/{name}": Metric(mean, mean, mean, len(relevant_Q), protocol) for name, mean in means.items()}


def _found_among_first(relevant_Q: np.ndarray, total_Q: np.ndarray, k: int) -> np.ndarray:
    """1 - (N-R choose k) / (N choose k): the probability that k drawn of N without repeats hold one of R."""
    missed_Q = np.ones(len(relevant_Q))
    for drawn in range(min(k, int(total_Q.max()))):
        missed_Q *= np.maximum(total_Q - relevant_Q - drawn, 0) / np.maximum(total_Q - drawn, 1)
    return 1.0 - missed_Q


def _averages(query_labels: np.ndarray, expected: dict[str, float]) -> tuple[float, float]:
    names, count_C = np.unique(query_labels, return_counts=True)
    value_C = np.array([expected.get(name, 0.0) for name in names])
    return float(np.average(value_C, weights=count_C)), float(value_C.mean())


def _check_labels(reference_labels: ArrayLike, query_labels: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
    references = read_labels(reference_labels, None, "reference_labels").astype(str)
    queries = read_labels(query_labels, None, "query_labels").astype(str)
    if not len(references) or not len(queries) or k < 1:
        raise ValueError(
            f"At least one reference, one query and k >= 1 are wanted; found {len(references)}, {len(queries)}, k = {k}."
        )
    return references, queries
