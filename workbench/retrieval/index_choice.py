"""Which index suits a gallery: recall against the exact search, time and memory, measured on the gallery itself.

Axes: Q queries, K answers a query.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.approximate import LEAST_ROWS, ApproximateGallery, Kind, build_index, threads
from workbench.retrieval.arrays import read_labels
from workbench.retrieval.gallery import Gallery, Matches
from workbench.retrieval.stats import Metric, cluster_interval

EFFORTS: dict[Kind, tuple[int, ...]] = {"ivf": (1, 4, 16, 64), "hnsw": (32, 128, 512), "ivf_pq": (4, 16, 64)}
_TOP = (1, 10)
_TIMED_AT_MOST = 256  # queries of one timing
_NUM_TIMINGS = 5


@dataclass(frozen=True)
class IndexChoice:
    """What the kinds of index gain and lose on one gallery.

    Attributes:
        table: one row a setting, the exact search first: `setting`, `kind`, `effort`; `recall@1`, `recall@10` with `_low` and
            `_high` (share of the exact search's first 1 or 10 references that the index answers, 95 % interval);
            `same_label` (share of queries with the same first label as the exact search); `time_ratio` (time of a query over that
            of the exact search in the same run, below 1 is faster); `ms_per_query`; `memory_mib` (of the index alone; for "exact"
            of the embeddings, from which every index compares its candidates, in memory or mapped); `build_s`; `note`, why a
            kind could not be built (its numbers are missing).
        metrics: recalls as `recall@1/<setting>`.
        protocol: how it was measured.
        num_references: of the gallery.
    """

    table: pd.DataFrame
    metrics: dict[str, Metric]
    protocol: str
    num_references: int

    def recommend(
        self, min_recall: float = 0.99, max_memory_mib: float | None = None, fast_enough_ms: float = 10.0
    ) -> str:
        """A sentence that says which setting to take, and why.

        The exact search where it is fast enough or nothing that meets the demands takes less than half its time; else the
        fastest setting that meets them.

        Args:
            min_recall: 0 to 1, wanted of the lower end of recall@1's interval.
            max_memory_mib: for the embeddings of the exact search, or the index; None is no limit.
            fast_enough_ms: time of a query, below which nobody would notice a gain.

        Raises:
            ValueError: a demand out of range.
        """
        if not 0 <= min_recall <= 1 or fast_enough_ms < 0 or (max_memory_mib is not None and max_memory_mib <= 0):
            raise ValueError(
                "Wanted min_recall from 0 to 1, fast_enough_ms of at least 0 and max_memory_mib above 0 or None; found "
                f"{min_recall}, {fast_enough_ms} and {max_memory_mib}."
            )
        built = self.table[self.table["time_ratio"].notna()]
        exact, others = built.iloc[0], built.iloc[1:]
        limit = np.inf if max_memory_mib is None else max_memory_mib
        cost = f"{self.num_references:,} references take {exact['ms_per_query']:.2g} ms a query"
        good = others[(others["recall@1_low"] >= min_recall) & (others["memory_mib"] <= limit)]
        fits = exact["memory_mib"] <= limit
        if fits and exact["ms_per_query"] <= fast_enough_ms:
            return (
                f"exact: {cost}, within the {fast_enough_ms:g} ms that are fast enough; nothing is gained by an index."
            )
        demands = f"recall@1 of at least {min_recall:.1%}"
        demands += "" if max_memory_mib is None else f" and at most {max_memory_mib:,.0f} MiB"
        if good.empty:
            reason = _nearest_miss(others, min_recall, limit)
            kept = "" if fits else " from the gallery's file (Gallery.load(folder, in_memory=False))"
            return f"exact{kept}: {cost}; no index was found with {demands}{reason}."
        best = good.sort_values("time_ratio", kind="stable").iloc[0]
        if fits and best["time_ratio"] > 0.5:
            return (
                f"exact: {cost}; the fastest index with {demands} ({best['setting']}) takes {best['time_ratio']:.2f} times as "
                "long, which is not worth an answer missed."
            )
        return (
            f"{best['setting']}: {best['time_ratio']:.2g} times the time of the exact search ({cost}), recall@1 "
            f"{best['recall@1']:.1%} [{best['recall@1_low']:.1%}, {best['recall@1_high']:.1%}], {best['memory_mib']:,.0f} MiB "
            f"beside {exact['memory_mib']:,.0f} MiB of embeddings; it is the fastest with {demands}."
        )


def compare_indexes(
    gallery: Gallery,
    query_QD: np.ndarray | None = None,
    query_labels: ArrayLike | None = None,
    *,
    efforts: Mapping[Kind, Sequence[int]] | None = None,
    num_queries: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    num_threads: int = 1,
) -> IndexChoice:
    """Recall, time and memory of each kind of index at each effort, beside the exact search.

    Recall counts the answers that are as similar as the exact search's last one, so that ties are nobody's fault. A gallery
    with fewer than 10 references gives its recall at what there is.

    Args:
        gallery: at least 2 references.
        query_QD: [Q, D], as users would ask; None takes `num_queries` references by chance, each asked of the gallery without
            itself (leave one out). That flatters a graph, which was built with them: prefer queries of your own.
        query_labels: [Q], by which the interval groups queries that are alike; None takes each query as independent.
        efforts: by kind, see `ApproximateGallery`; None is `EFFORTS`.
        num_queries: at most so many queries, chosen by the seed.
        batch_size: queries asked at once while timing.
        seed: of the choice of queries and of the indexes.
        num_threads: of building and searching, for the exact search too (on the CPU).

    Raises:
        ValueError: a gallery of fewer than 2 references, no query, or an argument out of range.
    """
    if len(gallery) < 2:
        raise ValueError(f"Wanted a gallery of at least 2 references to compare indexes, found {len(gallery)}.")
    if num_queries < 1 or batch_size < 1 or num_threads < 1:
        raise ValueError(
            f"num_queries, batch_size and num_threads are at least 1; found {num_queries}, {batch_size}, {num_threads}."
        )
    device = f"{num_threads} CPU thread{'s' if num_threads > 1 else ''}"
    device += ", the exact search on a GPU" if faiss.get_num_gpus() else ""
    rng, references = np.random.default_rng(seed), gallery.references
    own_Q: np.ndarray | None = None
    if query_QD is None:
        if query_labels is not None:
            raise ValueError("query_labels were given without query_QD; give both, or neither.")
        rows = np.sort(rng.permutation(len(gallery))[:num_queries])
        query_QD, own_Q = gallery.view_ND[rows], references["reference"].to_numpy()[rows]
        group_Q = references["label"].to_numpy(dtype=object)[rows]
        source = f"{len(rows):,} references as queries, each without itself, grouped by label"
    else:
        query_QD = np.asarray(query_QD)
        if not query_QD.ndim or not len(query_QD):
            raise ValueError("query_QD holds no query; give at least one, or None to ask with references.")
        rows = np.sort(rng.permutation(len(query_QD))[:num_queries])
        labels = np.arange(len(query_QD)) if query_labels is None else query_labels
        group_Q = read_labels(labels, len(query_QD), "query_labels")[rows]
        query_QD = query_QD[rows]
        source = f"{len(rows):,} queries, {'each on its own' if query_labels is None else 'grouped by label'}"
    protocol = (
        f"index recall: share of the exact search's first references, ties counted as found; gallery of {len(gallery):,} x "
        f"{gallery.dim}; {source}; time: median of {_NUM_TIMINGS} interleaved runs, {batch_size} queries at once, "
        f"{device}; 95 % interval, seed {seed}"
    )
    with threads(num_threads):
        exact = _without_own(gallery.search(query_QD, max(_TOP) + (own_Q is not None)), own_Q)
        searched: list[tuple[dict[str, object], Gallery | ApproximateGallery]] = [
            (
                {"setting": "exact", "kind": "exact", "memory_mib": gallery.view_ND.nbytes / 2**20, "build_s": 0.0},
                gallery,
            )
        ]
        missing: list[dict[str, object]] = []
        for kind, chosen in (EFFORTS if efforts is None else efforts).items():
            if len(gallery) < LEAST_ROWS[kind]:
                note = f"needs {LEAST_ROWS[kind]:,} references to be trained, found {len(gallery):,}"
                missing.append({"setting": kind, "kind": kind, "note": note})
                continue
            began = time.perf_counter()
            index = build_index(gallery, kind, seed=seed, num_threads=num_threads)
            built = {"kind": kind, "build_s": time.perf_counter() - began, "memory_mib": index.num_bytes / 2**20}
            for tried in {index.with_effort(effort).effort: index.with_effort(effort) for effort in chosen}.values():
                searched.append(({"setting": tried.setting, "effort": tried.effort, **built}, tried))
        metrics: dict[str, Metric] = {}
        for row, target in searched:
            found = _without_own(target.search(query_QD, max(_TOP) + (own_Q is not None)), own_Q)
            row["same_label"] = float((found.label_QK[:, 0] == exact.label_QK[:, 0]).mean())
            for top in _TOP:
                metric = _recall(found, exact, top, group_Q, f"{protocol}; recall@{top}, {row['setting']}")
                if target is gallery:
                    metric = replace(metric, low=1.0, high=1.0)  # by definition, whatever the queries
                metrics[f"recall@{top}/{row['setting']}"] = metric
                row.update(
                    {f"recall@{top}": metric.value, f"recall@{top}_low": metric.low, f"recall@{top}_high": metric.high}
                )
        seconds_TS = _interleaved_seconds([target for _, target in searched], query_QD[:_TIMED_AT_MOST], batch_size)
    for place, (row, _) in enumerate(searched):
        row["time_ratio"] = float(np.median(seconds_TS[:, place] / seconds_TS[:, 0]))
        row["note"] = ""
        row["ms_per_query"] = 1000 * float(np.median(seconds_TS[:, place]))
    columns = ["setting", "kind", "effort", *(f"recall@{top}{end}" for top in _TOP for end in ("", "_low", "_high"))]
    columns += ["same_label", "time_ratio", "ms_per_query", "memory_mib", "build_s", "note"]
    table = pd.DataFrame([row for row, _ in searched] + missing).reindex(columns=columns)
    table["effort"] = table["effort"].astype("Int64")
    return IndexChoice(table, metrics, protocol, len(gallery))


def _recall(found: Matches, exact: Matches, top: int, group_Q: np.ndarray, protocol: str) -> Metric:
    top = min(top, exact.similarity_QK.shape[1])
    hits_Q = (found.similarity_QK[:, :top] >= exact.similarity_QK[:, top - 1 : top]).mean(axis=1)
    return cluster_interval(hits_Q, group_Q, protocol=protocol)


def _without_own(matches: Matches, own_Q: np.ndarray | None) -> Matches:
    """The answers less the reference that asked; less the last one where it is not among them."""
    if own_Q is None:
        return matches
    own_QK = matches.reference_QK == own_Q[:, None]
    own_QK[~own_QK.any(axis=1), -1] = True
    shape = (len(own_Q), own_QK.shape[1] - 1)
    similarity, label, reference = (
        values[~own_QK].reshape(shape) for values in (matches.similarity_QK, matches.label_QK, matches.reference_QK)
    )
    return Matches(similarity, label, reference)


def _interleaved_seconds(
    targets: Sequence[Gallery | ApproximateGallery], query_QD: np.ndarray, batch_size: int
) -> np.ndarray:
    """Seconds a query, [timings, targets]: each timing asks all targets in turn, so that a busy machine is busy for all."""
    seconds_TS = np.empty((_NUM_TIMINGS, len(targets)))
    for timing in range(_NUM_TIMINGS):
        for place, target in enumerate(targets):
            began = time.perf_counter()
            for start in range(0, len(query_QD), batch_size):
                target.search(query_QD[start : start + batch_size], max(_TOP))
            seconds_TS[timing, place] = (time.perf_counter() - began) / len(query_QD)
    return seconds_TS


def _nearest_miss(others: pd.DataFrame, min_recall: float, limit: float) -> str:
    small = others[others["memory_mib"] <= limit]
    if small.empty:
        return ""
    best = small.sort_values("recall@1_low", ascending=False, kind="stable").iloc[0]
    return f" (the nearest, {best['setting']}, is at {best['recall@1']:.1%} with a lower end of {best['recall@1_low']:.1%})"
