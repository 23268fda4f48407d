"""How well individuals are found again across cameras: mAP, CMC, mINP and TAR at FAR, each under its stated conventions.

Axes: Q queries, G gallery rows, D width. Only the positives of a query are ranked, in blocks of queries, so that the matrix of all
queries by all gallery rows never exists as a whole. Labels: "-1" is junk for everybody, taken away from the gallery and from the
queries. A distractor (Market-1501 labels it "0") needs no rule: it stays, and matches nobody because no query has its
label. Where a query is labelled "0", that is an individual like any other.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.catalog import JUNK_LABEL
from workbench.retrieval.arrays import check_embedding, normalise, read_cameras, read_labels
from workbench.retrieval.false_accepts import FalseAccepts
from workbench.retrieval.reid_metrics import mean_metrics, true_accepts
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_ranking import Search
from workbench.retrieval.reid_result import ReidResult, query_table, rank_queries, sorted_cameras
from workbench.retrieval.similarities import CosineSimilarity, GivenDistances, Similarity
from workbench.retrieval.tracklets import pool_tracklets


def evaluate_reid(
    query_ND: ArrayLike,
    gallery_ND: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
) -> ReidResult:
    """Returns the metrics of finding each query's individual in the gallery by cosine similarity.

    Float64 is computed in float64, everything else in float32. Gallery rows that are equal tie exactly. Memory beyond the
    inputs: some 100 MB, a few values a query, and a copy of length 1 of what has not length 1 already.

    Args:
        query_ND: real, any length above 0.
        gallery_ND: real, the same width.
        query_labels: text or whole numbers ("007" and 7 differ).
        gallery_labels: the same.
        query_cameras: text or whole numbers; may be None, or have gaps, only with junk="none".
        gallery_cameras: the same.
        protocol: the conventions; tracklets="mean" pools the queries here.

    Raises:
        ValueError: no query or gallery row, lengths or widths that differ, rows that are not finite or zero, missing labels or
            cameras, or no query with a match left (the message says why).

    Source: mAP and junk: Zheng et al. 2015 (Market-1501); CMC: Gray et al. 2007; mINP: Ye et al. 2021; the interval:
    individuals are resampled with their queries (`intervals.interval_of_class_means`).
    """
    num_queries, num_gallery = (
        len(check_embedding(query_ND, "query_ND")),
        len(check_embedding(gallery_ND, "gallery_ND")),
    )
    queries = read_side("query", query_labels, query_cameras, num_queries, protocol)
    gallery = read_side("gallery", gallery_labels, gallery_cameras, num_gallery, protocol)
    query_QD = normalise(query_ND, "query_ND", queries.index.to_numpy())
    gallery_GD = normalise(gallery_ND, "gallery_ND", gallery.index.to_numpy())
    if query_QD.shape[1] != gallery_GD.shape[1]:
        raise ValueError(
            f"query_ND and gallery_ND must come from one model: widths {query_QD.shape[1]} and {gallery_GD.shape[1]}"
        )
    if protocol.tracklets == "mean":
        pooled = pool_tracklets(query_QD, queries["label"], queries["camera"])
        query_QD = pooled.embedding_TD
        queries = queries.iloc[pooled.row_T].assign(num_images=pooled.num_images_T)
    dtype = np.result_type(query_QD, gallery_GD)
    similarity = CosineSimilarity(query_QD.astype(dtype, copy=False), gallery_GD.astype(dtype, copy=False))
    return evaluate_similarity(similarity, queries, gallery, protocol, num_queries, num_gallery)


def evaluate_distances(
    distance_QG: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
) -> ReidResult:
    """Returns the metrics of finding each query's individual in the gallery by given distances, smaller is nearer.

    Args:
        distance_QG: real, finite, any range and sign; float32 and float64 are compared as they are.
        query_labels: text or whole numbers.
        gallery_labels: the same.
        query_cameras: text or whole numbers; may be None, or have gaps, only with junk="none".
        gallery_cameras: the same.
        protocol: the conventions; distances cannot be pooled, so tracklets="mean" states that the rows are pooled already.

    Raises:
        ValueError: as `evaluate_reid`, or a distance that is not finite.
    """
    distance_QG = np.asanyarray(distance_QG)
    if distance_QG.ndim != 2 or distance_QG.dtype.kind not in "fiu":
        raise ValueError(
            f"distance_QG must be numbers, queries by gallery rows; found {distance_QG.dtype} of shape {distance_QG.shape}"
        )
    if distance_QG.dtype not in (np.float32, np.float64):
        distance_QG = distance_QG.astype(np.float32 if distance_QG.dtype == np.float16 else np.float64)
    queries = read_side("query", query_labels, query_cameras, distance_QG.shape[0], protocol)
    gallery = read_side("gallery", gallery_labels, gallery_cameras, distance_QG.shape[1], protocol)
    similarity = GivenDistances(distance_QG, queries.index.to_numpy(), gallery.index.to_numpy())
    return evaluate_similarity(similarity, queries, gallery, protocol, *distance_QG.shape)


def evaluate_similarity(
    similarity: Similarity,
    queries: pd.DataFrame,
    gallery: pd.DataFrame,
    protocol: ReidProtocol,
    num_queries_given: int,
    num_gallery_given: int,
) -> ReidResult:
    """Returns the metrics of a comparison of the queries with the gallery that `read_side` has read (or pooled).

    Args:
        similarity: of the rows of queries to the rows of gallery.
        queries: label, camera and num_images, indexed by the row in the arrays that were given.
        gallery: the same.
        protocol: the conventions.
        num_queries_given: before junk was taken away.
        num_gallery_given: before junk was taken away.

    Raises:
        ValueError: no query has a match left, or a distance that is not finite.
    """
    label, _ = pd.factorize(np.concatenate([queries["label"], gallery["label"]]))
    itself, has_junk = protocol.junk == "itself", protocol.junk != "none"
    if itself and (num_queries_given != num_gallery_given or not queries["label"].equals(gallery["label"])):
        raise ValueError(
            f"junk='itself' wants the same rows in one order on both sides; found {num_queries_given} queries and "
            f"{num_gallery_given} gallery rows{'' if num_queries_given != num_gallery_given else ' of other labels'}"
        )
    # what may not answer: a row of the query's label with the query's camera, or with its row number
    camera, _ = pd.factorize(np.concatenate([side.index if itself else side["camera"] for side in (queries, gallery)]))
    search = Search(
        similarity,
        label[: len(queries)],
        label[len(queries) :],
        camera[: len(queries)] if has_junk else None,
        camera[len(queries) :] if has_junk else None,
    )
    has_non_matches = search.num_own() < len(queries) * len(gallery)
    false_accepts = FalseAccepts(search, protocol.far) if protocol.far and has_non_matches else None
    _check_matches(search, queries, gallery, itself)
    places = rank_queries(search, protocol, false_accepts)
    per_query = query_table(queries, places, protocol)
    counted = per_query["average_precision"].notna().to_numpy()
    num_skipped = int((~counted).sum())
    num_distractors = int((~np.isin(search.gallery_label_G, search.query_label_Q)).sum())
    compared = "" if protocol.distance else "cosine similarity; " if similarity.is_cosine else "distances as given; "
    line = (
        f"{protocol.describe()}; {compared}{int(counted.sum())} queries of {queries['label'][counted].nunique()} identities, "
        f"{num_skipped} left out; gallery of {len(gallery)}, {num_distractors} of them distractors"
    )
    metrics, weight_Q = mean_metrics(per_query, counted, places, protocol, line)
    if false_accepts is not None:
        metrics |= true_accepts(
            false_accepts.finish()[1], places, queries["label"].to_numpy(dtype=object), protocol, line
        )
    return ReidResult(
        metrics=metrics,
        protocol=protocol,
        per_query=per_query,
        num_skipped=num_skipped,
        num_junk_queries=num_queries_given - int(queries["num_images"].sum()),
        num_gallery=len(gallery),
        num_junk_gallery=num_gallery_given - len(gallery),
        num_distractors=num_distractors,
        _search=search,
        _gallery=gallery[["label", "camera"]],
        _places=places,
        _weight_Q=weight_Q,
    )


def read_side(
    side: str, labels: ArrayLike, cameras: ArrayLike | None, num_rows: int, protocol: ReidProtocol
) -> pd.DataFrame:
    """Returns label, camera and num_images of the rows that are not junk for everybody, indexed by row.

    Raises:
        ValueError: a label or a camera that is missing or of a wrong kind (side and row named), or no row left.
    """
    label_N = read_labels(labels, num_rows, f"{side}_labels")
    camera_N = read_cameras(cameras, num_rows, f"{side}_cameras")
    kept = np.flatnonzero(label_N != JUNK_LABEL)
    if len(kept) == 0:
        raise ValueError(f"no {side} row to evaluate: {num_rows} were given, {num_rows} of them junk ('{JUNK_LABEL}')")
    frame = pd.DataFrame({"label": label_N[kept], "camera": camera_N[kept], "num_images": 1}, index=kept, dtype=object)
    without = kept[frame["camera"].isna()]
    if protocol.junk == "same_id_same_camera" and len(without):
        raise ValueError(
            f"{side}_cameras has no camera for {len(without)} of {len(kept)} rows (first: {without[0]}), but "
            "junk='same_id_same_camera' needs one for each: give them, or use junk='none'"
        )
    return frame


def _check_matches(search: Search, queries: pd.DataFrame, gallery: pd.DataFrame, itself: bool) -> None:
    """Raises ValueError, with the cause, if no query has a gallery row of its individual that is not junk."""
    shared = np.isin(search.query_label_Q, search.gallery_label_G)
    if not shared.any():
        names = [", ".join(sorted(set(side["label"]))[:3]) for side in (queries, gallery)]
        raise ValueError(
            f"no query has a match: none of the query labels ({names[0]}, ...) is among the gallery labels ({names[1]}, ...); "
            "both must name individuals in the same way"
        )
    for start in range(0, len(queries), search.rows_a_block):
        _, _, junk_P = search.own_rows(np.arange(start, min(start + search.rows_a_block, len(queries))))
        if not junk_P.all():
            return
    if itself:
        raise ValueError("no query has a match left: every label has one image, and none may answer for itself")
    raise ValueError(
        f"no query has a match left: {int(shared.sum())} of {len(queries)} queries have gallery rows of their individual, but all of "
        f"these are from the query's own camera (cameras there: {', '.join(sorted_cameras(gallery['camera'])[:5])}) and "
        "junk='same_id_same_camera' takes them away; give the cameras as they are, ask across cameras, or use junk='none'"
    )
