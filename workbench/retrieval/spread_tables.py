"""Embedding spread before and after training, of the images of a data set: measured, named, and as a figure wants it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.data.catalog import Catalog
from workbench.models.embedder import Embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.spread import SpreadChange, compare_spread
from workbench.retrieval.stats import Metric

MEASURES = ("alignment", "uniformity")


def measure_changes(
    parts: Mapping[str, Catalog], before: Embedder, after: Embedder, **options: Any
) -> dict[str, SpreadChange]:
    """The spread of each part's images under both embedders; a part in which no class has two images is left out.

    Args:
        parts: images by name.
        before, after: the two embedders.
        options: of `embed_catalog`.
    """
    changes = {}
    for name, images in parts.items():
        if len(images) == 0 or images.frame["label"].value_counts().max() < 2:
            continue
        first, second = (embed_catalog(embedder, images, **options) for embedder in (before, after))
        changes[name] = compare_spread(first.embedding_ND, second.embedding_ND, first.catalog.labels)
    return changes


def spread_metrics(changes: Mapping[str, SpreadChange]) -> dict[str, Metric]:
    """Every number by name: `spread/<images>/alignment` after training, the others under `untuned/` and `difference/`."""
    metrics = {}
    for name, change in changes.items():
        for measure in MEASURES:
            key = f"spread/{name}/{measure}"
            metrics[key] = getattr(change.after, measure)
            metrics[f"untuned/{key}"] = getattr(change.before, measure)
            metrics[f"difference/{key}"] = getattr(change, measure)
    return metrics


def spread_table(changes: Mapping[str, SpreadChange]) -> pd.DataFrame:
    """Two rows a series, before and after: series, stage, n (images), alignment and uniformity with `_low` and `_high`."""
    rows = []
    for name, change in changes.items():
        for stage in ("before", "after"):
            found = getattr(change, stage)
            row: dict[str, object] = {"series": name, "stage": stage, "n": found.uniformity.n}
            for measure in MEASURES:
                metric = getattr(found, measure)
                row |= {measure: metric.value, f"{measure}_low": metric.low, f"{measure}_high": metric.high}
            rows.append(row)
    return pd.DataFrame(rows)
