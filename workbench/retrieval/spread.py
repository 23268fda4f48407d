"""How embeddings lie on the sphere: alignment (how near images of a class are) and uniformity (how far all are spread).

Axes: N images, D embedding width, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import hyp0f1, stdtrit

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.stats import Metric

TEMPERATURE = 2.0
FARTHEST = 4.0  # the squared distance of opposite points
MAX_IMAGES = 5000
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Spread:
    """Alignment and uniformity of one embedder's images; both are better when smaller, and either alone is easy.

    Attributes:
        alignment: 0 (all images of a class coincide) to 4; n is the number of images that have another of their class.
        uniformity: -8 to 0 (all images coincide); n is the number of images.
        least_uniformity: what evenly spread points have in this width, on average.
    """

    alignment: Metric
    uniformity: Metric
    least_uniformity: float


@dataclass(frozen=True)
class SpreadChange:
    """Spread before and after training on the same images, and after less before, paired by class."""

    before: Spread
    after: Spread
    alignment: Metric
    uniformity: Metric


def measure_spread(
    embedding_ND: np.ndarray, labels: ArrayLike, *, max_images: int = MAX_IMAGES, seed: int = 0
) -> Spread:
    """Returns alignment and uniformity with 95 % intervals over classes.

    Alignment is the mean squared distance of an image to the others of its class (an image drawn at random, then another of
    its class); classes with one image have no pair. Uniformity is the logarithm of the mean of exp(-2 d^2) over all
    pairs of images, of a class or not; an image is not paired with itself, equal images are. The interval is a
    jackknife that leaves out a class at a time, with Student's quantile; a single class gives the whole range.

    Args:
        embedding_ND: real numbers, any scale, rows not zero.
        labels: [N].
        max_images: of more images so many are drawn; the protocol says so.
        seed: of that draw.

    Raises:
        ValueError: fewer than two images, no class with two, rows that are not finite or zero, lengths that differ.

    Source: Wang and Isola 2020, "Understanding contrastive representation learning through alignment and uniformity on
    the hypersphere" (alpha = 2, t = 2); delete-a-group jackknife: Efron and Stein 1981.
    """
    unit_ND, class_N, line = _prepare(embedding_ND, labels, max_images, seed)
    return _spread(_Sums(unit_ND, class_N), len(unit_ND), unit_ND.shape[1], line)


def compare_spread(
    before_ND: np.ndarray, after_ND: np.ndarray, labels: ArrayLike, *, max_images: int = MAX_IMAGES, seed: int = 0
) -> SpreadChange:
    """Returns the spread of the same images under two embedders, and the paired difference; see `measure_spread`.

    Raises:
        ValueError: as `measure_spread`, or another number of rows.
    """
    if len(before_ND) != len(after_ND):
        raise ValueError(f"the same images are wanted twice, {len(before_ND)} and {len(after_ND)} rows were given")
    first_ND, class_N, line = _prepare(before_ND, labels, max_images, seed)
    second_ND, _, _ = _prepare(after_ND, labels, max_images, seed)
    first, second = _Sums(first_ND, class_N), _Sums(second_ND, class_N)
    before = _spread(first, len(class_N), first_ND.shape[1], line)
    after = _spread(second, len(class_N), second_ND.shape[1], line)
    paired = f"after less before, paired by class; {line}"
    differences = [
        _jackknife(
            lambda leave, one=name: getattr(second, one)(leave) - getattr(first, one)(leave),  # type: ignore[misc]
            counted, (-width, width), num, paired,
        )
        for name, counted, width, num in (
            ("alignment", first.paired_C, FARTHEST, before.alignment.n),
            ("uniformity", first.count_C > 0, FARTHEST * TEMPERATURE, before.uniformity.n),
        )
    ]  # fmt: skip
    return SpreadChange(before, after, *differences)


def least_uniformity(width: int) -> float:
    """Returns the uniformity of independent points spread evenly on the sphere of this width, in expectation.

    Source: the mean of exp(k x . y) over the sphere is 0F1(; D / 2; k^2 / 4), here with k = 2 t.
    """
    if width < 1:
        raise ValueError(f"a width of at least 1 is wanted, {width} was given")
    return float(-2 * TEMPERATURE + np.log(hyp0f1(width / 2, TEMPERATURE**2)))


class _Sums:
    """Both measures as sums over classes and pairs of classes, so that a class is left out without looking at images."""

    def __init__(self, unit_ND: np.ndarray, class_N: np.ndarray) -> None:
        order = np.argsort(class_N, kind="stable")
        unit_ND, class_N = (
            normalise(unit_ND, "unit_ND", order, dtype=np.float64),
            class_N[order],
        )  # of length 1 in float64 too
        _, start_C, self.count_C = np.unique(class_N, return_index=True, return_counts=True)
        self.paired_C = self.count_C > 1
        squared_C = (np.add.reduceat(unit_ND, start_C, axis=0) ** 2).sum(axis=1)
        pairs_C = np.maximum(self.count_C * (self.count_C - 1), 1)
        # Over ordered pairs of a class, the sum of |x - y|^2 is 2 (n^2 - |sum of x|^2) for rows of length 1.
        self.mean_C = np.clip(2 * (self.count_C**2 - squared_C) / pairs_C, 0, FARTHEST)
        self.kernel_CC = _kernel_sums(unit_ND, start_C)
        self.pairs_CC = np.multiply.outer(self.count_C, self.count_C) - np.diag(self.count_C)

    def alignment(self, leave: int | None) -> float:
        weight_C = np.where(self.paired_C, self.count_C, 0).astype(np.float64)
        if leave is not None:
            weight_C[leave] = 0
        return float(weight_C @ self.mean_C / weight_C.sum())

    def uniformity(self, leave: int | None) -> float:
        totals = []
        for table in (self.kernel_CC, self.pairs_CC):
            left = 0.0 if leave is None else 2 * table[leave].sum() - table[leave, leave]
            totals.append(float(table.sum() - left))
        return float(np.log(totals[0] / totals[1]))


def _kernel_sums(unit_ND: np.ndarray, start_C: np.ndarray) -> np.ndarray:
    """The sum of exp(-t d^2) over ordered pairs of different images, [C, C] by their classes."""
    by_image = []
    for first in range(0, len(unit_ND), _BLOCK_ROWS):
        rows = unit_ND[first : first + _BLOCK_ROWS]
        kernel = np.exp(-2 * TEMPERATURE * np.maximum(1 - rows @ unit_ND.T, 0))
        kernel[np.arange(len(rows)), first + np.arange(len(rows))] = 0
        by_image.append(np.add.reduceat(kernel, start_C, axis=1))
    return np.asarray(np.add.reduceat(np.concatenate(by_image), start_C, axis=0))


def _prepare(
    embedding_ND: np.ndarray, labels: ArrayLike, max_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray, str]:
    unit_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    class_N = np.unique(read_labels(labels, len(unit_ND), "labels"), return_inverse=True)[1]
    line = "squared distance on the unit sphere, t = 2, 95 % interval over classes (jackknife)"
    if len(unit_ND) > max_images:
        rows = np.sort(np.random.default_rng(seed).choice(len(unit_ND), max_images, replace=False))
        line = f"{max_images:,} of {len(unit_ND):,} images drawn (seed {seed}); {line}"
        unit_ND, class_N = unit_ND[rows], np.unique(class_N[rows], return_inverse=True)[1]
    if len(unit_ND) < 2 or np.bincount(class_N).max() < 2:
        raise ValueError(
            f"at least one class with two images is wanted; found {len(unit_ND)} images, none of one class"
        )
    return unit_ND, class_N, line


def _spread(sums: _Sums, num_images: int, width: int, line: str) -> Spread:
    num_paired = int(sums.count_C[sums.paired_C].sum())
    words = f"alignment: mean squared distance of two images of a class; {line}"
    alignment = _jackknife(sums.alignment, sums.paired_C, (0.0, FARTHEST), num_paired, words)
    words = f"uniformity: logarithm of the mean of exp(-2 d^2) over pairs of images; {line}"
    everyone = np.ones(len(sums.count_C), dtype=bool)
    uniformity = _jackknife(sums.uniformity, everyone, (-FARTHEST * TEMPERATURE, 0.0), num_images, words)
    return Spread(alignment, uniformity, least_uniformity(width))


def _jackknife(
    measure: Callable[[int | None], float], counted_C: np.ndarray, limits: tuple[float, float], n: int, protocol: str
) -> Metric:
    """The measure with its interval, leaving out one of the counted classes at a time."""
    value, classes = measure(None), np.flatnonzero(counted_C)
    num = len(classes)
    if num < 2:
        return Metric(value, *limits, n, protocol)
    without_C = np.array([measure(int(one)) for one in classes])
    variance = (num - 1) / num * ((without_C - without_C.mean()) ** 2).sum()
    half = float(stdtrit(num - 1, 0.975) * np.sqrt(variance))
    return Metric(
        value, min(max(value - half, limits[0]), value), max(min(value + half, limits[1]), value), n, protocol
    )
