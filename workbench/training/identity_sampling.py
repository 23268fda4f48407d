"""Batches of P identities with K images each, for losses that compare the images of a batch with each other.

pytorch-metric-learning's MPerClassSampler makes such batches too. It draws from one global generator as it goes, so that a
run that was stopped cannot go on where it was, and draws identities anew for each batch, so that some are not seen in an
epoch. Here everything follows from the seed and the number of the pass.

Axes: N images of the training catalog, M samples an epoch, C identities.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from workbench.training.sampling import Sample, count_images, part_of_batch, rows_by

_IDENTITY_STREAM = 4


class IdentitySampler:
    """The samples of a run: an endless row of passes; in each every identity is seen with K images.

    A batch holds P different identities, the K images of each side by side. An identity with K images or more gives K
    different ones, drawn anew in each pass; one with fewer repeats all of them equally often and draws the rest without
    replacement (each repetition is augmented anew). Where P does not divide C, the last batch of a pass is filled with
    identities that the pass has seen already, other than those of that batch.

    An epoch is one pass, or `depth` / K of them. The position in the run is the number of samples that were taken, a
    plain integer.

    Source: P x K batches, Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """

    def __init__(
        self, label_N: np.ndarray, batch_size: int, images_per_identity: int, depth: int | None = None, seed: int = 0
    ) -> None:
        """Plans the passes.

        Args:
            label_N: int64, the identity of each image, 0 to C-1.
            batch_size: P times K.
            images_per_identity: K.
            depth: images of each identity an epoch, a multiple of K; None is K.
            seed: of all draws.

        Raises:
            ValueError: no image, a batch that is no P x K, or fewer than P identities.
        """
        if len(label_N) == 0:
            raise ValueError("There is no image to sample from.")
        num_identities, rest = divmod(batch_size, images_per_identity)
        if rest or (depth or 0) % images_per_identity:
            raise ValueError(
                f"batch_size {batch_size} and depth {depth} are multiples of images_per_identity {images_per_identity}."
            )
        self._rows = [rows for rows in rows_by(label_N) if len(rows)]
        if len(self._rows) < num_identities:
            raise ValueError(
                f"A batch of {batch_size} images, {images_per_identity} of each identity, wants {num_identities} identities; "
                f"there are {len(self._rows)}. Take a batch_size of at most {len(self._rows) * images_per_identity}."
            )
        self.label_N, self.seed = label_N, seed
        self._batch_size, self._num_identities, self._num_each = batch_size, num_identities, images_per_identity
        self._batches_a_pass = -(-len(self._rows) // num_identities)
        self._passes_an_epoch = 1 if depth is None else depth // images_per_identity
        self.num_samples = self._passes_an_epoch * self._batches_a_pass * batch_size

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """The image rows of an epoch in their order, int64 [M]; decided by (seed, epoch) alone."""
        first = epoch * self._passes_an_epoch
        return np.concatenate([self._pass_rows(first + number) for number in range(self._passes_an_epoch)])

    def batches(
        self, num_taken: int, batch_size: int, num_batches: int, rank: int = 0, world: int = 1
    ) -> Iterator[list[Sample]]:
        """Yields the next batches after `num_taken` samples of the run were taken; of each the part of process `rank`.

        Args:
            num_taken: a multiple of the batch size.
            batch_size: that of the plan.
            num_batches: how many.
            rank, world: number of this process and of all; each has `batch_size` / `world` of the samples, whole
                identities, and no two have one in common.

        Raises:
            ValueError: another batch size than planned, a position within a batch, or identities that `world` does not
                divide.
        """
        if batch_size != self._batch_size or num_taken % batch_size:
            raise ValueError(
                f"Batches of {self._batch_size} were planned; asked for {batch_size} after {num_taken} samples."
            )
        if self._num_identities % world:
            raise ValueError(
                f"{self._num_identities} identities a batch cannot be shared out to {world} processes; "
                f"take a batch_size that is a multiple of {world * self._num_each}."
            )
        epoch, position = divmod(num_taken, self.num_samples)
        row_M = self.epoch_rows(epoch)
        for _ in range(num_batches):
            if position == self.num_samples:
                epoch, position = epoch + 1, 0
                row_M = self.epoch_rows(epoch)
            spots = range(position, position + batch_size)
            yield part_of_batch([(int(row_M[spot]), epoch, spot) for spot in spots], rank, world)
            position += batch_size

    def images_per_class(self, class_names: np.ndarray) -> pd.DataFrame:
        """One row an identity, in the order of `class_names` ([C] text): columns label, before and after."""
        return count_images(self.label_N, self.epoch_rows(0), class_names)

    def _pass_rows(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _IDENTITY_STREAM, number])
        order = rng.permutation(len(self._rows))
        missing = self._batches_a_pass * self._num_identities - len(order)
        seen = order[: (self._batches_a_pass - 1) * self._num_identities]
        identities = np.concatenate([order, rng.choice(seen, missing, replace=False)]) if missing else order
        return np.concatenate([self._draw(self._rows[identity], rng) for identity in identities])

    def _draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        times, rest = divmod(self._num_each, len(rows))
        return rng.permutation(np.concatenate([np.tile(rows, times), rng.choice(rows, rest, replace=False)]))
