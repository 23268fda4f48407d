"""Runs compared pair by pair on the same queries, with p values corrected for the number of pairs.

Axes: S seeds, D draws of the references, Q queries.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.intervals import Average
from workbench.retrieval.seed_groups import check_labels, stack_seeds, take_queries
from workbench.retrieval.stats import Metric, mcnemar, paired_difference, paired_p_value
from workbench.runs.hits import Hits

_PAIR_COLUMNS = [
    *("first", "second", "seeds", "difference", "low", "high", "n"),
    *("p", "p_holm", "p_mcnemar", "p_mcnemar_holm", "note", "protocol", "doubt"),
]


def holm(p_P: ArrayLike) -> np.ndarray:
    """Returns the p values corrected for their number, float64 [P], in the order given; NaN stays and is not counted.

    Of m p values in ascending order the i-th (from 0) is multiplied by m - i, is never below the one before, and at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p_P = np.asarray(p_P, np.float64)
    if not np.all(np.isnan(p_P) | ((p_P >= 0) & (p_P <= 1))):
        raise ValueError(f"p values from 0 to 1 are wanted, {p_P} was given")
    counted = np.flatnonzero(~np.isnan(p_P))
    order = counted[np.argsort(p_P[counted], kind="stable")]
    corrected = np.full_like(p_P, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_P[order] * np.arange(len(order), 0, -1)), 1.0)
    return corrected


def compare_pairs(
    hits: Mapping[str, Mapping[int | None, Hits]], average: Average = "micro", protocol: str = ""
) -> pd.DataFrame:
    """Returns a row for each pair of variants, compared on the queries and seeds that both have.

    Columns: first, second, seeds (those both have), difference (first less second), low, high, n (queries in common), p
    (paired bootstrap by class), p_holm, p_mcnemar, p_mcnemar_holm, note, protocol, doubt. With several seeds in common the
    difference is formed seed by seed (mean over draws), and the seeds take the place of the draws: the interval covers classes,
    queries and seeds. McNemar's test takes the first draw of the first seed in common and leaves tied answers out (NaN where the
    values are no hits, as average precision). Holm corrects each kind of p value over the pairs.

    Args:
        hits: by variant, then by seed.
        average: "micro" or "macro".
        protocol: of the metric, added to what is said of the pairing.

    Raises:
        ValueError: a query has another class in another run.
    """
    rows = []
    for first, second in combinations(hits, 2):
        seeds = [seed for seed in hits[first] if seed in hits[second]]
        note = "" if seeds else "no seed in common: means over each one's own seeds"
        a_DQ, b_DQ, labels, num_left = _align(hits[first], hits[second], seeds)
        if not len(labels):
            rows.append((first, second, _names(seeds), *[np.nan] * 3, 0, np.nan, np.nan, "no query in common", "", ""))
            continue
        rest = f"{num_left:,} queries are not in both" if num_left else ""
        how = _how(len(seeds), len(a_DQ))
        found = paired_difference(a_DQ, b_DQ, labels, average, protocol=f"{how}; {protocol}" if protocol else how)
        doubt = f"interval not to be relied on: {found.doubt}" if found.doubt else ""
        rows.append(
            (
                *(first, second, _names(seeds), found.value, found.low, found.high, found.n),
                paired_p_value(a_DQ, b_DQ, labels, average),
                _mcnemar_of(hits[first], hits[second], seeds),
                "; ".join(text for text in (note, rest, doubt) if text),
                found.protocol,
                found.doubt,
            )
        )
    columns = [name for name in _PAIR_COLUMNS if not name.endswith("holm")]
    table = pd.DataFrame(rows, columns=columns)
    for name in ("p", "p_mcnemar"):
        table[f"{name}_holm"] = holm(table[name].to_numpy(np.float64))
    return table[_PAIR_COLUMNS]


def pair_metrics(pairs: pd.DataFrame, metric: str) -> dict[str, Metric]:
    """The differences of `compare_pairs` by name (`difference/METRIC/first less second`); pairs without a query left out."""
    return {
        f"difference/{metric}/{row['first']} less {row['second']}": Metric(
            row["difference"], row["low"], row["high"], int(row["n"]), row["protocol"], row["doubt"]
        )
        for row in pairs[pairs["n"] > 0].to_dict("records")
    }


def _align(
    first: Mapping[int | None, Hits], second: Mapping[int | None, Hits], seeds: list[int | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The hits of both on the queries that all their runs have, [rows, Q], the labels, and how many queries are left out."""
    used = [(side[seed], side) for side in (first, second) for seed in (seeds or side)]
    everywhere = set.intersection(*(set(one.query_Q) for one, _ in used))
    query_Q = np.array(sorted(everywhere), dtype=object)
    num_left = len(set.union(*(set(one.query_Q) for one, _ in used))) - len(query_Q)
    if not len(query_Q):
        return np.empty((1, 0)), np.empty((1, 0)), query_Q, num_left
    if len(seeds) == 1:
        (a_DQ, labels), (b_DQ, others) = (take_queries(side[seeds[0]], query_Q) for side in (first, second))
        if len(a_DQ) != len(b_DQ):
            a_DQ, b_DQ = a_DQ.mean(axis=0, keepdims=True), b_DQ.mean(axis=0, keepdims=True)
    else:
        (a_DQ, labels), (b_DQ, others) = (stack_seeds(side, seeds or list(side), query_Q) for side in (first, second))
        if not seeds:
            a_DQ, b_DQ = a_DQ.mean(axis=0, keepdims=True), b_DQ.mean(axis=0, keepdims=True)
    check_labels(query_Q, labels, others)
    return a_DQ, b_DQ, labels, num_left


def _mcnemar_of(first: Mapping[int | None, Hits], second: Mapping[int | None, Hits], seeds: list[int | None]) -> float:
    if not seeds:
        return float("nan")
    a, b = first[seeds[0]], second[seeds[0]]
    there = set(b.query_Q)
    query_Q = np.array([name for name in a.query_Q if name in there], dtype=object)
    a_Q, b_Q = take_queries(a, query_Q)[0][0], take_queries(b, query_Q)[0][0]
    decided = np.isin(a_Q, (0, 1)) & np.isin(b_Q, (0, 1))
    if decided.mean() < 0.5:  # no hits but graded values, such as average precision
        return float("nan")
    return mcnemar(a_Q[decided], b_Q[decided])


def _how(num_seeds: int, num_rows: int) -> str:
    if num_seeds > 1:
        return f"first less second, paired by query and seed ({num_seeds} seeds, mean over draws)"
    return "first less second, paired by query" + (f" and draw ({num_rows} draws)" if num_rows > 1 else "")


def _names(seeds: list[int | None]) -> str:
    return ", ".join("–" if seed is None else str(seed) for seed in seeds)
