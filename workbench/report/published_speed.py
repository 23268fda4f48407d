"""NVIDIA's published speeds beside what was measured here, with every condition that differs named."""

import math
import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from workbench.report.published import published_results
from workbench.report.style import need_columns

COLUMNS = (
    *("system", "published_trunk", "published_device", "published_batch", "published_precision", "published_size"),
    *("published_runtime", "published_latency_ms", "published_images_per_s", "source"),
    *("runtime", "device", "batch", "precision", "size", "transfers", "mean_ms", "images_per_s"),
    *("ratio", "differs", "comparable"),
)
_OURS = ("runtime", "device", "batch", "precision", "transfers", "mean_ms", "images_per_s")


def published_speed(trunk: str | None = None) -> pd.DataFrame:
    """Published latency and throughput, one row a system, trunk, device, batch and precision.

    Columns `system, trunk, device, batch` (int), `precision` (fp16, or as the card says it, such as mixed), `size` (height x width,
    px), `runtime` (trtexec), `latency_ms`, `images_per_s`, `source`. The cards do not say whether transfers are counted.

    Args:
        trunk: one of the table, such as `ResNet101`; None gives all.

    Raises:
        ValueError: a trunk without a published speed.
    """
    table = published_results("speed")
    known = table["trunk"].unique().tolist()
    if trunk is not None and trunk not in known:
        raise ValueError(f"No published speed has trunk {trunk!r}; there are {', '.join(known)}.")
    keys = ["system", "trunk", "dataset_or_setting", "condition", "source"]
    wide = table.pivot_table(index=keys, columns="metric", values="value", aggfunc="first", sort=False).reset_index()
    wide[["size", "precision", "runtime"]] = wide["dataset_or_setting"].str.split(", ", expand=True).to_numpy()
    wide[["device", "batch"]] = wide["condition"].str.extract(r"^device=(.+);batch=(\d+)$").to_numpy()
    wide = wide.assign(precision=wide["precision"].str.lower(), batch=wide["batch"].astype("int64"))
    wide = wide.rename(columns={"latency": "latency_ms", "throughput": "images_per_s"}).rename_axis(columns=None)
    columns = [*("system", "trunk", "device", "batch", "precision", "size", "runtime"), "latency_ms", "images_per_s"]
    chosen = wide if trunk is None else wide[wide["trunk"] == trunk]
    return chosen[[*columns, "source"]].reset_index(drop=True)


def beside_published(measured: pd.DataFrame, trunk: str, image_size: tuple[int, int]) -> pd.DataFrame:
    """Each published row of a trunk beside each runtime measured: at its batch, or at the nearest one, which is then said.

    `differs` names the conditions that are not equal (device, batch, precision, size, runtime), "" where all are; `comparable`
    is True where at least device, batch, precision and size are. `ratio` is images/s measured over published; where rows are
    not comparable it says how far apart two different settings lie, and nothing about a runtime.

    Args:
        measured: of `benchmarks.serving.measure_serving`; rows that were not available are left out.
        trunk: the published trunk that this one stands beside, such as `ResNet101`; whether the two are one architecture is
            the caller's to judge.
        image_size: height and width that were measured, px.

    Raises:
        ValueError: a missing column, or a trunk without a published speed.
    """
    need_columns(measured, _OURS, "measured")
    size = f"{image_size[0]}x{image_size[1]}"
    rows: list[dict[str, object]] = []
    ours = measured[measured["images_per_s"].notna()]
    for stated in published_speed(trunk).to_dict("records"):
        for _, part in ours.groupby(["runtime", "precision", "transfers", "device"], sort=False):
            # nearest on a log scale; of two as near, the smaller
            apart = [abs(math.log(batch / stated["batch"])) for batch in part["batch"]]
            nearest = part.assign(apart=apart).sort_values(["apart", "batch"]).iloc[0]
            rows.append(_beside(stated, {name: nearest[name] for name in _OURS} | {"size": size}))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _beside(stated: Mapping[Hashable, Any], ours: dict[str, Any]) -> dict[str, object]:
    unequal = {
        "device": not _is_device(stated["device"], ours["device"]),
        "batch": int(stated["batch"]) != int(ours["batch"]),
        "precision": stated["precision"] != ours["precision"],
        "size": stated["size"] != ours["size"],
        "runtime": "tensorrt" not in str(ours["runtime"]).lower(),
    }
    differs = [f"{name} ({ours[name]}, published {stated[name]})" for name, is_unequal in unequal.items() if is_unequal]
    told = ("device", "batch", "precision", "size", "runtime", "latency_ms", "images_per_s")
    return {
        "system": stated["system"],
        "published_trunk": stated["trunk"],
        **{f"published_{name}": stated[name] for name in told},
        "source": stated["source"],
        **ours,
        "ratio": ours["images_per_s"] / stated["images_per_s"],
        "differs": ", ".join(differs),
        "comparable": not any(unequal[name] for name in ("device", "batch", "precision", "size")),
    }


def _is_device(published: str, found: str) -> bool:
    """Whether every word of the published name stands as a word in the name found: A10 is not A100."""
    words = set(re.findall(r"[a-z0-9]+", found.lower()))
    return set(re.findall(r"[a-z0-9]+", published.lower())) <= words
