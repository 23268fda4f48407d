"""Our numbers computed once more by scikit-learn, pytorch-metric-learning and torchmetrics from the same embeddings.

Axes: Q queries, G rows that are searched, D width, M quantities (`QUANTITIES`). What a library counts by another convention stands
in the table with its difference and the convention's name; nothing is left out.

How far two right computations may differ is measured and not guessed: libraries multiply in an order of their own, in float32, so
that rows closer than `ROUNDING` may change places. The tolerance of a number is what it changes by when all right rows of
each query come nearer by that much instead of moving away, ties included.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.catalog import JUNK_LABEL
from workbench.retrieval.arrays import read_cameras, read_labels
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.oracles import (
    Pairs,
    pair_up,
    pml_accuracy,
    sklearn_average_precision,
    sklearn_nearest,
    torchmetrics_average_precision,
    torchmetrics_r_precision,
)
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.tracklets import pool_tracklets

QUANTITIES = ("P@1", "average precision", "R-precision", "MAP@R")
ROUNDING = 4e-6
"""Cosines in float32 were seen 8e-7 off at widths of 64 to 2048: twice for a pair of rows, twice for two libraries, and some."""
SUMS = {"torchmetrics": 1e-6}  # it sums in float32; the others in float64
EXACT = 1e-9
_AT_R = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
_MAP = "mean_average_precision"
COLUMNS = ("quantity", "n", "ours", "library", "theirs", "difference", "tolerance", "agrees", "explanation")
_SKLEARN, _TORCHMETRICS, _PML = "scikit-learn", "torchmetrics", "pytorch-metric-learning"


def few_shot_parity(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray,
    query_labels: ArrayLike,
    *,
    num_queries: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns accuracy@1 (nearest of all references), R-precision and MAP@R: ours, theirs, and why they differ.

    Queries without a reference of their label are left out. R-precision and MAP@R, which the workbench reports nowhere else, are
    ours by `rank_plainly`.

    Args:
        reference_ND: real numbers, any scale, rows not zero.
        reference_labels: text or numbers, coded as int64 before a library sees them.
        query_ND: as reference_ND, of the same width.
        query_labels: as reference_labels.
        num_queries: at most so many queries, drawn by the seed.
        seed: of that draw.

    Returns:
        Columns quantity, n (queries), ours, library, theirs, difference (theirs less ours), tolerance, agrees (the difference is
        within the tolerance), explanation.

    Raises:
        ValueError: as `evaluate_few_shot`.

    Source: R-precision and MAP@R: Musgrave et al. 2020, "A Metric Learning Reality Check".
    """
    labels_G = read_labels(reference_labels, len(reference_ND), "reference_labels")
    labels_Q = read_labels(query_labels, len(query_ND), "query_labels")
    present_Q = np.isin(labels_Q, labels_G)
    candidates = np.flatnonzero(present_Q) if present_Q.any() else np.arange(len(labels_Q))
    asked = _draw(candidates, num_queries, seed)
    query_ND, labels_Q = np.asanyarray(query_ND)[asked], labels_Q[asked]
    protocol = FewShotProtocol(shots=("all",), draws=1, top=(1,))
    result = evaluate_few_shot(reference_ND, labels_G, query_ND, labels_Q, protocol)
    accuracy = result.metrics["accuracy@1/shots=all/micro"].value
    pairs = pair_up(query_ND, reference_ND, labels_Q, labels_G)
    plain, moved = (np.nanmean(values_MQ, axis=1) for values_MQ in rank_plainly(pairs))
    note = _sampled(len(asked), len(candidates))
    rows = [
        _row("accuracy@1", accuracy, f"{_SKLEARN} KNeighborsClassifier, {metric}", sklearn_nearest(pairs, metric), moved[0])
        for metric in ("cosine", "euclidean")
    ]  # fmt: skip
    pml = pml_accuracy(pairs, _AT_R)
    rows.append(_row("accuracy@1", accuracy, f"{_PML} precision_at_1", pml["precision_at_1"], moved[0]))
    return _table([*rows, *_rows_at_r(pairs, pml, plain, moved)], len(asked), note)


def reid_parity(
    query_ND: np.ndarray,
    gallery_ND: np.ndarray,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
    *,
    num_queries: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns mAP and rank-1 by the protocol, then what can be counted without a camera rule: ours, theirs, and why they differ.

    scikit-learn knows one rule for ties, so that mAP is compared with it under ties="threshold".

    Libraries give the average precision of one query from the rows that the junk rule keeps; leaving out or counting zero where there
    is no match, and the mean over queries or individuals, are done here by the protocol. Pooled tracklets are pooled first.

    Args:
        query_ND: as in `evaluate_reid`, as are the following ones.
        gallery_ND: as there.
        query_labels: as there; coded as int64 before a library sees them.
        gallery_labels: as there.
        query_cameras: as there.
        gallery_cameras: as there.
        protocol: the conventions.
        num_queries: at most so many queries, drawn by the seed.
        seed: of that draw.

    Returns:
        As `few_shot_parity`.

    Raises:
        ValueError: as `evaluate_reid`, also where no query of the draw has a match left.
    """
    rule = "it has no camera rule: right answers from the query's own camera count"
    if protocol.junk == "itself":  # the same rule, with a camera of its own for each image
        rule = "it does not leave the query itself out"
        query_cameras, gallery_cameras = np.arange(len(query_ND)), np.arange(len(gallery_ND))
        protocol = replace(protocol, junk="same_id_same_camera")
    query_ND, label_Q, camera_Q = _without_junk("query", query_ND, query_labels, query_cameras)
    gallery_ND, label_G, camera_G = _without_junk("gallery", gallery_ND, gallery_labels, gallery_cameras)
    if protocol.tracklets == "mean":
        pooled = pool_tracklets(query_ND, label_Q, camera_Q)
        query_ND, label_Q, camera_Q = pooled.embedding_TD, pooled.labels, pooled.cameras
    asked = _draw(np.arange(len(label_Q)), num_queries, seed)
    note = _sampled(len(asked), len(label_Q))
    query_ND, label_Q, camera_Q = query_ND[asked], label_Q[asked], camera_Q[asked]
    protocol = replace(protocol, tracklets="none", far=(), ranks=(1,))
    one_step = replace(protocol, ties="threshold")
    ours, stepped = (
        evaluate_reid(query_ND, gallery_ND, label_Q, label_G, camera_Q, camera_G, one).metrics
        for one in (protocol, one_step)
    )
    bare = pair_up(query_ND, gallery_ND, label_Q, label_G)
    by_camera = protocol.junk == "same_id_same_camera"
    pairs = bare.under_cameras(camera_Q, camera_G) if by_camera else bare
    moved = _mean(rank_plainly(pairs)[1][1], label_Q, protocol)
    step = (
        "" if protocol.average_precision == "step" else "it has the step form of average precision, not the trapezoid"
    )
    ties = "" if protocol.ties == "expected" else f"it does not have ties {protocol.ties}"
    convention = "; ".join(filter(None, (step, ties)))
    theirs = [
        _mean(found(pairs), label_Q, protocol) for found in (sklearn_average_precision, torchmetrics_average_precision)
    ]
    rows = [
        _row("mAP, ties threshold", stepped["mAP"].value, f"{_SKLEARN} average_precision_score", theirs[0], 0.0, step),
        _row("mAP", ours["mAP"].value, f"{_TORCHMETRICS} retrieval_average_precision", theirs[1], moved, convention),
    ]
    pml = pml_accuracy(bare, (*_AT_R, _MAP))
    first = f"{_PML} precision_at_1"
    if by_camera:
        rows.append(_row("rank-1", ours["rank-1"].value, first, pml["precision_at_1"], 0.0, rule))
    free = ReidProtocol(junk="none", far=(), ranks=(1,))
    ours = evaluate_reid(query_ND, gallery_ND, label_Q, label_G, None, None, free).metrics
    plain, moved_M = (np.nanmean(values_MQ, axis=1) for values_MQ in rank_plainly(bare))
    whole = pml_accuracy(bare, (_MAP,), None)[_MAP]
    cut = f"with k = max_bin_count, here {np.bincount(bare.label_G).max()}, it takes hits behind the first k for missed"
    one, mean, without = ours["rank-1"].value, ours["mAP"].value, ", no camera rule"
    rows += [
        _row(f"rank-1{without}", one, first, pml["precision_at_1"], moved_M[0]),
        _row(f"mAP{without}", mean, f"{_PML} {_MAP}, k = None", whole, moved_M[1]),
        _row(f"mAP{without}", mean, f"{_PML} {_MAP}, k = max_bin_count", pml[_MAP], moved_M[1], cut),
    ]
    return _table([*rows, *_rows_at_r(bare, pml, plain, moved_M, without)], len(asked), note)


def rank_plainly(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Returns (plain_MQ, moved_MQ), float64: the quantities of each query, and how far rounding may move them.

    A loop over queries from the definitions: sort the row, look at the places of the hits. NaN for queries without a match. Ties are in
    the rows' order in plain_MQ; moved_MQ covers every order.
    """
    plain_MQ, moved_MQ = (np.full((len(QUANTITIES), len(pairs.label_Q)), np.nan) for _ in range(2))
    for query, similarity, right in pairs.rankings():
        plain_MQ[:, query] = _quantities(similarity, right)
        nearer, farther = (_quantities(similarity + sign * ROUNDING * right, right) for sign in (1, -1))
        moved_MQ[:, query] = nearer - farther
    return plain_MQ, moved_MQ


def _quantities(similarity: np.ndarray, right: np.ndarray) -> np.ndarray:
    place = np.flatnonzero(right[np.argsort(-similarity, kind="stable")]) + 1
    precision = np.arange(1, len(place) + 1) / place
    within = place <= len(place)
    return np.array([place[0] == 1, precision.mean(), within.mean(), precision[within].sum() / len(place)])


def _rows_at_r(
    pairs: Pairs, pml: dict[str, float], plain_M: np.ndarray, moved_M: np.ndarray, rule: str = ""
) -> list[tuple[object, ...]]:
    torchmetrics = float(np.nanmean(torchmetrics_r_precision(pairs)))
    return [
        _row(f"R-precision{rule}", plain_M[2], f"{_PML} r_precision", pml["r_precision"], moved_M[2]),
        _row(f"R-precision{rule}", plain_M[2], f"{_TORCHMETRICS} retrieval_r_precision", torchmetrics, moved_M[2]),
        _row(f"MAP@R{rule}", plain_M[3], f"{_PML} mean_average_precision_at_r", pml["mean_average_precision_at_r"], moved_M[3]),
    ]  # fmt: skip


def _row(
    quantity: str, ours: float, library: str, theirs: float, moved: float, convention: str = ""
) -> tuple[object, ...]:
    """Returns a row without n. Two right computations may differ by `moved` and by the rounding of their sums."""
    tolerance = moved + SUMS.get(library.split()[0], EXACT)
    agrees = abs(theirs - ours) <= tolerance
    explanation = f"rows within {ROUNDING:.0e} may change places" if moved else "the same but for the rounding of sums"
    if convention:
        explanation = f"another convention: {convention}"
    elif not agrees:
        explanation = f"NOT EXPLAINED, more than this: {explanation}"
    return quantity, float(ours), library, theirs, theirs - ours, tolerance, bool(agrees), explanation


def _table(rows: list[tuple[object, ...]], num_asked: int, note: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[column for column in COLUMNS if column != "n"])
    table.insert(1, "n", num_asked)
    table["explanation"] += note
    return table


def _sampled(num_asked: int, num_given: int) -> str:
    return f"; a draw of {num_asked:,} of {num_given:,} queries" if num_asked < num_given else ""


def _draw(rows: np.ndarray, num_wanted: int, seed: int) -> np.ndarray:
    if len(rows) <= num_wanted:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, num_wanted, replace=False))


def _without_junk(
    side: str, embedding_ND: np.ndarray, labels: ArrayLike, cameras: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows, labels and cameras (None where missing) of what is not junk for everybody."""
    embedding_ND = np.asanyarray(embedding_ND)
    label_N = read_labels(labels, len(embedding_ND), f"{side}_labels")
    kept = np.flatnonzero(label_N != JUNK_LABEL)
    camera_N = read_cameras(cameras, len(embedding_ND), f"{side}_cameras")
    return embedding_ND[kept], label_N[kept], camera_N[kept]


def _mean(precision_Q: np.ndarray, label_Q: np.ndarray, protocol: ReidProtocol) -> float:
    """Returns the mean over queries or individuals; queries without a match (NaN) are left out or count as zero."""
    counted = pd.Series(precision_Q)
    counted = counted.fillna(0.0) if protocol.unmatched == "zero" else counted.dropna()
    if protocol.average == "query":
        return float(counted.mean())
    return float(counted.groupby(label_Q[counted.index]).mean().mean())
