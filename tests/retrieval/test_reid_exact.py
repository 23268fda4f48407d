"""Re-identification against scikit-learn and exact fractions, at sizes where a plain enumeration of orders is out of reach."""

from dataclasses import replace
from fractions import Fraction
from math import comb
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from workbench.retrieval.reid import ReidProtocol, evaluate_distances, evaluate_reid
from workbench.retrieval.reid_result import ReidResult

CONVENTIONS = [
    ReidProtocol(
        junk=junk,
        average_precision=precision,
        ties=ties,
        unmatched=unmatched,
        average=average,
        ranks=(1, 2, 5, 20),
        far=(),
    )
    for junk in ("same_id_same_camera", "none")
    for precision in ("step", "trapezoid")
    for ties in ("expected", "threshold", "optimistic", "pessimistic")
    for unmatched in ("skip", "zero")
    for average in ("query", "identity")
]


def sklearn_precision(distance: np.ndarray, right: np.ndarray, protocol: ReidProtocol) -> float:
    near = -distance
    if protocol.ties != "threshold":  # every row a rank of its own, the right ones of a tie first or last
        order = np.lexsort((right if protocol.ties == "pessimistic" else ~right, distance))
        near = np.empty(len(distance))
        near[order] = -np.arange(len(distance), dtype=float)
    if protocol.average_precision == "step":
        return float(average_precision_score(right, near))
    precision, recall, _ = precision_recall_curve(right, near)
    return float(
        auc(recall, precision)
    )  # the mean of the precision at a hit and just before, as the curve ends at (0, 1)


def expected_precision(distance: np.ndarray, right: np.ndarray, protocol: ReidProtocol) -> Fraction:
    """Over all places of each positive in its tie, and all numbers of other positives that may stand before it there."""
    total = Fraction(0)
    for value in np.unique(distance[right]):
        nearer, tied = int((distance < value).sum()), int((distance == value).sum())
        before, hits = int((right & (distance < value)).sum()), int((right & (distance == value)).sum())
        for inside in range(tied):
            for others in range(max(0, hits - tied + inside), min(inside, hits - 1) + 1):
                share = Fraction(comb(inside, others) * comb(tied - 1 - inside, hits - 1 - others), comb(tied, hits))
                place, found = nearer + inside, before + others  # rows and positives before this one
                at, just_before = Fraction(found + 1, place + 1), Fraction(found, place) if place else Fraction(1)
                total += share * (at if protocol.average_precision == "step" else (at + just_before) / 2)
    return total / int(right.sum())


def counted_places(distance: np.ndarray, right: np.ndarray, protocol: ReidProtocol) -> dict[str, Fraction]:
    """CMC and mINP in fractions: which places the right rows of a tie take is drawn among all combinations."""

    def tie_of(value: float) -> tuple[int, int, int]:
        return int((distance < value).sum()), int((distance == value).sum()), int((right & (distance == value)).sum())

    found = {}
    nearer, tied, hits = tie_of(distance[right].min())
    first = {"optimistic": nearer + 1, "pessimistic": nearer + tied - hits + 1}
    for rank in protocol.ranks:
        places = min(max(rank - nearer, 0), tied)
        missed = Fraction(comb(tied - places, hits), comb(tied, hits))
        found[f"rank-{rank}"] = Fraction(first[protocol.ties] <= rank) if protocol.ties in first else 1 - missed
    nearer, tied, hits = tie_of(distance[right].max())
    if protocol.ties not in first:
        ways = [(place, comb(place - 1, hits - 1)) for place in range(hits, tied + 1)]
    else:
        ways = [(hits if protocol.ties == "optimistic" else tied, comb(tied, hits))]
    num_right = int(right.sum())
    found["mINP"] = sum(
        (Fraction(num_right, nearer + place) * way / comb(tied, hits) for place, way in ways), Fraction(0)
    )
    return found


def independent(distance: np.ndarray, who: Any, protocol: ReidProtocol) -> dict[str, float] | None:
    query_labels, gallery_labels, query_cameras, gallery_cameras = who
    by_label: dict[int, list[dict[str, float]]] = {}
    for query, label in enumerate(query_labels):
        right = gallery_labels == label
        kept = np.ones(len(right), dtype=bool)
        if protocol.junk != "none":
            kept = ~(right & (gallery_cameras == query_cameras[query]))
        near, right = distance[query, kept], right[kept]
        if right.any():
            row = {name: float(value) for name, value in counted_places(near, right, protocol).items()}
            exact = protocol.ties == "expected"
            row["mAP"] = float((expected_precision if exact else sklearn_precision)(near, right, protocol))
            by_label.setdefault(label, []).append(row)
        elif protocol.unmatched == "zero":
            by_label.setdefault(label, []).append(
                dict.fromkeys(["mAP", "mINP", *(f"rank-{r}" for r in protocol.ranks)], 0.0)
            )
    rows = [row for of_label in by_label.values() for row in of_label]
    if not any(row["mAP"] for row in rows):
        return None
    if protocol.average == "identity":
        rows = [{name: float(np.mean([row[name] for row in own])) for name in own[0]} for own in by_label.values()]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def numbers(result: ReidResult) -> dict[str, float]:
    return {name: metric.value for name, metric in result.metrics.items()}


def drawn_search(seed: int, num_queries: int, num_rows: int, num_levels: int) -> tuple[np.ndarray, Any]:
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, num_levels, (num_queries, num_rows)) / num_levels - 0.5
    copies = rng.integers(0, num_rows, num_rows // 3)
    distance[:, copies] = distance[:, np.roll(copies, 1)]
    highs = (rng.integers(1, 6), rng.integers(1, 4))
    who = [rng.integers(0, high, size) for high in highs for size in (num_queries, num_rows)]
    return distance, who


@pytest.mark.parametrize(
    "protocol",
    CONVENTIONS,
    ids=lambda one: "-".join((one.junk, one.average_precision, one.ties, one.unmatched, one.average)),
)
@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_queries=st.integers(1, 7),
    num_rows=st.integers(1, 60),
    num_levels=st.sampled_from([1, 2, 7, 10**6]),
)
def test_every_combination_equals_scikit_learn_and_exact_fractions(
    protocol: ReidProtocol, seed: int, num_queries: int, num_rows: int, num_levels: int
) -> None:
    distance, who = drawn_search(seed, num_queries, num_rows, num_levels)
    wanted = independent(distance, who, protocol)
    if wanted is None:
        with pytest.raises(ValueError, match="no query has a match"):
            evaluate_distances(distance, who[0], who[1], who[2], who[3], protocol)
        return
    assert numbers(evaluate_distances(distance, who[0], who[1], who[2], who[3], protocol)) == pytest.approx(
        wanted, abs=1e-9
    )


@pytest.mark.parametrize("protocol", CONVENTIONS[::5], ids=lambda one: one.describe()[:60])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), num_rows=st.integers(2, 80))
def test_embeddings_with_copies_equal_their_similarities(protocol: ReidProtocol, seed: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    gallery, query = rng.standard_normal((num_rows, 6)), rng.standard_normal((9, 6))
    gallery[rng.integers(0, num_rows, num_rows)] = gallery[rng.integers(0, num_rows, num_rows)]
    query[0], gallery[-1] = gallery[0], gallery[0]
    who = [rng.integers(0, high, size) for high in (4, 3) for size in (9, num_rows)]
    distinct, which = np.unique(gallery, axis=0, return_inverse=True)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, distinct)]
    distance = -(unit[0] @ unit[1].T)[:, which.ravel()]
    wanted = independent(distance, who, protocol)
    if wanted is not None:
        assert numbers(evaluate_reid(query, gallery, who[0], who[1], who[2], who[3], protocol)) == pytest.approx(
            wanted, abs=1e-9
        )


def test_values_by_query_are_what_the_metrics_are_the_mean_of() -> None:
    distance, who = drawn_search(3, 30, 60, 5)
    who[0][:2] = 99
    unmatched: Literal["skip", "zero"]
    for unmatched in ("skip", "zero"):
        protocol = replace(CONVENTIONS[0], unmatched=unmatched)
        result = evaluate_distances(distance, who[0], who[1], who[2], who[3], protocol)
        for name in ("mAP", "mINP", "rank-1", "rank-5"):
            value_Q = result.values_by_query(name)
            assert np.isnan(value_Q[:2]).all() if unmatched == "skip" else (value_Q[:2] == 0).all()
            assert np.nanmean(value_Q) == pytest.approx(result.metrics[name].value, abs=1e-12)
    for name in ("rank-0", "rank-", "3", "TAR@FAR=1%"):
        with pytest.raises(ValueError, match="is wanted"):
            result.values_by_query(name)
