"""Galleries from a card's images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.models.embedder import build_embedder
from workbench.retrieval.gallery_build import build_gallery

CARD = """---
title: Shelf
task: {task}
reader: image_folder
licence: own
source: drawn
layout: any
options: {{split_folders: {{reference: ref}}}}
---
"""


@pytest.mark.parametrize(("task", "labels"), [("recognition", ["-1", "0", "7", "8"]), ("reid", ["7", "8"])])
def test_only_reidentification_has_junk_and_distractors(tmp_path: Path, task: str, labels: list[str]) -> None:
    rng = np.random.default_rng(0)
    for label in ("-1", "0", "7", "8"):
        for number in range(2):
            path = tmp_path / "data" / "shelf" / "ref" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (tmp_path / "shelf.md").write_text(CARD.format(task=task))
    embedder = build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=1)
    gallery, _ = build_gallery(
        embedder,
        str(tmp_path / "shelf.md"),
        tmp_path / "gallery",
        data_root=tmp_path / "data",
        split="reference",
        device="cpu",
    )
    assert sorted(set(gallery.labels)) == labels
