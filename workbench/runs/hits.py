"""queries.parquet: what a run found for each query, so that runs are compared on the same queries later.

Axes: D draws of the references, Q queries.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.runs.files import write_bytes

FILE_NAME = "queries.parquet"
_COLUMNS = ["metric", "query", "label", "draw", "hit"]


@dataclass(frozen=True)
class Hits:
    """One metric by query: its mean over draws and queries is the metric's value.

    Attributes:
        query_Q: text, the name of each query (source and path), each once.
        label_Q: text, its class.
        hit_DQ: float32, 0 to 1; one row where the references are not drawn.
    """

    query_Q: np.ndarray
    label_Q: np.ndarray
    hit_DQ: np.ndarray


def save_hits(folder: Path, hits: Mapping[str, Hits]) -> Path:
    """The path of the folder's queries.parquet, to which the hits are added atomically; a known name is replaced.

    Args:
        folder: the run's.
        hits: by metric, under the name that metrics.json has.

    Raises:
        ValueError: no metric, lengths that differ, a query named twice, or a value out of 0 to 1; nothing is written.
        OSError: the disk is full; the old file stays.
    """
    for name, one in hits.items():
        _check(name, one)
    if not hits:
        raise ValueError("Wanted the hits of at least one metric, found none.")
    frames = [_to_frame(name, one) for name, one in {**read_hits(folder), **hits}.items()]
    file = io.BytesIO()
    whole = pd.concat(frames, ignore_index=True)
    whole.astype({"metric": "category", "query": "category", "label": "category"}).to_parquet(file, index=False)
    write_bytes(folder / FILE_NAME, file.getvalue())
    return folder / FILE_NAME


def read_hits(folder: Path) -> dict[str, Hits]:
    """The run's hits by metric, in the order in which they were saved; empty where there are none.

    Raises:
        ValueError: queries.parquet cannot be read.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    try:
        frame = pd.read_parquet(path)[_COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from error
    hits = {}
    for name, rows in frame.groupby("metric", sort=False, observed=True):
        num_draws = int(rows["draw"].max()) + 1
        first = rows.iloc[: len(rows) // num_draws]
        hits[str(name)] = Hits(
            first["query"].astype(object).to_numpy(),
            first["label"].astype(object).to_numpy(),
            rows["hit"].to_numpy(np.float32).reshape(num_draws, -1),
        )
    return hits


def _check(name: str, one: Hits) -> None:
    num = len(one.query_Q)
    if one.hit_DQ.ndim != 2 or one.hit_DQ.shape != (len(one.hit_DQ), num) or len(one.label_Q) != num or not num:
        raise ValueError(
            f"Hits of {name!r}: wanted draws by queries with a name and a label each, found {one.hit_DQ.shape} hits, "
            f"{num} names and {len(one.label_Q)} labels."
        )
    if len(set(one.query_Q)) != num:
        raise ValueError(f"Hits of {name!r}: a query is named twice; a run asks each once.")
    if not ((one.hit_DQ >= 0) & (one.hit_DQ <= 1)).all():
        raise ValueError(f"Hits of {name!r}: wanted values from 0 to 1; leave out queries without an answer (NaN).")


def _to_frame(name: str, one: Hits) -> pd.DataFrame:
    num_draws, num_queries = one.hit_DQ.shape
    return pd.DataFrame(
        {
            "metric": name,
            "query": np.tile(one.query_Q.astype(object), num_draws),
            "label": np.tile(one.label_Q.astype(object), num_draws),
            "draw": np.repeat(np.arange(num_draws, dtype=np.int32), num_queries),
            "hit": one.hit_DQ.astype(np.float32).ravel(),
        }
    )
