"""What is shown of a recognition run: every number with its baselines, curves, and mistakes with the pictures behind them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.retrieval.few_shot import FewShotResult
from workbench.retrieval.mistakes import GroupMistakes
from workbench.retrieval.recognition import ALL_OTHERS, Embedded, RecognitionPlan, Result, chance_beside, name_metrics
from workbench.retrieval.stats import Metric


def collect_metrics(
    plan: RecognitionPlan, results: Mapping[str, Result], baselines: Mapping[str, Result]
) -> dict[str, Metric]:
    """Every metric of a run under its name: the embedder's, the colour histogram's, and the chance level beside them."""
    metrics: dict[str, Metric] = {}
    for name, result in results.items():
        metrics |= name_metrics(result.metrics, plan, name)
        metrics |= name_metrics(baselines[name].metrics, plan, name, "colour_histogram")
        metrics |= name_metrics(chance_beside(result, plan.references, name), plan, name)
    return metrics


def metrics_table(metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """One row a metric: metric (its name), value, low, high, n."""
    rows = [(name, one.value, one.low, one.high, one.n) for name, one in metrics.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n"])


def headline_rows(results: Mapping[str, Mapping[str, Result]], baseline: str) -> pd.DataFrame:
    """One row a system and reference set, as `report.figures.interval_dots` draws it: the headline, micro.

    Args:
        results: by system, then by reference set.
        baseline: the system that is the baseline.
    """
    rows = [
        {
            "label": f"{system}, {name}",
            "baseline": system == baseline,
            **vars(result.metrics[f"{result.measure}/micro"]),
        }
        for system, of_sets in results.items()
        for name, result in of_sets.items()
    ]
    return pd.DataFrame(rows)


def recall_curves(metrics: Mapping[str, Metric], system: str) -> pd.DataFrame:
    """One row a system and K of Recall@K (micro), as `report.figures.cmc_curves` draws it; the two baselines come last.

    Columns: series, baseline (bool), rank (K), value, low, high, n.

    Args:
        metrics: from `collect_metrics`, where one is left out.
        system: what the embedder is called.
    """
    names = {"": system, "colour_histogram/": "colour histogram", "chance/": "chance"}
    rows = []
    for prefix, series in names.items():
        for name, one in metrics.items():
            k = name.removeprefix(f"{prefix}recall@").removesuffix("/micro")
            if name.startswith(f"{prefix}recall@") and k.isdecimal():
                rows.append((series, bool(prefix), int(k), one.value, one.low, one.high, one.n))
    return pd.DataFrame(rows, columns=["series", "baseline", "rank", "value", "low", "high", "n"])


def richest_gallery(
    galleries: Mapping[str, Embedded], queries: Embedded
) -> tuple[str, Embedded, tuple[np.ndarray, ...]]:
    """The name of the gallery with the most images, its embeddings, and (references, labels, queries, labels) as arrays.

    Without a gallery: `ALL_OTHERS`, the queries' embeddings, and (queries, labels).
    """
    asked = queries.embedding_ND, queries.catalog.labels
    if not galleries:
        return ALL_OTHERS, queries, asked
    name = max(galleries, key=lambda one: len(galleries[one].catalog))
    return name, galleries[name], (galleries[name].embedding_ND, galleries[name].catalog.labels, *asked)


@dataclass(frozen=True)
class Confusion:
    """A frequent mistake with the pictures that show it.

    Attributes:
        label: the right label; predicted: what it was taken for.
        count: queries of the label that were taken so; share: of its queries, 0 to 1.
        query, taken_for, right: the query nearest to the wrong label, the reference it was taken for, and the first
            reference of the right label.
    """

    label: str
    predicted: str
    count: int
    share: float
    query: Picture
    taken_for: Picture
    right: Picture


def frequent_confusions(result: Result, references: Catalog, queries: Catalog, num: int) -> list[Confusion]:
    """The most frequent mistakes, at most `num` of them; empty when nothing was mistaken.

    Args:
        result: of these references and queries, row for row.
        references: the gallery's rows.
        queries: the queries' rows.
        num: how many.
    """
    reference_pictures, query_pictures = references.pictures(), queries.pictures()
    first_row = references.frame.reset_index().drop_duplicates("label").set_index("label")["index"]
    columns = ["label", "predicted", "count", "share", "query", "reference"]
    return [
        Confusion(
            label,
            predicted,
            count,
            share,
            query_pictures[query],
            reference_pictures[row],
            reference_pictures[first_row[label]],
        )
        for label, predicted, count, share, query, row in result.confusions.head(num)[columns].itertuples(
            index=False, name=None
        )
    ]


def shots_curves(results: Mapping[str, Mapping[str, Result]], baseline: str) -> pd.DataFrame:
    """One row a system, reference set and number of shots, as `report.figures.accuracy_against_shots` draws it.

    Columns: series (system and reference set), label (the same), baseline (bool), shots (whole number or "all"), value,
    low, high, n of accuracy@1, micro; in the order given.

    Args:
        results: by system, then by reference set.
        baseline: the system that is the baseline.
    """
    rows = []
    for system, of_sets in results.items():
        for name, result in of_sets.items():
            for shots in result.protocol.shots if isinstance(result, FewShotResult) else ():
                found = result.metrics[f"accuracy@1/shots={shots}/micro"]
                rows.append(
                    (f"{system}, {name}", system == baseline, shots, found.value, found.low, found.high, found.n)
                )
    table = pd.DataFrame(rows, columns=["series", "baseline", "shots", "value", "low", "high", "n"])
    return table.assign(label=table["series"])


def compare_groups(catalog: Catalog, references: Catalog, result: Result) -> GroupMistakes | None:
    """How far the mistakes go, by the catalog's groups; None where a label of the references has no group."""
    known = catalog.frame.dropna(subset="group").drop_duplicates("label")
    groups = dict(zip(known["label"].tolist(), known["group"].tolist(), strict=True))
    return result.group_mistakes(groups) if set(references.labels) <= groups.keys() else None
