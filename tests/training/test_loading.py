import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import draw_catalog

from workbench.data.augment import Augmentation
from workbench.models.preprocessing import Preprocessing
from workbench.training.loading import (
    PlainImages,
    TrainingImages,
    load_batches,
    read_images,
    render_plain,
    render_training,
)
from workbench.training.sampling import BalancedSampler

PREPROCESSING = Preprocessing((24, 24), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _all_batches(root: Path, num_workers: int, memory_mib: int) -> tuple[torch.Tensor, torch.Tensor]:
    catalog = (
        draw_catalog(root)
        if not root.exists()
        else draw_catalog(root.with_name(f"{root.name}_{num_workers}{memory_mib}"))
    )
    labels = np.unique(catalog.labels.astype(str), return_inverse=True)[1]
    paths = catalog.image_paths()
    kept, failures, *_ = read_images(paths, render_training(PREPROCESSING), memory_mib)
    assert (kept is None, failures) == (memory_mib == 0, {})
    images = TrainingImages(paths, labels, PREPROCESSING, Augmentation(erase_share=0.5), 3, kept)
    sampler = BalancedSampler(labels, np.array(["real"] * len(labels)), depth=5, seed=3)
    parts = list(load_batches(images, sampler.batches(4, 7, 6), num_workers, pin=False))
    return torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])


def test_batches_depend_neither_on_workers_nor_on_memory(tmp_path: Path) -> None:
    alone = _all_batches(tmp_path / "set", 0, 16)
    assert alone[0].shape == (42, 24, 24, 3)
    assert alone[0].dtype == torch.uint8
    for num_workers, memory_mib in ((2, 16), (1, 0), (0, 0)):
        images, labels = _all_batches(tmp_path / "set", num_workers, memory_mib)
        assert torch.equal(images, alone[0])
        assert torch.equal(labels, alone[1])


def test_repeats_of_an_image_are_augmented_afresh(tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=1, num_train=1, num_val=0)
    images = TrainingImages(catalog.image_paths(), np.array([0]), PREPROCESSING, Augmentation(), 0, None)
    views = [images[(0, epoch, position)][0] for epoch in (0, 1) for position in (0, 1)]
    assert len({view.tobytes() for view in views}) == 4
    assert np.array_equal(images[(0, 1, 0)][0], views[2])


def test_without_augmentation_an_image_is_shown_as_it_is(tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=1, num_train=1, num_val=0, px=24)
    images = TrainingImages(catalog.image_paths(), np.array([0]), PREPROCESSING, None, 0, None)
    with Image.open(catalog.image_paths()[0]) as picture:
        expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(images[(0, 0, 0)][0], expected)
    assert np.array_equal(images[(0, 5, 9)][0], expected)


def test_waiting_images_are_a_little_larger_than_the_trunk_sees(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "large.jpg")
    Image.new("RGB", (20, 25)).save(tmp_path / "small.png")
    render = render_training(PREPROCESSING)
    assert render(tmp_path / "large.jpg").shape == (28, 28, 3)  # 24 * 1.15 = 27.6
    assert render_training(PREPROCESSING.resized("crop"))(tmp_path / "large.jpg").shape == (28, 42, 3)
    assert render(tmp_path / "small.png").shape == (25, 20, 3)
    assert render_plain(PREPROCESSING)(tmp_path / "large.jpg").shape == (24, 24, 3)


def test_unreadable_images_are_found_and_the_rest_kept(tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=2, num_train=2, num_val=0)
    paths = catalog.image_paths()
    paths[1].write_bytes(b"no image")
    paths[2].unlink()
    kept, failures, *_ = read_images(paths, render_plain(PREPROCESSING), 4)
    assert kept is not None
    assert [picture is None for picture in kept] == [False, True, True, False]
    assert sorted(failures) == [1, 2]
    assert "not an image" in failures[1]
    assert failures[2] == "no such file"


def test_a_set_that_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    Image.new("RGB", (700, 700)).save(tmp_path / "large.png")  # 1.4 MiB
    huge = Preprocessing((700, 700), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    kept, failures, keys, num_bytes = read_images([tmp_path / "large.png"] * 3, render_plain(huge), 4)
    content = hashlib.sha256((tmp_path / "large.png").read_bytes()).hexdigest()
    assert (kept, failures, keys, num_bytes) == (None, {}, [content] * 3, 3 * 700 * 700 * 3)
    kept, *_ = read_images([tmp_path / "large.png"] * 3, render_plain(huge), 5)
    assert kept is not None
    assert len(kept) == 3


@pytest.mark.parametrize("keep", [True, False])
def test_plain_images_are_those_of_every_evaluation(tmp_path: Path, keep: bool) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=1, num_train=2, num_val=0)
    paths = catalog.image_paths()
    kept, *_ = read_images(paths, render_plain(PREPROCESSING), 4 if keep else 0)
    images = PlainImages(paths, np.array([0, 0]), PREPROCESSING, kept)
    with Image.open(paths[1]) as picture:
        assert np.array_equal(images[1][0], PREPROCESSING.apply(picture.convert("RGB")))
