"""Which references do harm, whose label looks wrong, and which label gains from one more reference.

Axes: N reference rows, Q queries, B rows of a block, C labels, D draws (of vectors: the width). Neighbours are found by cosine
similarity in blocks, so that no whole matrix exists. Suspected labels: `label_errors`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.few_shot import FewShotResult
from workbench.retrieval.label_errors import SuspectedLabels, nearest_places, rows_a_block, suspected_label_errors
from workbench.retrieval.similarities import CosineSimilarity
from workbench.retrieval.stats import paired_difference

__all__ = ["Gain", "Hubness", "SuspectedLabels", "gain_of_one_more", "hubness", "suspected_label_errors"]

_NUM_REPLICATES = 500  # of the bootstrap of one label: its half-width is off by some 2 %


@dataclass(frozen=True)
class Hubness:
    """How unevenly the references are found.

    Attributes:
        table: a row a reference, most wrong wins first, then most wins, then by row. reference (row as given), label, wins (queries
            that have it nearest; those that tie share a query, so a fraction may stand here), wrong_wins (of these, queries
            of another label), wrong_share (NaN without a win), expected_wins (if the queries of each label were shared equally by
            its own references), occurrences (N_k: queries that have it among their k nearest), taken (the label that it wins most wrongly
            from; missing without a wrong win), taken_wins (how often).
        k: neighbours counted by `occurrences`.
        skewness: of the occurrences over the references, the usual measure of hubness; NaN where all are equal.
        chance_skewness: of a binomial count, each query naming k references at random: what `skewness` would be without hubs.
        num_queries: queries that were counted.
        num_absent_queries: queries left out because their label has no reference.
        num_never: references that no query has among its k nearest ("antihubs").
        num_behind_half: the fewest references that make half of the wrong wins; 0 without a wrong win.
        protocol: one line that says how it was counted.
    """

    table: pd.DataFrame
    k: int
    skewness: float
    chance_skewness: float
    num_queries: int
    num_absent_queries: int
    num_never: int
    num_behind_half: int
    protocol: str

    def __str__(self) -> str:
        """Returns the summary in one sentence."""
        wrong = float(self.table["wrong_wins"].sum())
        half = (
            f"{self.num_behind_half:,} of {len(self.table):,} references are behind half of {wrong:,.0f} wrong answers"
        )
        return (
            f"skewness of the {self.k}-occurrences {self.skewness:.2f} (without hubs {self.chance_skewness:.2f}); "
            f"{half if wrong else 'no wrong answer'}; {self.num_never:,} references are never among the {self.k} nearest; "
            f"n = {self.num_queries:,} queries"
        )


def hubness(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray,
    query_labels: ArrayLike,
    k: int = 10,
) -> Hubness:
    """Returns how often each reference is found, and how often wrongly: some win too often, wherever the query is from.

    All references are searched by their rows (augmented copies count for themselves). References that tie share the win, and those
    that tie for the last of k places share these places, so that wins add up to the queries and occurrences to k times as
    many. Equal reference vectors always tie. Queries whose label has no reference are left out and counted. Where labels
    have very different numbers of queries for each reference, occurrences are uneven without any hub: compare wins with expected_wins.

    Args:
        reference_ND: real numbers, any scale, rows not zero.
        reference_labels: [N], text or numbers, read as text.
        query_ND: as reference_ND, of the same width.
        query_labels: [Q].
        k: neighbours of a query, at least 1; more than there are references counts as all of them.

    Raises:
        ValueError: k below 1, no references or queries, widths or lengths that differ, a row that is not finite or zero, a
            missing label, or no query whose label has a reference.

    Source: skewness of N_k: Radovanovic, Nanopoulos and Ivanovic 2010, "Hubs in space", section 2; wrong wins are their "bad
    hubs" at k = 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, {k} was given")
    reference_ND, query_ND = (
        normalise(reference_ND, "reference_ND", dtype=np.float32),
        normalise(query_ND, "query_ND", dtype=np.float32),
    )
    labels_N = read_labels(reference_labels, len(reference_ND), "reference_labels")
    labels_Q = read_labels(query_labels, len(query_ND), "query_labels")
    if not len(reference_ND) or not len(query_ND) or reference_ND.shape[1] != query_ND.shape[1]:
        raise ValueError(
            "at least one reference and one query of the same width are needed, found shapes "
            f"{reference_ND.shape} and {query_ND.shape}"
        )
    present_Q = np.isin(labels_Q, labels_N)
    if not present_Q.any():
        raise ValueError("no query has its label among the references: are the labels of both written the same way?")
    if not present_Q.all():
        query_ND, labels_Q = query_ND[present_Q], labels_Q[present_Q]
    names, class_N = np.unique(labels_N, return_inverse=True)
    class_Q = np.searchsorted(names, labels_Q)
    num_references, num_queries, k = len(reference_ND), len(query_ND), min(k, len(reference_ND))
    similarity = CosineSimilarity(query_ND, reference_ND)
    wins_N, wrong_N, occurrences_N = np.zeros((3, num_references))
    taken = []
    step = rows_a_block(num_references)
    for start in range(0, num_queries, step):
        similarity_BN = similarity.block(start, min(start + step, num_queries))
        row, reference, share = nearest_places(similarity_BN, 1)
        wrong = class_N[reference] != class_Q[start + row]
        wins_N += np.bincount(reference, share, num_references)
        wrong_N += np.bincount(reference[wrong], share[wrong], num_references)
        taken.append(pd.DataFrame({"reference": reference, "taken": class_Q[start + row], "taken_wins": share})[wrong])
        _, reference, share = nearest_places(similarity_BN, k)
        occurrences_N += np.bincount(reference, share, num_references)
    with np.errstate(invalid="ignore"):
        wrong_share_N = wrong_N / wins_N
    table = pd.DataFrame(
        {
            "reference": np.arange(num_references),
            "label": labels_N.astype(str),
            "wins": wins_N,
            "wrong_wins": wrong_N,
            "wrong_share": wrong_share_N,
            "expected_wins": (np.bincount(class_Q, minlength=len(names)) / np.bincount(class_N))[class_N],
            "occurrences": occurrences_N,
        }
    ).merge(_most_taken(pd.concat(taken), names), on="reference", how="left")
    table["taken_wins"] = table["taken_wins"].fillna(0.0)
    cumulated = np.cumsum(-np.sort(-wrong_N))
    absent = f"; {int((~present_Q).sum())} queries of absent labels not counted" if not present_Q.all() else ""
    return Hubness(
        table.sort_values(["wrong_wins", "wins", "reference"], ascending=[False, False, True], ignore_index=True),
        k,
        _skewness(occurrences_N),
        _binomial_skewness(num_queries, k / num_references),
        num_queries,
        int((~present_Q).sum()),
        int((occurrences_N == 0).sum()),
        int(np.searchsorted(cumulated, cumulated[-1] / 2 - 1e-9)) + 1 if cumulated[-1] > 0 else 0,
        f"hubness: {num_queries:,} queries in all {num_references:,} references of {len(names):,} labels, cosine similarity, ties share "
        f"a win; occurrences among the {k} nearest{absent}",
    )


@dataclass(frozen=True)
class Gain:
    """What one more reference of every label changed.

    Attributes:
        table: a row a label that was asked, the greatest gain first, then by label: label, n (queries), num_references (photographs in
            the headline gallery), has_another (was there one more for it; missing where the headline gallery is too small to
            tell), before, after (accuracy@1), gain (after less before, -1 to 1), low, high (95 %). No row where the result cannot answer.
        note: one line: the step and the protocol; or what is needed.
    """

    table: pd.DataFrame
    note: str


def gain_of_one_more(result: FewShotResult, shots: int | None = None) -> Gain:
    """Returns the change of each label's accuracy@1 from k to k + 1 references per label.

    Every label gets its next reference at once, as a gallery grows: a gain is what its own reference gives less what the others'
    take away, and a label without another one shows the latter alone. Draws are nested, so the same references are there
    before and after. Nothing is extrapolated: both k and k + 1 must have been evaluated.

    The interval is that of a paired difference with queries as trials and the draws' spread added. It holds for a label on its own; the
    largest of many gains is partly luck. A label with one query gives -1 to 1.

    Args:
        result: of an evaluation with neighbouring shots.
        shots: k; None is the largest k that has k + 1 beside it. Where there is none, the table is empty and the note says what
            is needed.

    Raises:
        ValueError: shots that are given, and were not evaluated together with shots + 1.

    Source: nested draws (PROTOCOLS, few-shot); the interval: `stats.paired_difference`.
    """
    counts = [count for count in result.protocol.shots if isinstance(count, int)]
    steps = [count for count in counts if count + 1 in counts]
    if shots is not None and shots not in steps:
        raise ValueError(
            f"the gain from {shots} to {shots + 1} references needs both among the protocol's shots, found "
            f"{', '.join(map(str, result.protocol.shots))}: evaluate with both"
        )
    columns = ["label", "n", "num_references", "has_another", "before", "after", "gain", "low", "high"]
    if not steps:
        found = ", ".join(map(str, result.protocol.shots))
        wanted = counts[-1] if counts else 1
        return Gain(
            pd.DataFrame(columns=columns),
            "the gain of one more reference is measured, never extrapolated: it needs two neighbouring numbers of shots, such as "
            f"{wanted} and {wanted + 1}; found {found}",
        )
    k = steps[-1] if shots is None else shots
    before_DQ, after_DQ = (result.hits[f"accuracy@1/shots={count}"] for count in (k, k + 1))
    headline = result.protocol.headline
    tells = headline == "all" or headline > k
    in_gallery = dict(zip(result.per_class["label"], result.per_class["num_references"], strict=True))
    rows = []
    for label, of_label in pd.Series(np.arange(len(result.hit_labels))).groupby(result.hit_labels).indices.items():
        before, after = before_DQ[:, of_label].astype(np.float64), after_DQ[:, of_label].astype(np.float64)
        gain = paired_difference(after, before, of_label, num_replicates=_NUM_REPLICATES)
        count = in_gallery[label]
        has_another = bool(count > k) if tells else None
        means = (float(before.mean()), float(after.mean()))
        rows.append((label, gain.n, count, has_another, *means, gain.value, gain.low, gain.high))
    table = pd.DataFrame(rows, columns=columns).astype({"has_another": "boolean"})
    return Gain(
        table.sort_values(["gain", "label"], ascending=[False, True], ignore_index=True),
        f"accuracy@1 with {k + 1} references per label less that with {k}; intervals hold for each label on its own; "
        f"{result.protocol.describe(k + 1)}",
    )


def _most_taken(taken: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    sums = taken.groupby(["reference", "taken"])[["taken_wins"]].sum().reset_index()
    first = sums.sort_values(["taken_wins", "taken"], ascending=[False, True]).drop_duplicates("reference")
    return first.assign(taken=names[first["taken"].to_numpy(np.int64)])


def _skewness(value_N: np.ndarray) -> float:
    deviation_N = value_N - value_N.mean()
    spread = float(np.sqrt((deviation_N**2).mean()))
    return float((deviation_N**3).mean() / spread**3) if spread > 1e-9 else float("nan")


def _binomial_skewness(num_trials: int, p: float) -> float:
    return float((1 - 2 * p) / np.sqrt(num_trials * p * (1 - p))) if p < 1 else float("nan")
