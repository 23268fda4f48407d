from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval import k_reciprocal
from workbench.retrieval.k_reciprocal import find_neighbours
from workbench.retrieval.reid import ReidProtocol, evaluate_distances, evaluate_reid
from workbench.retrieval.rerank import compare_reranking, evaluate_reranked, expand_queries, rerank
from workbench.retrieval.similarities import CosineSimilarity, GivenDistances
from workbench.retrieval.stats import paired_difference

PLAIN = ReidProtocol(junk="none", far=())


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)


def crowd(
    seed: int, num_queries: int = 20, num_rows: int = 90, num_labels: int = 10, noise: float = 1.0
) -> tuple[Any, Any, Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((num_labels, 8))
    who = rng.integers(0, num_labels, num_queries), rng.integers(0, num_labels, num_rows)
    query, gallery = (centre[label] + noise * rng.standard_normal((len(label), 8)) for label in who)
    return query, gallery, *who, rng.integers(0, 3, num_queries), rng.integers(0, 3, num_rows)


# --- the dense algorithm, as the paper words it ----------------------------------------------------------------------


def dense_distance(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float, squared: bool) -> Any:
    """All N x N distances, Python sets for neighbours, vectors of length N for encodings."""
    images = unit(np.concatenate([query, gallery]))
    num_images, num_queries = len(images), len(query)
    # equal images get equal distances; a difference of rows, not a product, so that it shares no rounding with ours
    distinct, which = np.unique(images, axis=0, return_inverse=True)
    between = np.array([[np.linalg.norm(a - b) for b in distinct] for a in distinct]) ** (2 if squared else 1)
    original = between[which.ravel()][:, which.ravel()]
    largest = original.max(axis=1, keepdims=True)
    normed = original / np.where(largest > 0, largest, 1.0)  # of each image, by its own largest
    lists = [sorted(range(num_images), key=lambda j: (i != j, original[i, j], j)) for i in range(num_images)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in lists[i][: k + 1] if i in lists[j][: k + 1]}

    encoding = np.zeros((num_images, num_images))
    for i in range(num_images):
        members = reciprocal(i, k1)
        expanded = set(members)
        for j in members:
            half = reciprocal(j, int(np.around(k1 / 2)))
            if 3 * len(half & members) > 2 * len(half):
                expanded |= half
        for j in expanded:
            encoding[i, j] = np.exp(-normed[i, j])
        encoding[i] /= encoding[i].sum()
    encoding = np.array([encoding[lists[i][:k2]].mean(axis=0) for i in range(num_images)])
    distance = np.empty((num_queries, num_images))
    for i in range(num_queries):
        for j in range(num_images):
            smaller, larger = np.minimum(encoding[i], encoding[j]).sum(), np.maximum(encoding[i], encoding[j]).sum()
            distance[i, j] = (1 - weight) * (1 - smaller / larger) + weight * normed[i, j]
    return distance[:, num_queries:]


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize(
    ("num_queries", "num_rows", "k1", "k2", "weight"),
    [(20, 90, 20, 6, 0.3), (12, 60, 7, 1, 0.0), (3, 9, 20, 6, 0.3), (15, 40, 5, 3, 1.0), (1, 50, 1, 2, 0.5)],
)
def test_equals_the_dense_algorithm(
    num_queries: int, num_rows: int, k1: int, k2: int, weight: float, squared: bool
) -> None:
    query, gallery, *_ = crowd(num_rows, num_queries, num_rows)
    ours = rerank(query * 3, gallery, k1, k2, weight, squared=squared)
    found = -ours.block(0, num_queries)
    assert found == pytest.approx(dense_distance(query, gallery, k1, k2, weight, squared), abs=1e-6)
    assert -ours.block(num_queries // 2, num_queries) == pytest.approx(found[num_queries // 2 :], abs=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(1, 24),
    num_queries=st.integers(1, 8),
    k1=st.integers(1, 12),
    k2=st.integers(1, 5),
    copies=st.integers(0, 12),
)
def test_equals_the_dense_algorithm_with_copies(
    seed: int, num_rows: int, num_queries: int, k1: int, k2: int, copies: int
) -> None:
    rng = np.random.default_rng(seed)
    gallery, query = rng.standard_normal((num_rows, 5)), rng.standard_normal((num_queries, 5))
    gallery[rng.integers(0, num_rows, copies)] = gallery[0]
    query[rng.integers(0, num_queries)] = gallery[0]
    found = -rerank(query, gallery, k1, k2).block(0, num_queries)
    assert found == pytest.approx(dense_distance(query, gallery, k1, k2, 0.3, True), abs=1e-6)


def test_worked_by_hand() -> None:
    # angles in degrees: a query at 0, gallery rows at 10, 90 and 100; lists of k1 = 1: each with its twin
    angle = np.radians([0.0, 10, 90, 100])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    near, far, farthest = (2 - 2 * np.cos(np.radians(degrees)) for degrees in (10, 90, 100))
    found = -rerank(rows[:1], rows[1:], k1=1, k2=1, weight=0.25).block(0, 1)[0]
    # the query's largest distance is to 100 degrees, its twin's is to 90 more than its own
    query, twin = np.exp(-near / farthest), np.exp(-near / far)
    encodings = np.array([1, query]) / (1 + query), np.array([twin, 1]) / (1 + twin)
    jaccard = 1 - np.minimum(*encodings).sum() / np.maximum(*encodings).sum()
    wanted = [0.75 * jaccard + 0.25 * near / farthest, 0.75 + 0.25 * far / farthest, 0.75 + 0.25]
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_set_of_two_thirds_does_not_join_and_a_larger_one_does() -> None:
    # rows on a line (a flat arc): distances are their differences
    def reached(angles: list[float]) -> list[int]:
        rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        encoding = rerank(rows[:1], rows[1:], k1=4, k2=1).encoding_QN
        return sorted(np.flatnonzero(encoding.toarray()[0]).tolist())

    for angles in ([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06], [0.0, 0.01, -0.011, 0.02, 0.035, 0.05, 0.07]):
        gap = np.abs(np.subtract.outer(angles, angles))
        lists = np.argsort(gap + np.arange(7) * 1e-12 - np.eye(7), axis=1)
        big = [{j for j in lists[i, :5].tolist() if i in lists[j, :5]} for i in range(7)]
        small = [{j for j in lists[i, :3].tolist() if i in lists[j, :3]} for i in range(7)]
        joined = {m for j in big[0] if len(small[j] & big[0]) * 3 > 2 * len(small[j]) for m in small[j]}
        assert reached(angles) == sorted(big[0] | joined)


def test_the_other_mistakes_would_be_seen() -> None:
    query, gallery, *_ = crowd(3)
    right = dense_distance(query, gallery, 20, 6, 0.3, True)
    once_more = dense_distance(query, gallery, 20, 6, 0.3, False)
    assert np.abs(right - once_more).max() > 1e-2
    assert -rerank(query, gallery).block(0, 20) == pytest.approx(right, abs=1e-9)


def test_equal_images_only() -> None:
    found = -rerank(np.ones((2, 3)), np.ones((30, 3)), k1=4).block(0, 2)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given_all = crowd(5, 45, 150)
    whole = evaluate_reranked(*given_all, ReidProtocol())
    monkeypatch.setattr(k_reciprocal, "_BLOCK_BYTES", 8 * 195 * 7)
    assert {name: metric.value for name, metric in evaluate_reranked(*given_all, ReidProtocol()).metrics.items()} == (
        pytest.approx({name: metric.value for name, metric in whole.metrics.items()}, abs=1e-12)
    )


def test_memory_grows_with_the_images_not_with_their_square() -> None:
    # what is kept for an image: its neighbours' neighbours, however many images there are
    sizes = []
    for num_rows in (300, 600, 1200):
        query, gallery, *_ = crowd(0, 20, num_rows, num_labels=num_rows // 15)
        ours = rerank(query, gallery)
        sizes.append((ours.encoding_QN.nnz + ours.encoding_NG.nnz) / (20 + num_rows))
    assert max(sizes) < 1.5 * min(sizes)
    assert max(sizes) < 6 * 60


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 70),
    k=st.integers(1, 25),
    num_levels=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_neighbours_are_those_of_a_stable_sort(rows: int, columns: int, k: int, num_levels: int, seed: int) -> None:
    distance = np.random.default_rng(seed).integers(0, num_levels, (rows, columns)).astype(np.float64)
    found = find_neighbours(GivenDistances(distance, np.arange(rows), np.arange(columns)), k)
    wanted = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.row_NK, wanted)
    np.testing.assert_array_equal(-found.similarity_NK, np.take_along_axis(distance, wanted, axis=1))
    np.testing.assert_array_equal(-found.least_N, distance.max(axis=1))


def test_an_image_is_its_own_first_neighbour_among_copies() -> None:
    rows = np.repeat(np.eye(2), [5, 1], axis=0)
    found = find_neighbours(CosineSimilarity(rows, rows), 3, to_itself=True)
    assert found.row_NK[:5].tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1], [4, 0, 1]]


# --- in the evaluation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [ReidProtocol(), PLAIN, ReidProtocol(average="identity", ties="pessimistic")])
def test_metrics_are_those_of_the_dense_distances(protocol: ReidProtocol) -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(8, 30, 120, noise=0.9)
    who = (query_labels, gallery_labels, query_cameras, gallery_cameras)
    result = evaluate_reranked(query, gallery, *who, protocol)
    distance = np.round(dense_distance(query, gallery, 20, 6, 0.3, True), 9)
    wanted = evaluate_distances(distance, *who, protocol)
    assert {name: metric.value for name, metric in result.metrics.items()} == pytest.approx(
        {name: metric.value for name, metric in wanted.metrics.items()}, abs=1e-12
    )
    shown = result.ranked_list(3, 5)
    assert shown["distance"].tolist() == pytest.approx(wanted.ranked_list(3, 5)["distance"].tolist(), abs=1e-6)
    pairs = result.per_camera_pair
    assert pairs["mAP"].to_numpy() == pytest.approx(wanted.per_camera_pair["mAP"].to_numpy(), abs=1e-12, nan_ok=True)


def test_junk_for_everybody_stays_a_neighbour_and_is_not_judged() -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(8, 30, 120, noise=0.9)
    asked, kept = query_labels != 4, gallery_labels != 7
    marked = np.where(asked, query_labels, -1), np.where(kept, gallery_labels, -1)
    result = evaluate_reranked(query, gallery, *marked, query_cameras, gallery_cameras, ReidProtocol(far=()))
    distance = np.round(dense_distance(query, gallery, 20, 6, 0.3, True), 9)[asked][:, kept]
    wanted = evaluate_distances(
        distance,
        query_labels[asked],
        gallery_labels[kept],
        query_cameras[asked],
        gallery_cameras[kept],
        ReidProtocol(far=()),
    )
    assert result.metrics["mAP"].value == pytest.approx(wanted.metrics["mAP"].value, abs=1e-12)
    assert (result.num_junk_gallery, result.num_junk_queries) == ((~kept).sum(), (~asked).sum())
    without = evaluate_reranked(
        query[asked],
        gallery[kept],
        query_labels[asked],
        gallery_labels[kept],
        query_cameras[asked],
        gallery_cameras[kept],
        ReidProtocol(far=()),
    )
    assert without.metrics["mAP"].value != pytest.approx(result.metrics["mAP"].value, abs=1e-6)


def test_pooled_queries_are_reranked_as_one() -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(2, 30, 80)
    query_labels[3] = -1
    protocol = ReidProtocol(tracklets="mean", far=())
    result = evaluate_reranked(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, protocol)
    pooled, labels, cameras = [], [], []
    for label in np.unique(query_labels[query_labels >= 0]):
        for camera in range(3):
            chosen = (query_labels == label) & (query_cameras == camera)
            if chosen.any():
                pooled.append(unit(query[chosen]).mean(axis=0))
                labels.append(label)
                cameras.append(camera)
    alone = replace(protocol, tracklets="none")
    wanted = evaluate_reranked(np.array(pooled), gallery, labels, gallery_labels, cameras, gallery_cameras, alone)
    assert result.metrics["mAP"].value == pytest.approx(wanted.metrics["mAP"].value, abs=1e-12)


def test_the_protocol_line_says_how() -> None:
    rows = crowd(1)
    line = evaluate_reranked(*rows, replace(PLAIN, distance="averaged over two models")).metrics["mAP"].protocol
    assert "averaged over two models; re-ranking k-reciprocal k1=20 k2=6 lambda=0.3;" in line
    line = evaluate_reranked(*rows, PLAIN, k1=8, k2=2, weight=0.25, squared=False).metrics["mAP"].protocol
    assert "re-ranking k-reciprocal k1=8 k2=2 lambda=0.25 on unsquared distances;" in line


def test_all_three_ways_beside_each_other() -> None:
    rows = crowd(4, 60, 200, noise=0.9)
    protocol = ReidProtocol(far=(), ranks=(1, 5))
    compared = compare_reranking(*rows, protocol)
    expanded = expand_queries(rows[0], rows[1])
    wanted = {
        "plain": evaluate_reid(*rows, protocol),
        "k-reciprocal": evaluate_reranked(*rows, protocol),
        "alpha query expansion": evaluate_reid(expanded, *rows[1:], protocol),
    }
    table = compared.table.set_index(["ranking", "metric"])
    for way, result in wanted.items():
        for name in ("mAP", "rank-1", "rank-5", "mINP"):
            assert table["value"][way, name] == pytest.approx(result.metrics[name].value, abs=1e-12)
    for way in ("k-reciprocal", "alpha query expansion"):
        precision = [one.per_query["average_precision"].to_numpy() for one in (wanted[way], wanted["plain"])]
        difference = paired_difference(precision[0], precision[1], rows[2])
        row = table.loc[[(way, "mAP")]].iloc[0]
        assert row["difference"] == pytest.approx(row["value"] - table["value"]["plain", "mAP"])
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((difference.low, difference.high))
        first = table.loc[[(way, "rank-1")]].iloc[0]
        assert first["difference"] == pytest.approx(first["value"] - table["value"]["plain", "rank-1"])
        assert np.isnan(table["difference"][way, "rank-5"])
    assert np.isnan(table["difference"]["plain", "mAP"])
    assert "re-ranking alpha query expansion n=10 alpha=3;" in table["protocol"]["alpha query expansion", "mAP"]
    # clouds of some twenty each: neighbours know more than a single similarity
    assert table["difference"]["k-reciprocal", "mAP"] > 0.02


def test_queries_without_a_match_are_left_out_of_the_differences() -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(4, 30, 100)
    query_labels[:3] = 77
    compared = compare_reranking(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, PLAIN)
    assert compared.differences["k-reciprocal", "mAP"].n == 27
    zero = replace(PLAIN, unmatched="zero", average="identity")
    compared = compare_reranking(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, zero)
    difference = compared.differences["k-reciprocal", "rank-1"]
    values = [compared.results[way].metrics["rank-1"].value for way in ("k-reciprocal", "plain")]
    assert difference.n == 30
    assert difference.value == pytest.approx(values[0] - values[1])


# --- alpha query expansion -------------------------------------------------------------------------------------------


def test_expansion_by_hand() -> None:
    gallery = np.array([[0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    found = expand_queries(np.array([[5.0, 0.0]]), gallery, num_neighbours=2, alpha=2)
    moved = np.array([1 + 0.64 * 0.8, 0.64 * 0.6])  # the second is at 90 degrees: weight 0
    assert found[0] == pytest.approx(moved / np.linalg.norm(moved))
    average = expand_queries(np.array([[5.0, 0.0]]), gallery, num_neighbours=1, alpha=0)
    assert average[0] == pytest.approx(np.array([1.8, 0.6]) / np.hypot(1.8, 0.6))
    # nothing that is farther than 90 degrees moves a query, more neighbours than rows are all rows
    away = expand_queries(np.array([[1.0, -1.0]]), gallery[1:], num_neighbours=9)
    assert away[0] == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])
    np.testing.assert_array_equal(expand_queries(np.array([[0.0, 2.0]]), gallery, num_neighbours=0), [[0, 1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_expansion_equals_plain_loops(dtype: Any) -> None:
    query, gallery, *_ = crowd(6)
    query, gallery = query.astype(dtype), gallery.astype(dtype)
    found = expand_queries(query, gallery, num_neighbours=4, alpha=3)
    assert found.dtype == dtype
    for row, image in zip(found, unit(query), strict=True):
        similar = sorted(((float(image @ other), index) for index, other in enumerate(unit(gallery))), reverse=True)
        moved = image + sum(max(value, 0) ** 3 * unit(gallery)[index] for value, index in similar[:4])
        assert row == pytest.approx(moved / np.linalg.norm(moved), abs=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k1": 0}, "k1=0"),
        ({"k2": 0}, "k2=0"),
        ({"weight": 1.5}, "weight=1.5"),
        ({"query_ND": np.ones((0, 2))}, "0 and 2 were given"),
        ({"gallery_ND": np.ones((2, 3))}, "widths 2 and 3"),
        ({"gallery_ND": np.array([[1.0, np.nan]])}, "row 0 of gallery_ND is not finite"),
        ({"query_ND": np.zeros((1, 2))}, "row 0 of query_ND has length zero"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    given_all: dict[str, Any] = {"query_ND": np.eye(2), "gallery_ND": np.eye(2)}
    with pytest.raises(ValueError, match=message):
        rerank(**(given_all | change))


def test_expansion_refuses_what_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"-1 and 3\.0 were given"):
        expand_queries(np.eye(2), np.eye(2), num_neighbours=-1)
    with pytest.raises(ValueError, match="widths 2 and 3"):
        expand_queries(np.eye(2), np.eye(3))
