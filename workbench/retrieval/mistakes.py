"""Tables of what was mistaken for what: predictions, classes, confusions, and mistakes within a group of labels.

Axes: D draws, Q queries, C classes, N reference rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.retrieval.draws import References
from workbench.retrieval.intervals import interval_of_class_means, share_interval
from workbench.retrieval.stats import Metric, cluster_interval


@dataclass(frozen=True)
class Answers:
    """The label found for each query, at one number of shots.

    Attributes:
        predicted_DQ: int32 codes 0..C-1; where classes tie, the first of them by label.
        tied: int64, [rows, 3]: (draw, query, class) for every class that shares the first place.
    """

    predicted_DQ: np.ndarray
    tied: np.ndarray

    def credit(self, code_C: np.ndarray, code_Q: np.ndarray) -> np.ndarray:
        """Returns credit_DQ, 0 to 1: is the answer's code the query's, or what share of the tied answers has it.

        Args:
            code_C: int64, the code of each class (its group).
            code_Q: int64, the right code of each query.
        """
        credit_DQ = (code_C[self.predicted_DQ] == code_Q).astype(np.float64)
        if len(self.tied):
            draw, query, found = self.tied.T
            right_DQ, all_DQ = np.zeros_like(credit_DQ), np.zeros_like(credit_DQ)
            np.add.at(right_DQ, (draw, query), code_C[found] == code_Q[query])
            np.add.at(all_DQ, (draw, query), 1.0)
            np.divide(right_DQ, all_DQ, out=credit_DQ, where=all_DQ > 0)
        return credit_DQ


@dataclass(frozen=True)
class GroupMistakes:
    """How far the mistakes go: a sibling within the same group, or something of another kind.

    Attributes:
        metrics: for all shots `group_accuracy@1/shots=k/micro` and `/macro` (mean over labels, not over groups), and
            `mistakes_within_group/shots=k` (share of the mistakes; left out where there is none; its n counts them).
        table: a row a group, at the headline shots, mean over draws: group, num_labels, num_queries, accuracy,
            group_accuracy, within_share (share of its mistakes that stay within, NaN without a mistake).
    """

    metrics: dict[str, Metric]
    table: pd.DataFrame


def nearest_of_class(
    references: References, query_QD: np.ndarray, class_Q: np.ndarray, used_N: np.ndarray
) -> np.ndarray:
    """Returns, int64, the row (as it was given) of the nearest reference of class_Q to each query.

    Args:
        references: all of them.
        query_QD: float32, length 1.
        class_Q: the class to look in, 0..C-1.
        used_N: bool, the references that are in the gallery; every class has one. Equal ones: the first row.
    """
    row_Q = np.empty(len(query_QD), np.int64)
    class_N = references.class_P[references.photo_N]
    order = np.argsort(class_Q, kind="stable")
    for queries in np.split(order, np.flatnonzero(np.diff(class_Q[order])) + 1):
        if len(queries):
            start, stop = np.searchsorted(class_N, [class_Q[queries[0]], class_Q[queries[0]] + 1])
            rows = start + np.flatnonzero(used_N[start:stop])
            similarity = query_QD[queries] @ references.embedding_ND[rows].T
            row_Q[queries] = references.row_N[rows[similarity.argmax(axis=1)]]
    return row_Q


def confusion_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each pair of a label and what it was taken for, the most frequent first, then by label.

    Columns: label, predicted, count, share (of the label's queries), query and reference: rows, as they were given, of the
    example with the highest similarity (the reference is the nearest one of the predicted label). Without a mistake the
    table has no row. Where labels tie, the predicted one is the first of them by label, so a tie can count here.

    Args:
        predictions: as `FewShotResult.predictions`, queries of absent labels among them are left out.
    """
    present = predictions[~predictions["absent"]]
    wrong = present[present["label"] != present["predicted"]]
    wrong = wrong.sort_values(["similarity", "query"], ascending=[False, True], kind="stable")
    pairs = wrong.groupby(["label", "predicted"], sort=True)
    table = pairs.agg(count=("query", "size"), query=("query", "first"), reference=("reference", "first")).reset_index()
    num_queries = present["label"].value_counts()
    table.insert(3, "share", table["count"] / table["label"].map(num_queries).astype(float))
    return table.sort_values("count", ascending=False, kind="stable").reset_index(drop=True)


def class_table(
    correct_DQ: np.ndarray, labels_Q: np.ndarray, num_references: Mapping[str, int], confusions: pd.DataFrame
) -> pd.DataFrame:
    """Returns a row for each label that was asked, the least accurate first, then by label.

    Columns: label, num_queries, num_references (photographs in the headline gallery), accuracy (mean over draws and
    queries), low, high, most_confused_with (of draw 0; None without a mistake), most_confused_share (of its queries).
    The interval is Wilson's, for the queries as trials, with the variance of the draw means added.
    """
    first = confusions.drop_duplicates("label")
    others = dict(zip(first["label"], zip(first["predicted"], first["share"], strict=True), strict=True))
    rows = []
    for label, columns in pd.Series(np.arange(len(labels_Q))).groupby(labels_Q).indices.items():
        draw_D, count = correct_DQ[:, columns].mean(axis=1, dtype=np.float64), len(columns)
        p = draw_D.mean(keepdims=True)
        of_draws = draw_D.var(ddof=1) / len(draw_D) if len(draw_D) > 1 else 0.0
        unit = np.minimum(1 / count + of_draws / np.maximum(p * (1 - p), 1e-12), 1.0)
        low, high = share_interval(p, unit, np.array([np.inf]))
        other, share = others.get(label, (None, 0.0))
        rows.append((label, count, num_references[str(label)], p[0], low[0], high[0], other, share))
    columns_ = ["label", "num_queries", "num_references", "accuracy", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns_, "most_confused_with", "most_confused_share"])
    return table.sort_values(["accuracy", "label"], kind="stable").reset_index(drop=True)


def compare_groups(
    answers: Mapping[str, Answers],
    correct: Mapping[str, np.ndarray],
    class_Q: np.ndarray,
    names: np.ndarray,
    groups: Mapping[str, str],
    protocol: Mapping[str, str],
    headline: str,
) -> GroupMistakes:
    """Returns the answers judged by group: right if the answer's group is the query's.

    Args:
        answers: by shots ("1", "5", "all"), for the same queries.
        correct: by shots, [D, Q], 0 to 1: the answer is the label itself.
        class_Q: the right class of each query.
        names: the labels of the classes.
        groups: the group of every label that is in the gallery.
        protocol: by shots, the line that goes into the metrics.
        headline: the shots of the table.

    Raises:
        ValueError: a label of the gallery has no group.

    Source: coarse classes of a label; ties as everywhere here, the share of the tied answers that is right.
    """
    missing = [str(name) for name in names if name not in groups or pd.isna(groups[name])]
    if missing:
        raise ValueError(f"every label needs a group; {len(missing)} have none, among them {', '.join(missing[:5])}")
    group_names, group_C = np.unique([str(groups[name]) for name in names], return_inverse=True)
    metrics: dict[str, Metric] = {}
    within: dict[str, np.ndarray] = {}
    for shots, answer in answers.items():
        within[shots] = answer.credit(group_C, group_C[class_Q])
        line = f"{protocol[shots]}; right if the answer is of the query's group ({len(group_names)} groups)"
        for average, words in (("micro", "mean over queries"), ("macro", "mean over labels")):
            metrics[f"group_accuracy@1/shots={shots}/{average}"] = cluster_interval(
                within[shots], names[class_Q], "micro" if average == "micro" else "macro", protocol=f"{line}, {words}"
            )
        wrong_C = np.bincount(class_Q, 1 - correct[shots].mean(axis=0), minlength=len(names))
        stays_C = np.bincount(class_Q, (within[shots] - correct[shots]).mean(axis=0), minlength=len(names))
        asked = wrong_C > 1e-9
        if asked.any():
            share_C = np.clip(stays_C[asked] / wrong_C[asked], 0, 1)
            found = interval_of_class_means(share_C[None, None], wrong_C[asked], "micro")
            value, low, high, doubt = (array.item() for array in found)
            metrics[f"mistakes_within_group/shots={shots}"] = Metric(
                value, low, high, max(1, round(float(wrong_C.sum()))),
                f"{protocol[shots]}; share of the mistakes (mean number over draws) whose answer is of the query's group",
                doubt,
            )  # fmt: skip
    frame = pd.DataFrame(
        {
            "group": group_names[group_C[class_Q]],
            "label": names[class_Q],
            "accuracy": correct[headline].mean(axis=0, dtype=np.float64),
            "group_accuracy": within[headline].mean(axis=0),
        }
    )
    table = (
        frame.groupby("group")
        .agg(
            num_labels=("label", "nunique"),
            num_queries=("label", "size"),
            accuracy=("accuracy", "mean"),
            group_accuracy=("group_accuracy", "mean"),
        )
        .reset_index()
    )
    wrong = (1 - table["accuracy"]).where(table["accuracy"] < 1 - 1e-9)
    table["within_share"] = (table["group_accuracy"] - table["accuracy"]) / wrong
    return GroupMistakes(metrics, table)
