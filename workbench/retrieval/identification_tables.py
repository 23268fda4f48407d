"""What is shown of a re-identification run: chance beside the numbers, curves, and ranked lists with the files behind them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.retrieval.baseline import chance_reid
from workbench.retrieval.false_accepts import far_name
from workbench.retrieval.identification import camera_names
from workbench.retrieval.reid_result import ReidResult
from workbench.retrieval.stats import Metric


def chance_identification(result: ReidResult, gallery: Catalog, ranks: Sequence[int] = ()) -> dict[str, Metric]:
    """What a random ranking gets for the queries of `result`, by name: `chance/mAP`, `chance/rank-1`, ...

    Averaged as the result is: over queries or over individuals, queries without a match left out or as 0. Average
    precision is the step form, whatever the protocol says. A random similarity accepts as many matches as non-matches, so
    that its TAR is the FAR.

    Args:
        result: of the same gallery.
        gallery: its rows.
        ranks: those wanted; empty: the protocol's.
    """
    protocol = result.protocol
    counted = result.per_query[result.per_query["average_precision"].notna()]
    kept_Q = np.full(len(counted), result.num_gallery - (protocol.junk == "itself"))
    if protocol.junk == "same_id_same_camera":
        num_own = Counter(zip(gallery.labels, camera_names(gallery), strict=True))
        kept_Q = kept_Q - np.array([num_own[pair] for pair in zip(counted["label"], counted["camera"], strict=True)])
    positives_Q = counted["num_positives"].to_numpy(np.int64)
    each = counted["label"].to_numpy(dtype=object) if protocol.average == "identity" else np.zeros(len(counted))
    means: dict[str, list[float]] = {}
    for group in pd.unique(each):
        rows = each == group
        matched = float((positives_Q[rows] > 0).mean())
        found = chance_reid(positives_Q[rows], kept_Q[rows], ranks or protocol.ranks) if matched else {}
        for name in ("mAP", *(f"rank-{rank}" for rank in ranks or protocol.ranks)):
            means.setdefault(f"chance/{name}", []).append(matched * found[f"chance/{name}"].value if found else 0.0)
    values = {name: float(np.mean(value)) for name, value in means.items()}
    values |= {f"chance/{far_name(far)}": far for far in protocol.far if far_name(far) in result.metrics}
    line = (
        "expected over all orders of the gallery, step average precision, same junk and average as the result beside it; "
        "exact, so the interval has no width"
    )
    return {name: Metric(value, value, value, len(counted), line) for name, value in values.items()}


def collect_metrics(result: ReidResult, histogram: ReidResult, gallery: Catalog) -> dict[str, Metric]:
    """Every metric of a run under its name: the embedder's (`mAP` first), `colour_histogram/...` and `chance/...`."""
    colour = {f"colour_histogram/{name}": metric for name, metric in histogram.metrics.items()}
    return result.metrics | colour | chance_identification(result, gallery)


def compare_systems(metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """One row a metric, as text: the embedder, the colour histogram, chance, and n of the embedder's.

    Args:
        metrics: as `collect_metrics` names them.
    """
    names = [name for name in metrics if "/" not in name]
    systems = {"embedder": "", "colour histogram": "colour_histogram/", "chance": "chance/"}
    columns: dict[str, list[Any]] = {"metric": names}
    for system, prefix in systems.items():
        found = [metrics.get(prefix + name) for name in names]
        columns[system] = [str(metric).partition(", n")[0] if metric else None for metric in found]
    return pd.DataFrame({**columns, "n": [metrics[name].n for name in names]})


def cmc_table(results: Mapping[str, ReidResult], baseline: str, gallery: Catalog, max_rank: int = 50) -> pd.DataFrame:
    """One row a system and rank, as `report.figures.cmc_curves` draws it; chance comes last.

    Columns: series, baseline (bool), rank, value, low, high, n; low and high are NaN but at the protocol's ranks.

    Args:
        results: by system, the first is the one whose queries chance is computed for.
        baseline: the system that is a baseline.
        gallery: the rows that were searched.
        max_rank: at most so many ranks, and no more than the gallery has rows.
    """
    first = next(iter(results.values()))
    max_rank = min(max_rank, first.num_gallery)
    parts = []
    for system, result in results.items():
        ends = {int(name[5:]): metric for name, metric in result.metrics.items() if name.startswith("rank-")}
        curve = result.cmc(max_rank).assign(series=system, baseline=system == baseline, n=result.metrics["mAP"].n)
        for end in ("low", "high"):
            curve[end] = [getattr(ends[rank], end) if rank in ends else np.nan for rank in curve["rank"]]
        parts.append(curve)
    ranks = sorted({rank for rank in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50) if rank < max_rank} | {max_rank})
    levels = chance_identification(first, gallery, ranks)
    rows = [("chance", True, rank, levels[f"chance/rank-{rank}"].value, np.nan, np.nan) for rank in ranks]
    columns = ["series", "baseline", "rank", "value", "low", "high"]
    parts.append(pd.DataFrame(rows, columns=columns).assign(n=first.metrics["mAP"].n))
    return pd.concat(parts, ignore_index=True)[[*columns, "n"]]


@dataclass(frozen=True)
class RankedList:
    """What one query found, with the pictures that show it.

    Attributes:
        query: its picture.
        caption: who is asked for, and how well it was answered.
        answers: as `ReidResult.ranked_list`, with the columns picture and caption besides.
    """

    query: Picture
    caption: str
    answers: pd.DataFrame


def ranked_lists(
    result: ReidResult, queries: Catalog, gallery: Catalog, query_indices: Sequence[int], k: int = 10
) -> list[RankedList]:
    """The ranked lists of some queries, in the order given.

    Args:
        result: of these queries and this gallery, row for row.
        queries: the queries' rows.
        gallery: the gallery's rows.
        query_indices: of `result.per_query`.
        k: counted answers of each list; junk that stands among them comes on top.
    """
    query_pictures, gallery_pictures = queries.pictures(), gallery.pictures()
    lists = []
    for query in query_indices:
        asked, answers = result.per_query.loc[query], result.ranked_list(query, k)
        value = answers["similarity" if "similarity" in answers else "distance"]
        answers["picture"] = [gallery_pictures[row] for row in answers["gallery"]]
        answers["caption"] = [
            f"{label}, camera {camera or '?'}, {near:.4f}"
            for label, camera, near in zip(answers["label"], answers["camera"], value, strict=True)
        ]
        found = (
            f"average precision {asked['average_precision']:.1%}, first right answer (of {asked['num_positives']}) at place "
            f"{asked['first_hit']:g}"
            if asked["num_positives"]
            else "no right answer in the gallery"
        )
        pooled = f", the first of {asked['num_images']} pictures that were pooled" if asked["num_images"] > 1 else ""
        caption = f"{asked['label']}, camera {asked['camera'] or '?'}{pooled}: {found}"
        lists.append(RankedList(query_pictures[query], caption, answers))
    return lists


def spread_queries(result: ReidResult, num: int) -> list[int]:
    """The indices of at most `num` queries that have a match, evenly from the best answered to the worst.

    Queries of one average precision stand in the order given.
    """
    matched = result.per_query[result.per_query["num_positives"] > 0]
    order = matched.sort_values("average_precision", ascending=False, kind="stable").index
    places = np.linspace(0, len(order) - 1, min(num, len(order))).round().astype(int)
    return [int(order[place]) for place in places]
