"""What a re-identification evaluation found: metrics, one row a query, pairs of cameras, ranked lists.

Axes: Q queries (junk left out), G gallery rows (junk left out), B queries with a match.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from workbench.retrieval.false_accepts import FalseAccepts
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_ranking import Search, count_nearer
from workbench.retrieval.reid_values import (
    AS_GROUPS,
    Places,
    Ties,
    cumulative_match,
    first_hit,
    inverse_negative_penalty,
    read_places,
)
from workbench.retrieval.stats import Metric


@dataclass(frozen=True)
class ReidResult:
    """Metrics and what is behind them.

    Attributes:
        metrics: "mAP", "rank-1" ..., "mINP", "TAR@FAR=1%" ...: value, 95 % interval, number of queries, protocol. TAR is left out where
            no pair is of two individuals.
        protocol: the conventions.
        per_query: a row for each query that is not junk, indexed by its row in the arrays that were given (the first of a
            tracklet): label and camera (text; camera None where there is none), num_images, num_positives, average_precision (NaN where
            there is no positive and such queries are left out), first_hit (place from 1, NaN without a positive), inverse_negative_penalty.
        num_skipped: queries left out because they have no match.
        num_junk_queries: queries labelled "-1".
        num_gallery: gallery rows that count.
        num_junk_gallery: gallery rows labelled "-1".
        num_distractors: gallery rows that count and whose label no query has.
    """

    metrics: dict[str, Metric]
    protocol: ReidProtocol
    per_query: pd.DataFrame
    num_skipped: int
    num_junk_queries: int
    num_gallery: int
    num_junk_gallery: int
    num_distractors: int
    _search: Search = field(repr=False)
    _gallery: pd.DataFrame = field(repr=False)  # label, camera; indexed by the row in the arrays that were given
    _places: Places = field(repr=False)
    _weight_Q: np.ndarray = field(repr=False)  # of each query in a mean; 0 where it is left out

    def cmc(self, max_rank: int = 50) -> pd.DataFrame:
        """Returns the cumulative match characteristic: columns rank (1..max_rank) and value, 0 to 1, never falling."""
        ranks = np.arange(1, max_rank + 1)
        match_RB = cumulative_match(self._places.first_B3, ranks, self.protocol.ties)
        return pd.DataFrame({"rank": ranks, "value": match_RB @ self._weight_Q[self._places.query_B]})

    def values_by_query(self, name: str) -> np.ndarray:
        """Returns what "mAP", "mINP" or "rank-k" is the mean of, float64 [Q] in the order of `per_query`, for a paired comparison.

        0 to 1; NaN where the query is left out. Where ties are not ordered a query's rank-k is the share of all orders of tied rows.

        Raises:
            ValueError: another name.
        """
        columns = {"mAP": "average_precision", "mINP": "inverse_negative_penalty"}
        if name in columns:
            return self.per_query[columns[name]].to_numpy(np.float64)
        rank = name.removeprefix("rank-")
        if not rank.isdecimal() or int(rank) < 1 or rank == name:
            raise ValueError(f'"mAP", "mINP" or "rank-k" is wanted, {name!r} was given')
        match_Q = match_by_query(self._places, np.array([int(rank)]), self.protocol.ties, len(self.per_query))[0]
        return np.where(self.values_by_query("mAP") >= 0, match_Q, np.nan)

    @cached_property
    def per_camera_pair(self) -> pd.DataFrame:
        """Returns a row for each camera of the queries and each of the gallery: the search in that camera's rows alone.

        Columns query_camera, gallery_camera, num_queries, "rank-1" and "mAP" (means over the queries that have a match there; NaN
        where none has, as in the same camera if that is junk). Rows without a camera are left out. Computed when first
        asked for: it costs about another evaluation.
        """
        cameras = sorted_cameras(self._gallery["camera"])
        rows = []
        for gallery_camera in cameras:
            columns = np.flatnonzero(self._gallery["camera"] == gallery_camera)
            places = rank_queries(self._search.take(columns), self.protocol)
            first_B = cumulative_match(places.first_B3, np.array([1]), self.protocol.ties)[0]
            asked_B = self.per_query["camera"].to_numpy(dtype=object)[places.query_B]
            for query_camera in sorted_cameras(self.per_query["camera"]):
                chosen = asked_B == query_camera
                values = (first_B[chosen], places.average_precision_B[chosen])
                means = [float(value.mean()) if len(value) else np.nan for value in values]
                rows.append((query_camera, gallery_camera, int(chosen.sum()), *means))
        return pd.DataFrame(rows, columns=["query_camera", "gallery_camera", "num_queries", "rank-1", "mAP"])

    def ranked_list(self, query_index: int, k: int = 10) -> pd.DataFrame:
        """Returns what the query found, nearest first: its first k counted rows, and the junk that stands among them.

        Columns: gallery (row in the arrays that were given), label, camera, similarity (or distance, where distances were given), mark
        ("right", "wrong", or "junk" as the metric took it away), place (from 1, as the metric counted; NaN for junk). Rows
        that tie have the same place, the first of the tie, where ties are not ordered; else the right ones stand first or last.
        Gallery rows labelled "-1" were never compared and are not in the list.

        Args:
            query_index: an index of `per_query`.
            k: how many counted rows.

        Raises:
            ValueError: no such query, or k below 1.
        """
        if query_index not in self.per_query.index:
            raise ValueError(f"query {query_index} is not among the evaluated ones; per_query.index lists them")
        if k < 1:
            raise ValueError(f"k must be at least 1, {k} was given")
        position = int(np.flatnonzero(self.per_query.index == query_index)[0])
        # the same block as in the evaluation: another shape may be rounded otherwise
        start = position - position % self._search.rows_a_block
        stop = min(start + self._search.rows_a_block, len(self.per_query))
        similarity_G = self._search.similarity.block(start, stop)[position - start]
        _, own, junk = self._search.own_rows(np.array([position]))
        mark = np.full(len(similarity_G), "wrong", dtype=object)
        mark[own] = np.where(junk, "junk", "right")
        kept = mark != "junk"
        wrong_first = 1 if self.protocol.ties == "pessimistic" else -1
        order = np.lexsort((np.arange(len(mark)), (mark == "right") * wrong_first, kept, -similarity_G))
        shown_places = np.flatnonzero(kept[order])[:k]
        order = order[: shown_places[-1] + 1] if len(shown_places) else order
        value, counted = similarity_G[order], kept[order]
        place = np.cumsum(counted).astype(np.float64)
        if self.protocol.ties in AS_GROUPS:
            nearest_first = -np.sort(-value[counted])
            place = np.searchsorted(-nearest_first, -value, side="left") + 1.0
        place[~counted] = np.nan
        named = "similarity" if self._search.similarity.is_cosine else "distance"
        shown = value if self._search.similarity.is_cosine else -value
        found = self._gallery.iloc[order].rename_axis("gallery").reset_index()
        return found.assign(**{named: shown, "mark": mark[order], "place": place})

    def worst_queries(self, k: int = 10) -> pd.DataFrame:
        """Returns the k rows of `per_query` with the lowest average precision; equal ones in the order given."""
        counted = self.per_query[self._weight_Q > 0]
        return counted.sort_values("average_precision", kind="stable").head(k)


def rank_queries(search: Search, protocol: ReidProtocol, false_accepts: FalseAccepts | None = None) -> Places:
    """Returns the places of all positives, from one pass over the search that false_accepts watches.

    Raises:
        ValueError: a distance that is not finite.
    """
    parts = []
    for block in search.blocks():
        nearer_P, tied_P = count_nearer(block)
        parts.append(
            read_places(
                block.start + block.row_P, block.value_P, nearer_P, tied_P, protocol.average_precision, protocol.ties
            )
        )
        if false_accepts is not None:
            false_accepts.watch(block)
    return Places.join(parts)


def query_table(queries: pd.DataFrame, places: Places, protocol: ReidProtocol) -> pd.DataFrame:
    """Returns `ReidResult.per_query`: queries (label, camera, num_images) with what their places give."""
    absent = np.nan if protocol.unmatched == "skip" else 0.0
    columns = {
        "num_positives": (0, places.num_positives_B),
        "average_precision": (absent, places.average_precision_B),
        "first_hit": (np.nan, first_hit(places.first_B3, protocol.ties)),
        "inverse_negative_penalty": (
            absent,
            inverse_negative_penalty(places.num_positives_B, places.last_B3, protocol.ties),
        ),
    }
    frame = queries.astype({"num_images": np.int64}).rename_axis("query")
    for name, (missing, value_B) in columns.items():
        value_Q = np.full(len(queries), missing, dtype=value_B.dtype)
        value_Q[places.query_B] = value_B
        frame[name] = value_Q
    return frame


def match_by_query(places: Places, ranks: np.ndarray, ties: Ties, num_queries: int) -> np.ndarray:
    """Returns match_RQ, 0 to 1, for each rank and query: `cumulative_match`, and 0 for queries without a match."""
    match_RQ = np.zeros((len(ranks), num_queries))
    match_RQ[:, places.query_B] = cumulative_match(places.first_B3, ranks, ties)
    return match_RQ


def sorted_cameras(cameras: pd.Series) -> list[str]:
    """Returns the different cameras, numbers by their value and before other text; missing ones left out."""
    return sorted(
        cameras.dropna().unique(), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
    )
