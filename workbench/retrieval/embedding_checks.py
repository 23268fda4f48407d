"""Verdicts on a data set that need an embedder: neighbours across splits, labels in doubt, the gap between domains."""

import pandas as pd

from workbench.data.set_checks import verdict_row
from workbench.retrieval.domain_gap import DomainGaps
from workbench.retrieval.label_errors import SuspectedLabels
from workbench.retrieval.near_neighbours import NearNeighbours
from workbench.retrieval.stats import Metric


def check_embeddings(
    near: NearNeighbours, doubts: SuspectedLabels, gaps: DomainGaps, embedder: str
) -> list[dict[str, object]]:
    """Returns three rows for `set_checks.join_verdicts`. A list of neighbours or doubts is for the eye: never "not met".

    Args:
        near: from `near_neighbours`.
        doubts: from `suspected_label_errors`.
        gaps: from `measure_domain_gaps`.
        embedder: what the embeddings come from, named in the table.
    """
    return [_near(near, embedder), _labels(doubts, embedder), _gap(gaps, embedder)]


def embedding_metrics(doubts: SuspectedLabels, gaps: DomainGaps) -> dict[str, Metric]:
    """Returns `leave_one_out` (what the embedder's word on labels is worth) and the metrics of the domain gaps."""
    known = {} if doubts.leave_one_out is None else {"leave_one_out": doubts.leave_one_out}
    return known | gaps.metrics


def _near(near: NearNeighbours, embedder: str) -> dict[str, object]:
    across = near.table[near.table["across_splits"]]
    threshold = "none that are one picture" if near.threshold == near.threshold else "no other label to compare with"
    within = len(near.table) - len(across)
    return verdict_row(
        "no look-alikes across splits",
        f"{len(across)} pairs across splits, {int((~across['same_label']).sum())} of them with two labels; {within} within a split",
        threshold,
        len(across),
        None,
        "met" if across.empty and near.threshold == near.threshold else "look",
        f"{embedder}; {near.protocol}",
    )


def _labels(doubts: SuspectedLabels, embedder: str) -> dict[str, object]:
    worth = "no label has two pictures" if doubts.leave_one_out is None else f"leave-one-out {doubts.leave_one_out}"
    return verdict_row(
        "labels agree with their neighbours",
        f"{len(doubts.table)} suspected, {len(doubts.undecidable)} alone under their label",
        "none that is wrong",
        len(doubts.table),
        None if doubts.leave_one_out is None else doubts.leave_one_out.n,
        "met" if doubts.table.empty and doubts.leave_one_out is not None else "look",
        f"{embedder}, {worth}: where that is low, suspects are hard pictures rather than wrong labels; {doubts.protocol}",
    )


def _gap(gaps: DomainGaps, embedder: str) -> dict[str, object]:
    losses = {name.split("/")[1]: metric for name, metric in gaps.metrics.items() if name.endswith("/loss")}
    costly = [domain for domain, loss in losses.items() if loss.low > 0]
    verdict = "look" if not losses else "not met" if costly else "met"
    return verdict_row(
        "references of other domains do as well",
        gaps.words,
        "no loss whose interval lies above 0",
        len(costly) if losses else None,
        max((loss.n for loss in losses.values()), default=None),
        verdict,
        f"{embedder}; accuracy@1 on the same queries with as many references; a domain that is told apart need not cost accuracy",
    )


def doubts_as_pairs(doubts: SuspectedLabels, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns each suspected picture beside the nearest picture of the label that its neighbours agree on, widest margin first.

    Columns: row, other_row (of `frame`), label, other_label, split, other_split, same_label (False), across_splits, margin,
    votes_own, votes_suggested, num_neighbours, num_own.

    Args:
        doubts: from `suspected_label_errors` with the pictures of `frame` as references.
        frame: column split; its rows are the pictures.
    """
    found = doubts.table.rename(columns={"suggested": "other_label", "suggested_row": "other_row"})
    splits = frame["split"].to_numpy(dtype=object)
    table = found[["row", "other_row", "label", "other_label"]].copy()
    table["split"], table["other_split"] = splits[found["row"]].astype(str), splits[found["other_row"]].astype(str)
    table["same_label"] = False
    table["across_splits"] = table["split"] != table["other_split"]
    return table.join(found[["margin", "votes_own", "votes_suggested", "num_neighbours", "num_own"]])
