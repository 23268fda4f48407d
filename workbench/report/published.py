"""Published figures of the systems that the workbench is held against, each with the conditions it was measured under."""

import re
from collections.abc import Hashable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

_TEXT_COLUMNS = (
    "system",
    "trunk",
    "task",
    "dataset_or_setting",
    "metric",
    "condition",
    "unit",
    "source",
    "reference_domain",
    "query_domain",
    "note",
)


def published_results(
    task: str | None = None, dataset: str | None = None, metric: str | None = None, system: str | None = None
) -> pd.DataFrame:
    """A table of published figures, one row a figure, in the order of the file; a filter left out keeps all.

    Text columns `system, trunk, task, dataset_or_setting, metric, condition, unit, source, reference_domain,
    query_domain, note` (empty text where the source says nothing), `value` float64 in `unit` (accuracies are
    fractions), `queries_per_class` Int64, `shots` Int64: the references per class where the condition states them.

    Args:
        task: `recognition`, `reid` or `speed`.
        dataset: the whole entry of `dataset_or_setting`.
        metric: the whole entry of `metric`, such as `accuracy`, `mAP` or `latency`.
        system: the whole entry of `system`.

    Raises:
        ValueError: a filter names something that the table does not hold; the message lists what it holds.

    Source: NVIDIA NGC model cards (Retail Object Recognition, ReIdentificationNet) and the RetailKLIP paper; the
        column `source` names one for each row.
    """
    with files("workbench.report").joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=dict.fromkeys(_TEXT_COLUMNS, "str"), keep_default_na=False)
    table["value"] = table["value"].astype("float64")
    table["queries_per_class"] = pd.to_numeric(table["queries_per_class"]).astype("Int64")
    table["shots"] = pd.to_numeric(table["condition"].str.extract(r"^references_per_class=(\d+)$")[0]).astype("Int64")
    for column, wanted in (("task", task), ("dataset_or_setting", dataset), ("metric", metric), ("system", system)):
        if wanted is None:
            continue
        known = table[column].unique().tolist()
        if wanted not in known:
            raise ValueError(f"No published figure has {column} {wanted!r}; the table holds {', '.join(known)}.")
        table = table[table[column] == wanted]
    return table.reset_index(drop=True)


def published_curves(datasets: Sequence[str] | None = None) -> pd.DataFrame:
    """Published recognition accuracy against references per class, ready for `accuracy_against_shots`.

    Columns `system` (with its trunk), `shots` int, `value` fraction, `condition`: one sentence with data set,
    domains and number of queries, as far as the source states them. One row a published point.

    Args:
        datasets: entries of `dataset_or_setting` to keep; `None` keeps all.

    Raises:
        ValueError: a data set that has no such point.
    """
    table = published_results("recognition", metric="accuracy")
    table = table[table["shots"].notna()]
    if datasets is not None:
        known = table["dataset_or_setting"].unique().tolist()
        unknown = [name for name in datasets if name not in known]
        if unknown:
            raise ValueError(f"No published curve on {', '.join(unknown)}; there are curves on {', '.join(known)}.")
        table = table[table["dataset_or_setting"].isin(list(datasets))]
    curves = pd.DataFrame(
        {
            "system": table["system"] + ", " + table["trunk"],
            "shots": table["shots"].astype("int64"),
            "value": table["value"],
            "condition": [_condition(row) for row in table.to_dict("records")],
        }
    )
    return curves.reset_index(drop=True)


def published_identification() -> pd.DataFrame:
    """Published re-identification results, one row a system and setting, in the order of the file.

    Columns `system` (with its trunk), `setting` (such as "feature_dim=64"), `data`, then one a metric (`mAP`, `rank-1`,
    `rank-5`, `rank-10`, fractions, NaN where the source has none) and `conditions`: what makes it another question than
    ours, as far as the source says.
    """
    table = published_results("reid")
    table = table.assign(system=table["system"] + ", " + table["trunk"])
    table = table.rename(columns={"condition": "setting", "dataset_or_setting": "data", "note": "conditions"})
    keys = ["system", "setting", "data", "conditions"]
    values = table.pivot_table(index=keys, columns="metric", values="value", aggfunc="first", sort=False).reset_index()
    metrics = [name for name in values.columns if name not in keys]
    return values[["system", "setting", "data", *metrics, "conditions"]].rename_axis(columns=None)


def published_like(metric: str) -> pd.DataFrame:
    """Published values of the quantity that a metric of ours names; a row a value, none where nothing fits.

    `accuracy@1/shots=K/...` is held against accuracies with K references per class, `shots=all` against the one with the most
    references of each system and data set; `mAP` and `rank-K` against re-identification results. Columns `system` (with its
    trunk), `data`, `value` fraction, `condition` (data, domains, setting), `note`, `source`.

    Args:
        metric: a name in metrics.json; a prefix such as `seen/` and a suffix such as `/references=...` change nothing.
    """
    table = published_results()
    shots = re.search(r"(?:^|/)accuracy@1/shots=(\d+|all)(?:/|$)", metric)
    if shots:
        table = table[(table["metric"] == "accuracy") & table["shots"].notna()]
        most = table.groupby(["system", "dataset_or_setting"])["shots"].transform("max")
        table = table[table["shots"] == (most if shots[1] == "all" else int(shots[1]))]
    else:
        table = table[(table["task"] == "reid") & (table["metric"] == metric.rpartition("/")[2])]
    found = pd.DataFrame(
        {
            "system": table["system"] + ", " + table["trunk"],
            "data": table["dataset_or_setting"],
            "value": table["value"],
            "condition": [f"{_condition(row)}, {row['condition']}" for row in table.to_dict("records")],
            "note": table["note"],
            "source": table["source"],
        }
    )
    return found.reset_index(drop=True)


def _condition(row: Mapping[Hashable, Any]) -> str:
    parts = [row["dataset_or_setting"]]
    for domain, role in ((row["reference_domain"], "references"), (row["query_domain"], "queries")):
        if domain:
            parts.append(f"{role}: {domain}" if " " in domain else f"{domain} {role}")
    if not pd.isna(row["queries_per_class"]):
        parts.append(f"{row['queries_per_class']} queries per class")
    return ", ".join(parts)
