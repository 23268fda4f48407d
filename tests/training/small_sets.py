"""A small set of pictures that can be told apart, for the tests of training."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from workbench.data.card import read_card
from workbench.data.catalog import Catalog


def draw_catalog(root: Path, num_classes: int = 6, num_train: int = 8, num_val: int = 3, px: int = 40) -> Catalog:
    """Classes are coarse colour patterns, images of a class differ by noise; splits train and val."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num_classes):
        pattern = rng.integers(0, 256, (4, 4, 3))
        folder = root / f"sku_{number}"
        folder.mkdir(parents=True)
        for image in range(num_train + num_val):
            noisy = np.clip(pattern + rng.normal(0, 20, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((px, px)).save(folder / f"{image}.png")
            rows.append((f"sku_{number}/{image}.png", f"sku_{number}", "train" if image < num_train else "val"))
    return catalog_of(root, rows)


def catalog_of(root: Path, rows: list[tuple[str, str, str]], domain: str = "real") -> Catalog:
    """A catalog of (path, label, split)."""
    frame = pd.DataFrame(rows, columns=["path", "label", "split"]).assign(
        camera=pd.array([pd.NA] * len(rows), dtype="Int64"),
        group=pd.Series([np.nan] * len(rows), dtype="str"),
        domain=domain,
        source="template",
    )
    return Catalog(frame, {"template": root}, {"template": read_card("grocery_store")}, {})
