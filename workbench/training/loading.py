"""From image files to batches: decoded once when they fit into memory, augmented anew each time they are seen."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from workbench.data.augment import Augmentation, augment_image
from workbench.data.images import ImageError, Picture, as_picture, content_key, image_bytes, load_image
from workbench.models.preprocessing import Preprocessing
from workbench.training.distributed import is_joined
from workbench.training.sampling import Sample, sample_rng

OVERSIZE = 1.15
"""Images wait for their augmentation this many times larger than the trunk sees them, so that a random crop of 70 to
100 % of the area is scaled by little more than 1."""

Source = Path | Picture


class Render(Protocol):
    """From a source, and its file's content where that has been read already, to a picture, uint8 [H, W, 3]."""

    def __call__(self, source: Source, content: bytes | None = None) -> np.ndarray: ...  # noqa: D102


def render_training(preprocessing: Preprocessing) -> Render:
    """A function from a path, or a box of a picture, to the picture before augmentation, uint8 [H, W, 3].

    Its sides are at most OVERSIZE times the trunk's, when the preprocessing squashes; its shorter side is, when it crops
    or pads and needs the aspect ratio.
    """
    shorter = round(preprocessing.decode_px * OVERSIZE)
    height, width = (round(side * OVERSIZE) for side in preprocessing.image_size)

    def render(source: Source, content: bytes | None = None) -> np.ndarray:
        image = load_image(source, target_px=shorter, content=content)
        if preprocessing.resize == "squash":
            size = min(image.width, width), min(image.height, height)
        else:
            scale = min(1.0, shorter / min(image.size))
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return np.asarray(image if size == image.size else image.resize(size, Image.Resampling.BICUBIC))

    return render


def render_plain(preprocessing: Preprocessing) -> Render:
    """A function from a path, or a box of a picture, to the trunk's input, uint8 [H, W, 3], as every evaluation makes it."""

    def render(source: Source, content: bytes | None = None) -> np.ndarray:
        return preprocessing.apply(load_image(source, target_px=preprocessing.decode_px, content=content))

    return render


class ReadImages(NamedTuple):
    """What came of reading all images.

    Attributes:
        kept: one picture an image with None for the unusable ones; None when they take more memory than they may.
        failures: why an image cannot be used, by row.
        keys: of each file's content (see `images.content_key`), "" where it cannot be read.
        num_bytes: what the pictures take together.
    """

    kept: list[np.ndarray | None] | None
    failures: dict[int, str]
    keys: list[str]
    num_bytes: int


def read_images(sources: Sequence[Source], render: Render, memory_mib: int) -> ReadImages:
    """All images read, rendered and, where they fit into memory, kept.

    Every image is decoded once, in threads, also when it is not kept: what cannot be decoded is known before training.

    Args:
        sources: of the images.
        render: from a source to the picture.
        memory_mib: what the pictures may take together; 0 keeps none.
    """
    failures: dict[int, str] = {}
    keys: list[str] = []
    kept: list[np.ndarray | None] | None = [] if memory_mib else None
    num_bytes = 0

    def attempt(source: Source) -> tuple[str, np.ndarray | str]:
        picture, key = as_picture(source), ""
        try:
            content = image_bytes(picture.path)
            key = content_key(content, picture.box)
            return key, render(source, content)
        except ImageError as error:
            return key, error.reason

    num_threads = joblib.cpu_count()
    waiting = iter(sources)
    row = 0
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        while part := list(islice(waiting, 64 * num_threads)):
            for key, picture in pool.map(attempt, part):
                keys.append(key)
                if isinstance(picture, str):
                    failures[row] = picture
                else:
                    num_bytes += picture.nbytes
                if kept is not None:
                    kept.append(None if isinstance(picture, str) else picture)
                    if num_bytes > memory_mib * 2**20:
                        kept = None
                row += 1
    return ReadImages(kept, failures, keys, num_bytes)


class TrainingImages(Dataset[tuple[np.ndarray, int]]):
    """From a sample (row, epoch, position) to the trunk's input, uint8 [H, W, 3], augmented, and the image's class."""

    def __init__(
        self,
        sources: Sequence[Source],
        label_N: np.ndarray,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        seed: int,
        kept: list[np.ndarray | None] | None,
    ) -> None:
        self.sources, self.label_N, self.preprocessing = sources, label_N, preprocessing
        self.augmentation, self.seed, self.kept = augmentation, seed, kept
        self.render = render_training(preprocessing)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, sample: Sample) -> tuple[np.ndarray, int]:
        row = sample[0]
        picture = self.kept[row] if self.kept is not None else None
        image = Image.fromarray(picture if picture is not None else self.render(self.sources[row]))
        if self.augmentation is not None:
            height, width = self.preprocessing.image_size
            size = (width, height) if self.preprocessing.resize == "squash" else None
            image = augment_image(image, self.augmentation, sample_rng(self.seed, sample), size)
        return self.preprocessing.apply(image), int(self.label_N[row])


class PlainImages(Dataset[tuple[np.ndarray, int]]):
    """From a row to the trunk's input, uint8 [H, W, 3], and the image's class."""

    def __init__(
        self,
        sources: Sequence[Source],
        label_N: np.ndarray,
        preprocessing: Preprocessing,
        kept: list[np.ndarray | None] | None,
    ) -> None:
        self.sources, self.label_N, self.kept = sources, label_N, kept
        self.render = render_plain(preprocessing)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        picture = self.kept[row] if self.kept is not None else None
        return (picture if picture is not None else self.render(self.sources[row])), int(self.label_N[row])


class FrozenFeatures:
    """What a frozen trunk made of a set of images, in place of the images.

    Attributes:
        features_NF: as the trunk gives them, on the device that trains.
        label_N: int64 [N], the classes.
    """

    def __init__(self, features_NF: torch.Tensor, label_N: torch.Tensor) -> None:
        self.features_NF, self.label_N = features_NF, label_N

    def __len__(self) -> int:
        return len(self.features_NF)


Images = TrainingImages | PlainImages | FrozenFeatures


def load_batches(
    images: Images, batches: Iterable[list[Sample]] | Iterable[list[int]], num_workers: int, pin: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (images uint8 [B, H, W, 3], classes int64 [B]) for each batch, prepared `num_workers` processes ahead.

    Of `FrozenFeatures` it yields (features float [B, F], classes).
    """
    if isinstance(images, FrozenFeatures):
        return _pick_features(images, batches)
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_leave_interrupts_to_the_parent,
        generator=torch.Generator(),  # so that starting workers leaves the run's random state alone
        prefetch_factor=4 if num_workers else None,
    )
    return iter(loader)


def load_rows(
    images: Images, rows: np.ndarray, batch_size: int, num_workers: int, pin: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields the images of `rows` (int64) in their order, as `load_batches` does; training images must not be augmented.

    Raises:
        ValueError: images that would be augmented.
    """
    if isinstance(images, TrainingImages) and images.augmentation is not None:
        raise ValueError("Rows are of images as they are; these are augmented.")
    keys: list[Any] = [(int(row), 0, 0) if isinstance(images, TrainingImages) else int(row) for row in rows]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    in_memory = isinstance(images, FrozenFeatures) or images.kept is not None
    return load_batches(images, batches, 0 if in_memory else num_workers, pin)


def _pick_features(
    images: FrozenFeatures, batches: Iterable[list[Sample]] | Iterable[list[int]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in batches:
        rows = torch.tensor([key if isinstance(key, int) else key[0] for key in batch])
        yield images.features_NF[rows.to(images.features_NF.device)], images.label_N[rows]


def _collate(items: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    pictures, labels = zip(*items, strict=True)
    return torch.from_numpy(np.stack(pictures)), torch.tensor(labels, dtype=torch.int64)


def _leave_interrupts_to_the_parent(_: int) -> None:
    # Ctrl-C in a terminal reaches every process of the group; the parent finishes its step and needs its batch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if is_joined():  # torch.distributed.run sends SIGTERM to whole groups of processes
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
