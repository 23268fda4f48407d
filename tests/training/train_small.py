"""A training in a process of its own, to be killed: python train_small.py PICTURES FOLDER PROGRESS."""

import sys
from pathlib import Path

import torch
from small_sets import catalog_of

from workbench.models.embedder import build_embedder
from workbench.training.loop import train
from workbench.training.recipe import Recipe

RECIPE = Recipe(
    "killed",
    num_steps=200,
    batch_size=12,
    accumulation_steps=2,
    learning_rate_trunk=1e-3,
    learning_rate_head=1e-3,
    blockwise_decay=0.9,
    depth=7,
    ema_decay=0.98,
    clip_grad=5.0,
    warmup_steps=10,
    validation_interval=30,
    checkpoint_interval=20,
    num_workers=2,
)


def main(pictures: Path, folder: Path, progress: Path) -> None:
    """Trains on the pictures that `draw_catalog` drew, adding a line to `progress` after each step."""
    torch.set_num_threads(1)
    paths = sorted(path.relative_to(pictures).as_posix() for path in pictures.glob("*/*.png"))
    rows = [(path, path.split("/")[0], "train" if int(Path(path).stem) < 8 else "val") for path in paths]
    catalog = catalog_of(pictures, rows)
    embedder = build_embedder("timm:test_resnet", "random", image_size=(32, 32))
    with open(progress, "a") as file:
        train(
            RECIPE,
            embedder,
            catalog.select("train"),
            catalog.select("val"),
            folder,
            on_step=lambda row: print(row["step"], file=file, flush=True),
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
