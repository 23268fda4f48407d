"""Synthetic retail products: packshots and shelf views, drawn by code, the same for the same seed.

A packshot is a product alone on white. A shelf view is the product among its neighbours: turned, lit, in shadow,
blurred, noisy, partly behind hands and price tags, partly out of the frame.
"""

import csv
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np

from workbench.data.synthetic.cache import default_options, drawn_folder
from workbench.data.synthetic.drawing import encode_jpeg
from workbench.data.synthetic.skus import NUM_BRANDS, Sku, design_skus
from workbench.data.synthetic.views import View, draw_product

DRAWING_VERSION = 1  # raise it when the same options give other pixels, so that no old drawing is taken for a new one
_FIRST_TEST_BRAND = NUM_BRANDS // 2


def draw_products(
    folder: Path,
    *,
    seed: int = 0,
    num_train_skus: int = 120,
    num_test_skus: int = 64,
    train_views: int = 12,
    val_views: int = 2,
    reference_views: int = 10,
    query_views: int = 10,
    size_px: int = 128,
    num_workers: int | None = None,
) -> None:
    """Draws an assortment into `folder`: pictures as JPEG and `catalog.csv`, with one row each.

    Train: one packshot and `train_views` shelf views of each train SKU. Val: `val_views` other shelf views of the same
    SKUs. Reference: one packshot and `reference_views` shelf views of each test SKU; query: `query_views` others. No
    brand is both in train and test. Every picture has its own random numbers, so that neither the number of workers nor
    the number of views changes any of them.

    Args:
        folder: is created when missing; use a new one.
        seed: of the products and the views.
        num_train_skus: at least 3.
        num_test_skus: at least 3.
        train_views: per SKU, as the three that follow.
        val_views: per SKU.
        reference_views: per SKU.
        query_views: per SKU.
        size_px: side of the square pictures, at least 32.
        num_workers: threads; None takes one for each core that this process may use.

    Raises:
        ValueError: a count or size out of range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it is 0 or larger.")
    views = {"train": train_views, "val": val_views, "reference": reference_views, "query": query_views}
    for split, count in views.items():
        if not 0 <= count <= 999:
            raise ValueError(f"{split}_views is {count}; 0 to 999 views can be drawn of a SKU.")
    if size_px < 32:
        raise ValueError(f"size_px is {size_px}; below 32 px nothing of a label is left.")
    train, test = design_skus(seed, num_train_skus), design_skus(seed, num_test_skus, _FIRST_TEST_BRAND)
    skus = {"train": train, "val": train, "reference": test, "query": test}
    tasks = [(sku, split) for split in views for sku in skus[split]]

    def draw(task: tuple[Sku, str]) -> list[tuple[str, ...]]:
        sku, split = task
        (folder / split / sku.label).mkdir(parents=True, exist_ok=True)
        rows: list[tuple[str, ...]] = []
        for number in range(0 if split in ("train", "reference") else 1, views[split] + 1):
            view: View = "shelf" if number else "packshot"
            rng = np.random.default_rng([seed, int(sku.label), list(views).index(split), number])
            path = f"{split}/{sku.label}/{view}_{number:03d}.jpg"
            (folder / path).write_bytes(encode_jpeg(draw_product(sku, size_px, rng, view)))
            rows.append((path, sku.label, split, "", sku.brand.name, "synthetic" if number else "packshot"))
        return rows

    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "split", "camera", "group", "domain"))
    with ThreadPoolExecutor(num_workers or joblib.cpu_count()) as workers:
        for rows in workers.map(draw, tasks):
            writer.writerows(rows)
    (folder / "catalog.csv").write_text(table.getvalue(), encoding="utf-8")


_DEFAULTS = default_options(draw_products)


def synthetic_folder(options: Mapping[str, object]) -> Path:
    """The folder with the products that `options` describe (see `draw_products`), drawn when it is not there yet.

    Raises:
        ValueError: an option that does not exist, or a value that is not a whole number.
    """
    return drawn_folder(draw_products, "products", DRAWING_VERSION, _DEFAULTS, options)
