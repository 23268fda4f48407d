"""Which image is seen when: classes balanced by breadth and depth, domains mixed, each epoch determined by its number.

Axes: N images of the training catalog, M samples an epoch. A sample is (row, epoch, position): which image, and where in
which epoch, from which everything random about it follows.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.same_images import image_codes

Sample = tuple[int, int, int]
_ORDER_STREAM, _IMAGE_STREAM, _VALIDATION_STREAM = 1, 2, 3


class BalancedSampler:
    """The samples of a run: an endless row of epochs, each a balanced draw in random order.

    Breadth: every class is in every epoch. Depth: each class has `depth` images in it. A class with more images gives a
    part of them, without replacement and anew each epoch; one with fewer repeats all of them equally often and draws
    the rest without replacement. Batches go on across the end of an epoch, so that no image is dropped.

    The position in the run is the number of samples that were taken, a plain integer: saving it saves the sampler.

    Source: balancing by breadth and depth, RetailKLIP (Srivastava, VISAPP 2024).
    """

    def __init__(
        self,
        label_N: np.ndarray,
        domain_N: np.ndarray,
        depth: int | None = None,
        domain_weights: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Plans the epochs.

        Args:
            label_N: int64, the class of each image, 0 to C-1.
            domain_N: text, the domain of each image.
            depth: images of each class an epoch; None takes each image once.
            domain_weights: shares of the domains, of each class's `depth` images (among the domains that the class
                has), or of the whole epoch when `depth` is None. None: images as they come.
            seed: of all draws.

        Raises:
            ValueError: no image; a domain without a weight or the reverse; weights that cannot change anything.
        """
        if len(label_N) == 0:
            raise ValueError("There is no image to sample from.")
        self.label_N, self.seed = label_N, seed
        self._cells = _plan_cells(label_N, domain_N, depth, domain_weights)
        self.num_samples = sum(quota for _, quota in self._cells)

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The image rows of an epoch in their order, int64 [M]; decided by (seed, epoch) alone."""
        rng = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
        drawn = []
        for rows, quota in self._cells:
            times, rest = divmod(quota, len(rows))
            drawn += [np.tile(rows, times), rng.choice(rows, rest, replace=False)]
        return rng.permutation(np.concatenate(drawn))

    def batches(
        self, num_taken: int, batch_size: int, num_batches: int, rank: int = 0, world: int = 1
    ) -> Iterator[list[Sample]]:
        """Yields the next batches after `num_taken` samples of the run were taken; of each the part of process `rank`.

        Args:
            num_taken: of all processes together.
            batch_size: of all processes together.
            num_batches: how many.
            rank, world: number of this process and of all; each has `batch_size` / `world` samples of a batch, and no
                two have a sample in common.
        """
        epoch, position = divmod(num_taken, self.num_samples)
        row_M = self.epoch_rows(epoch)
        for _ in range(num_batches):
            batch: list[Sample] = []
            while len(batch) < batch_size:
                if position == self.num_samples:
                    epoch, position = epoch + 1, 0
                    row_M = self.epoch_rows(epoch)
                batch.append((int(row_M[position]), epoch, position))
                position += 1
            yield part_of_batch(batch, rank, world)

    def images_per_class(self, class_names: np.ndarray) -> pd.DataFrame:
        """One row a class, in the order of `class_names` ([C] text): columns label, before and after.

        `before` counts the images that there are, `after` the samples of one epoch.
        """
        return count_images(self.label_N, self.epoch_rows(0), class_names)


def count_images(label_N: np.ndarray, row_M: np.ndarray, class_names: np.ndarray) -> pd.DataFrame:
    """One row a class, in the order of `class_names`: columns label, before (images) and after (samples of `row_M`)."""
    before = np.bincount(label_N, minlength=len(class_names))
    after = np.bincount(label_N[row_M], minlength=len(class_names))
    return pd.DataFrame({"label": pd.Series(class_names, dtype="str"), "before": before, "after": after})


def part_of_batch(batch: list[Sample], rank: int, world: int) -> list[Sample]:
    """The samples of a batch that process `rank` of `world` computes: neighbours, so that identities stay whole.

    Raises:
        ValueError: the batch does not divide into `world` parts.
    """
    size, rest = divmod(len(batch), world)
    if rest:
        raise ValueError(f"A batch of {len(batch)} does not divide into {world} parts.")
    return batch[rank * size : (rank + 1) * size]


def share_with_positive(label_M: np.ndarray, batch_size: int) -> float:
    """The share, 0 to 1, of an epoch's samples that meet another of their class in a random batch, on average.

    Args:
        label_M: int64, the class of each sample of an epoch.
        batch_size: images that are compared with each other; drawn without replacement, all of the epoch when larger.
    """
    count_C = np.bincount(label_M)
    num_others, others = len(label_M) - 1, min(batch_size, len(label_M)) - 1
    # hypergeometric: none of the `others` drawn is one of the count - 1 companions
    drawn = np.arange(others)
    share = 0.0
    for count, num_classes in zip(*np.unique(count_C[count_C > 0], return_counts=True), strict=True):
        alone = np.prod(np.clip((num_others - (count - 1) - drawn) / (num_others - drawn), 0.0, 1.0))
        share += float(num_classes * count * (1 - alone))
    return share / len(label_M)


def sample_rng(seed: int, sample: Sample) -> np.random.Generator:
    """The generator of a sample's augmentation; it depends on seed, epoch and position alone, not on who prepares it."""
    _, epoch, position = sample
    return np.random.default_rng([seed, _IMAGE_STREAM, epoch, position])


def hold_out(catalog: Catalog, images_per_class: int, seed: int = 0) -> tuple[Catalog, Catalog]:
    """A catalog in two parts: what remains for training, and a validation set with equally many images per class.

    A class gives `images_per_class` images to validation and keeps at least one; a class that has fewer than that stays
    whole in the training part. So does an image with a copy: what is learned from says nothing about itself.

    Raises:
        ValueError: images_per_class below 1, or no class that has enough images.
    """
    if images_per_class < 1:
        raise ValueError(f"images_per_class is at least 1; found {images_per_class}.")
    (code_N,) = image_codes(catalog)
    single = np.flatnonzero(np.bincount(code_N)[code_N] == 1)
    rows = single[_equal_rows(catalog.labels[single], images_per_class, images_per_class + 1, seed)]
    if not len(rows):
        raise ValueError(f"No class has more than {images_per_class} images without a copy; hold out fewer.")
    keep = np.ones(len(catalog), dtype=bool)
    keep[rows] = False
    return catalog.take(np.flatnonzero(keep)), catalog.take(rows)


def balance_validation(
    catalog: Catalog, class_names: np.ndarray, images_per_class: int | None, seed: int = 0
) -> tuple[Catalog, int]:
    """The images to validate on, of the classes seen in training only, and how many classes were left out for too few.

    Args:
        catalog: the validation images.
        class_names: text [C], the classes seen in training.
        images_per_class: exactly so many of each class, classes with fewer left out; None takes all images.
        seed: of the draw.

    Raises:
        ValueError: nothing remains.
    """
    seen = catalog.take(np.flatnonzero(np.isin(catalog.labels.astype(str), class_names.astype(str))))
    if not len(seen):
        raise ValueError(
            f"None of the {len(catalog)} validation images has a class seen in training. Validation during training "
            "wants other images of the same classes; `hold_out` takes them from the training images."
        )
    if images_per_class is None:
        return seen, 0
    rows = _equal_rows(seen.labels, images_per_class, images_per_class, seed)
    num_short = len(set(seen.labels)) - len(rows) // images_per_class
    if not len(rows):
        raise ValueError(f"No class has {images_per_class} validation images; ask for fewer.")
    return seen.take(rows), num_short


def _equal_rows(labels: np.ndarray, count: int, minimum: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, _VALIDATION_STREAM])
    label_N = np.unique(labels.astype(str), return_inverse=True)[1]
    drawn = [rng.choice(rows, count, replace=False) for rows in rows_by(label_N) if len(rows) >= minimum]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)


def rows_by(key_N: np.ndarray) -> list[np.ndarray]:
    """The rows of each key, keys 0 and up, rows in order."""
    return np.split(np.argsort(key_N, kind="stable"), np.cumsum(np.bincount(key_N))[:-1])


def _plan_cells(
    label_N: np.ndarray, domain_N: np.ndarray, depth: int | None, domain_weights: Mapping[str, float] | None
) -> list[tuple[np.ndarray, int]]:
    """Sets of rows, each with how many samples an epoch it gives."""
    classes = rows_by(label_N) if depth is not None else [np.arange(len(label_N))]
    quotas = [depth if depth is not None else len(label_N)] * len(classes)
    if domain_weights is None:
        return [(rows, quota) for rows, quota in zip(classes, quotas, strict=True) if len(rows)]
    there = sorted(set(domain_N))
    if set(there) != {domain for domain, weight in domain_weights.items() if weight > 0}:
        raise ValueError(
            f"domain_weights name {dict(domain_weights)}, the training images have the domains {', '.join(there)}; "
            "give each of them a weight and no other one (0 leaves a domain out)."
        )
    cells = []
    mixed = False
    for rows, quota in zip(classes, quotas, strict=True):
        domains = sorted(set(domain_N[rows]))
        mixed |= len(domains) > 1
        shares = _apportion(quota, np.array([domain_weights[domain] for domain in domains], dtype=float))
        cells += [
            (rows[domain_N[rows] == domain], int(share)) for domain, share in zip(domains, shares, strict=True) if share
        ]
    if not mixed and len(there) > 1:
        raise ValueError(
            "domain_weights would change nothing: with a depth they share out the images of each class, and no class has "
            "images of several domains. Set depth to None, and they share out the epoch."
        )
    return cells


def _apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """`total` in whole parts in proportion to `weights` (largest remainder; equal remainders go to the first)."""
    exact = total * weights / weights.sum()
    parts = np.floor(exact).astype(np.int64)
    first = np.argsort(-(exact - parts), kind="stable")[: total - int(parts.sum())]
    parts[first] += 1
    return parts
