"""What a change of the gallery broke: the same queries asked before and after, 50 products added, say.

Axes: Q queries.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import read_labels
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.stats import Metric, cluster_interval, mcnemar, paired_difference


@dataclass(frozen=True)
class GalleryChange:
    """What became of each query's answer; an answer is the label of the nearest reference, of equal ones the oldest.

    A query is "known" when its label is in both galleries, "new" or "removed" when it is in one of them, "absent" when it is in
    none. What broke is told by the known ones: the others cannot be right on both sides.

    Attributes:
        answers: a row a query: `query` (as given), `label`, `group` (of the four), `before` and `after` (answers),
            `similarity_before`, `similarity_after` (to the answer), `effect`: "still right", "right -> wrong",
            "wrong -> right", "still wrong" (also with another wrong answer).
        by_label: a row a known label that was asked, the largest loss first: `label`, `num_queries`, `right_before`,
            `right_after`, `broke` (right -> wrong), `mended` (wrong -> right), `most_taken_by` (the answer that took most of the
            broken ones; missing where nothing broke), `taken` (how many).
        by_taker: a row a label that took the place of another answer, the most harmful first: `label`, `is_new` (not in the
            gallery before), `num_taken` (queries it answers now and did not before), `num_broke` (known queries among them that
            were right), `num_own` (queries of its own label among them).
        metrics: `accuracy@1_before`, `accuracy@1_after` and `difference` (after less before, paired) of known queries;
            `accuracy@1_new`, of new ones after the change, where there are any. Intervals group queries by label.
        p_value: McNemar's exact test on known queries, which takes them as independent.
        num_queries: by group.
        new_labels: labels that are only in the gallery after.
        removed_labels: labels that are only in the gallery before.
    """

    answers: pd.DataFrame
    by_label: pd.DataFrame
    by_taker: pd.DataFrame
    metrics: dict[str, Metric]
    p_value: float
    num_queries: dict[str, int]
    new_labels: list[str]
    removed_labels: list[str]

    @property
    def changed(self) -> pd.DataFrame:
        """The rows of `answers` whose answer changed."""
        return self.answers[self.answers["before"] != self.answers["after"]]

    def describe(self) -> str:
        """Returns what happened in two or three sentences."""
        known = self.answers[self.answers["group"] == "known"]
        broke, mended = ((known["effect"] == effect).sum() for effect in ("right -> wrong", "wrong -> right"))
        difference = self.metrics["difference"]
        text = (
            f"{len(self.new_labels):,} labels added, {len(self.removed_labels):,} removed: of {len(known):,} queries of labels in "
            f"both galleries {broke:,} broke and {mended:,} were mended, {100 * difference.value:+.1f} points "
            f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], McNemar p = {self.p_value:.2g}."
        )
        worst = self.by_taker[self.by_taker["num_broke"] > 0].head(3)
        if len(worst):
            takers = ", ".join(
                f"{label} ({num})" for label, num in zip(worst["label"], worst["num_broke"], strict=True)
            )
            text += f" Most were taken by {takers}."
        if "accuracy@1_new" in self.metrics:
            text += f" Accuracy@1 of queries of the new labels: {self.metrics['accuracy@1_new']}."
        return text


def compare_galleries(
    before: Gallery, after: Gallery, query_QD: np.ndarray, query_labels: ArrayLike, seed: int = 0
) -> GalleryChange:
    """Returns what the change from one gallery to the other does to the answers of the same queries.

    Args:
        before: at least one reference.
        after: at least one reference, of the same width; references may have been added and removed.
        query_QD: [Q, D] finite numbers, no row all zero.
        query_labels: [Q], read as text.
        seed: of the intervals' bootstrap.

    Raises:
        ValueError: galleries of two widths, an empty one, no query, or none whose label is in both galleries.
    """
    if before.dim != after.dim:
        raise ValueError(
            f"both galleries must have one width, found {before.dim} and {after.dim}: one embedder for both"
        )
    query_QD = np.asarray(query_QD)
    label_Q = read_labels(query_labels, len(query_QD) if query_QD.ndim else 0, "query_labels")
    there_before, there_after = set(before.labels), set(after.labels)
    in_before_Q = np.array([label in there_before for label in label_Q], dtype=bool)
    in_after_Q = np.array([label in there_after for label in label_Q], dtype=bool)
    known_Q = in_before_Q & in_after_Q
    if not known_Q.any():
        raise ValueError(
            f"none of {len(label_Q)} queries has its label in both galleries, so that nothing could break: are the labels written "
            "the same way?"
        )
    first, second = before.search_labels(query_QD, 1), after.search_labels(query_QD, 1)
    before_Q, after_Q = first.label_QK[:, 0], second.label_QK[:, 0]
    right_before_Q, right_after_Q = before_Q == label_Q, after_Q == label_Q
    effects = np.array([["still wrong", "wrong -> right"], ["right -> wrong", "still right"]], dtype=object)
    groups = np.array([["absent", "new"], ["removed", "known"]], dtype=object)
    answers = pd.DataFrame(
        {
            "query": np.arange(len(label_Q)),
            "label": label_Q.astype(str),
            "group": groups[in_before_Q.astype(int), in_after_Q.astype(int)].astype(str),
            "before": before_Q.astype(str),
            "after": after_Q.astype(str),
            "similarity_before": first.similarity_QK[:, 0],
            "similarity_after": second.similarity_QK[:, 0],
            "effect": effects[right_before_Q.astype(int), right_after_Q.astype(int)].astype(str),
        }
    )
    line = (
        f"gallery of {len(before):,} references of {len(there_before):,} labels against {len(after):,} of {len(there_after):,}; "
        "the same queries, vote nearest, cosine similarity of L2-normalised embeddings, equal similarities to the oldest "
        "reference; micro: mean over queries; 95 % interval over labels (cluster bootstrap)"
    )
    known = f"queries whose label is in both galleries; {line}"
    right = (right_before_Q[known_Q], right_after_Q[known_Q])
    metrics = {
        f"accuracy@1_{when}": cluster_interval(values, label_Q[known_Q], protocol=known, seed=seed)
        for when, values in zip(("before", "after"), right, strict=True)
    }
    metrics["difference"] = paired_difference(
        right[1], right[0], label_Q[known_Q], protocol=f"after less before; {known}", seed=seed
    )
    new_Q = in_after_Q & ~in_before_Q
    if new_Q.any():
        asked = f"queries whose label is only in the gallery after; {line}"
        metrics["accuracy@1_new"] = cluster_interval(right_after_Q[new_Q], label_Q[new_Q], protocol=asked, seed=seed)
    return GalleryChange(
        answers,
        _by_label(answers[known_Q]),
        _by_taker(answers, there_before),
        metrics,
        mcnemar(*right),
        {group: int((answers["group"] == group).sum()) for group in ("known", "new", "removed", "absent")},
        [label for label in after.labels if label not in there_before],
        [label for label in before.labels if label not in there_after],
    )


def _by_label(known: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for label, asked in known.groupby("label", sort=True):
        broken = asked.loc[asked["effect"] == "right -> wrong", "after"].value_counts().sort_index()
        taker = str(broken.idxmax()) if len(broken) else None
        rows.append(
            {
                "label": label,
                "num_queries": len(asked),
                "right_before": int((asked["before"] == asked["label"]).sum()),
                "right_after": int((asked["after"] == asked["label"]).sum()),
                "broke": int(broken.sum()),
                "mended": int((asked["effect"] == "wrong -> right").sum()),
                "most_taken_by": taker,
                "taken": 0 if taker is None else int(broken[taker]),
            }
        )
    table = pd.DataFrame(rows).assign(loss=lambda frame: frame["right_before"] - frame["right_after"])
    table = table.sort_values(["loss", "broke", "label"], ascending=[False, False, True], kind="stable")
    return table.drop(columns="loss").astype({"most_taken_by": "str"}).reset_index(drop=True)


def _by_taker(answers: pd.DataFrame, there_before: set[str]) -> pd.DataFrame:
    changed = answers[answers["before"] != answers["after"]]
    table = pd.DataFrame(
        {
            "label": changed["after"],
            "num_taken": 1,
            "num_broke": ((changed["effect"] == "right -> wrong") & (changed["group"] == "known")).astype(int),
            "num_own": (changed["after"] == changed["label"]).astype(int),
        }
    )
    table = table.groupby("label", as_index=False).sum()
    table.insert(1, "is_new", ~table["label"].isin(there_before))
    order = ["num_broke", "num_taken", "label"]
    return table.sort_values(order, ascending=[False, False, True], kind="stable").reset_index(drop=True)
