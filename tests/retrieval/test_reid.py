import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score

from workbench.retrieval import reid_ranking
from workbench.retrieval.baseline import chance_reid
from workbench.retrieval.reid import ReidProtocol, evaluate_distances, evaluate_reid
from workbench.retrieval.reid_result import ReidResult
from workbench.retrieval.reid_values import Ties, read_places
from workbench.retrieval.stats import cluster_interval

PLAIN = ReidProtocol(junk="none", far=())
CONVENTIONS = [
    ReidProtocol(junk=junk, average_precision=precision, ties=ties, unmatched=unmatched, ranks=(1, 2, 3, 5, 10))
    for junk in ("same_id_same_camera", "none")
    for precision in ("step", "trapezoid")
    for ties in ("expected", "threshold", "optimistic", "pessimistic")
    for unmatched in ("skip", "zero")
]


def values(result: ReidResult) -> dict[str, float]:
    return {name: metric.value for name, metric in result.metrics.items()}


def one_query(hits: list[int], num_rows: int, distance: list[float] | None = None, **fields: Any) -> ReidResult:
    """A query whose positives stand at the places given, from 0; or at these places of the distances."""
    labels = ["a" if row in hits else f"b{row}" for row in range(num_rows)]
    distances = np.arange(num_rows, dtype=float) if distance is None else np.array(distance)
    return evaluate_distances(distances[None], ["a"], labels, None, None, replace(PLAIN, **fields))


def fixture_b() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    centre = rng.randn(20, 32)
    query_labels, gallery_labels = np.repeat(np.arange(20), 2), np.repeat(np.arange(20), 10)
    query = centre[query_labels] + 1.6 * rng.randn(40, 32)
    gallery = centre[gallery_labels] + 1.6 * rng.randn(200, 32)
    query_cameras, gallery_cameras = rng.randint(0, 6, 40), rng.randint(0, 6, 200)
    query, gallery = (
        (side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in (query, gallery)
    )
    return query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras


# --- plain loops -----------------------------------------------------------------------------------------------------


def orders(kept: list[tuple[float, bool]], ties: str) -> Iterator[list[bool]]:
    """The ranked lists (right or wrong) that a rule for ties allows, each equally likely."""
    if ties in ("expected", "threshold"):
        groups = [
            list(itertools.permutations([right for distance, right in kept if distance == value]))
            for value in sorted({distance for distance, _ in kept})
        ]
        for choice in itertools.product(*groups):
            yield [right for group in choice for right in group]
    else:
        yield [right for _, right in sorted(kept, key=lambda row: (row[0], row[1] == (ties == "pessimistic")))]


def plain_precision(kept: list[tuple[float, bool]], protocol: ReidProtocol) -> float:
    if protocol.ties == "expected":
        one_order = replace(protocol, ties="optimistic")  # nothing ties any more
        lists = [list(enumerate(map(float, ranked))) for ranked in orders(kept, "expected")]
        found = [plain_precision([(place, bool(right)) for place, right in ranked], one_order) for ranked in lists]
        return sum(found) / len(found)
    if protocol.ties == "threshold":  # a tie is one step
        steps = [
            (
                sum(right for distance, right in kept if distance <= value),
                sum(distance <= value for distance, _ in kept),
                sum(right for distance, right in kept if distance == value),
            )
            for value in sorted({distance for distance, _ in kept})
        ]
    else:
        (ranked,) = orders(kept, protocol.ties)
        steps = [(sum(ranked[: place + 1]), place + 1, int(right)) for place, right in enumerate(ranked)]
    total, before = 0.0, 1.0
    for hits, places, new in steps:
        precision = hits / places
        total += new * (precision if protocol.average_precision == "step" else (before + precision) / 2)
        before = precision
    return total / sum(right for _, right in kept)


def plain_metrics(
    distance: np.ndarray, who: list[list[int]], protocol: ReidProtocol
) -> tuple[dict[str, float], int] | None:
    """mAP, CMC and mINP by loops over queries, rows and orders; and how many queries have no match."""
    query_labels, gallery_labels, query_cameras, gallery_cameras = who
    rows: list[dict[str, float]] = []
    num_unmatched = 0
    for query in range(len(query_labels)):
        kept = []
        for row in range(len(gallery_labels)):
            same = gallery_labels[row] == query_labels[query]
            if protocol.junk != "none" and same and gallery_cameras[row] == query_cameras[query]:
                continue
            kept.append((float(distance[query, row]), same))
        if not any(same for _, same in kept):
            num_unmatched += 1
            if protocol.unmatched == "zero":
                rows.append(dict.fromkeys(["mAP", *(f"rank-{rank}" for rank in protocol.ranks), "mINP"], 0.0))
            continue
        found = {"mAP": plain_precision(kept, protocol)}
        lists = list(orders(kept, protocol.ties))
        for rank in protocol.ranks:
            found[f"rank-{rank}"] = sum(any(ranked[:rank]) for ranked in lists) / len(lists)
        last = [max(place for place, right in enumerate(ranked, start=1) if right) for ranked in lists]
        found["mINP"] = sum(sum(ranked) / place for ranked, place in zip(lists, last, strict=True)) / len(lists)
        rows.append(found)
    if num_unmatched == len(query_labels):
        return None
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}, num_unmatched


@st.composite
def small_searches(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    num_queries, num_rows = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    cells = st.lists(
        st.sampled_from([0.0, 0.1, 0.2, 0.25, -3.0]), min_size=num_queries * num_rows, max_size=num_queries * num_rows
    )
    who = [
        draw(st.lists(st.integers(0, high), min_size=size, max_size=size))
        for high in (2, 1)
        for size in (num_queries, num_rows)
    ]
    return np.array(draw(cells)).reshape(num_queries, num_rows), who


@pytest.mark.parametrize("protocol", CONVENTIONS, ids=lambda protocol: protocol.describe()[:90])
@settings(max_examples=25, deadline=None)
@given(search=small_searches())
def test_every_convention_equals_plain_loops(protocol: ReidProtocol, search: tuple[np.ndarray, Any]) -> None:
    distance, who = search
    wanted = plain_metrics(distance, who, protocol)
    if wanted is None:
        with pytest.raises(ValueError, match="no query has a match"):
            evaluate_distances(distance, who[0], who[1], who[2], who[3], protocol)
        return
    result = evaluate_distances(distance, who[0], who[1], who[2], who[3], protocol)
    found = {name: value for name, value in values(result).items() if not name.startswith("TAR")}
    assert found == pytest.approx(wanted[0], abs=1e-9)
    assert result.num_skipped == (wanted[1] if protocol.unmatched == "skip" else 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num_levels=st.sampled_from([1, 3, 20, 10**6]), num_rows=st.integers(2, 400))
def test_average_precision_is_scikit_learns_on_the_kept_rows(seed: int, num_levels: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, num_levels, (5, num_rows)) / num_levels
    distance[:, num_rows // 2 :] = distance[:, : num_rows - num_rows // 2]  # duplicates
    query_labels, gallery_labels = rng.integers(0, 4, 5), rng.integers(0, 4, num_rows)
    query_cameras, gallery_cameras = rng.integers(0, 3, 5), rng.integers(0, 3, num_rows)
    query_labels[0], gallery_labels[0], query_cameras[0], gallery_cameras[0] = 1, 1, 0, 1
    result = evaluate_distances(
        distance, query_labels, gallery_labels, query_cameras, gallery_cameras, ReidProtocol(ties="threshold", far=())
    )
    for query in range(5):
        right = gallery_labels == query_labels[query]
        kept = ~(right & (gallery_cameras == query_cameras[query]))
        found = result.per_query["average_precision"][query]
        if not right[kept].any():
            assert np.isnan(found)
            continue
        assert found == pytest.approx(average_precision_score(right[kept], -distance[query, kept]), abs=1e-9)
        assert result.per_query["num_positives"][query] == right[kept].sum()


# --- literals --------------------------------------------------------------------------------------------------------


def test_fixture_a_worked_by_hand() -> None:
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    distance = np.array([rising, rising[::-1], rising])
    result = evaluate_distances(
        distance, [1, 2, 9], [1, 2, 1, 3, 1, 2], [0, 0, 0], [0, 1, 1, 1, 2, 0], ReidProtocol(ranks=(1, 2, 3, 4))
    )
    found = values(result)
    assert found["mAP"] == pytest.approx(0.375)
    assert [found[f"rank-{rank}"] for rank in (1, 2, 3, 4)] == [0, 0.5, 0.5, 1]
    assert found["mINP"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert (result.num_skipped, result.metrics["mAP"].n, result.num_distractors) == (1, 2, 1)
    assert result.cmc(4)["value"].tolist() == [0, 0.5, 0.5, 1]
    assert result.per_query["num_positives"].tolist() == [2, 1, 0]


def test_fixture_b_with_and_without_the_camera_rule() -> None:
    result = evaluate_reid(*fixture_b(), ReidProtocol())
    found = values(result)
    assert found["mAP"] == pytest.approx(0.339933, abs=5e-7)
    assert [found[f"rank-{rank}"] for rank in (1, 5, 10)] == pytest.approx([0.4, 0.95, 1.0])
    plain = evaluate_reid(*fixture_b(), PLAIN)
    found = values(plain)
    assert found["mAP"] == pytest.approx(0.377222, abs=5e-7)
    assert [found[f"rank-{rank}"] for rank in (1, 5)] == pytest.approx([0.55, 0.975])
    assert (1 / plain.per_query["first_hit"]).mean() == pytest.approx(0.711488, abs=5e-7)


def test_fixture_b_agrees_with_pytorch_metric_learning() -> None:
    query, gallery, query_labels, gallery_labels, _, _ = fixture_b()
    names = (
        "precision_at_1",
        "r_precision",
        "mean_average_precision_at_r",
        "mean_average_precision",
        "mean_reciprocal_rank",
    )
    theirs = AccuracyCalculator(include=names, k=200).get_accuracy(query, query_labels, gallery, gallery_labels)
    assert theirs["r_precision"] == pytest.approx(0.355, abs=5e-7)
    assert theirs["mean_average_precision_at_r"] == pytest.approx(0.225280, abs=5e-7)
    ours = evaluate_reid(query, gallery, query_labels, gallery_labels, None, None, PLAIN)
    assert ours.metrics["rank-1"].value == pytest.approx(theirs["precision_at_1"])
    assert ours.metrics["mAP"].value == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    assert (1 / ours.per_query["first_hit"]).mean() == pytest.approx(theirs["mean_reciprocal_rank"], abs=1e-6)
    # R-precision from our ranked lists: the right share of the first 10, as each individual has 10 pictures
    right = [(ours.ranked_list(query, 10)["mark"] == "right").mean() for query in range(40)]
    assert np.mean(right) == pytest.approx(0.355)


def test_hits_at_places_0_3_and_7() -> None:
    assert one_query([0, 3, 7], 9).metrics["mAP"].value == pytest.approx(0.6250)
    trapezoid = one_query([0, 3, 7], 9, average_precision="trapezoid").metrics["mAP"].value
    assert trapezoid == pytest.approx(0.5823, abs=5e-5)


@pytest.mark.parametrize(
    ("ties", "precision", "first", "penalty", "cmc"),
    [
        ("expected", (1 + 5 / 6 + 3 / 4 + 7 / 12 + 1 / 2 + 5 / 12) / 6, 5 / 3, 23 / 36, [1 / 2, 5 / 6, 1, 1, 1]),
        ("threshold", 0.5, 5 / 3, 23 / 36, [1 / 2, 5 / 6, 1, 1, 1]),
        ("optimistic", 1.0, 1, 1.0, [1, 1, 1, 1, 1]),
        ("pessimistic", (1 / 3 + 2 / 4) / 2, 3, 0.5, [0, 0, 1, 1, 1]),
    ],
)
def test_all_distances_equal(ties: str, precision: float, first: float, penalty: float, cmc: list[float]) -> None:
    result = one_query([0, 2], 4, [0.5] * 4, ties=ties)
    row = result.per_query.iloc[0]
    assert row["average_precision"] == pytest.approx(precision)
    assert row["first_hit"] == pytest.approx(first)
    assert row["inverse_negative_penalty"] == pytest.approx(penalty)
    assert result.cmc(5)["value"].tolist() == pytest.approx(cmc)


@pytest.mark.parametrize(
    ("ties", "step", "trapezoid"),
    [
        ("expected", 3 / 4, 5 / 8),  # right first: 1 and 1; second: 1/2, and the mean of 1/2 and 0
        ("threshold", 1 / 2, 3 / 4),  # 1/2, and the mean of 1/2 and the 1 where the curve begins
        ("optimistic", 1, 1),
        ("pessimistic", 1 / 2, 1 / 4),
    ],
)
def test_one_right_and_one_wrong_row_that_tie(ties: str, step: float, trapezoid: float) -> None:
    for form, wanted in (("step", step), ("trapezoid", trapezoid)):
        found = one_query([1], 2, [0.5, 0.5], ties=ties, average_precision=form)
        assert found.metrics["mAP"].value == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("num_rows", [2, 64, 5000])
def test_where_all_rows_tie_the_expectation_is_a_guessers(num_rows: int) -> None:
    hits = list(range(0, num_rows, 7))
    found = one_query(hits, num_rows, [0.5] * num_rows)
    chance = chance_reid([len(hits)], num_rows)
    for name in ("mAP", "rank-1", "rank-5", "rank-20"):
        assert found.metrics[name].value == pytest.approx(chance[f"chance/{name}"].value, abs=1e-11)


@pytest.mark.parametrize("form", ["step", "trapezoid"])
@pytest.mark.parametrize("nearer", [0, 1, 3, 63, 64, 65, 10**4, 10**7])
@pytest.mark.parametrize(("tied", "right"), [(2, 1), (2, 2), (7, 1), (300, 299)])
def test_a_tie_far_down_the_list_loses_no_digit(form: Any, nearer: int, tied: int, right: int) -> None:
    first = min(nearer, 3)  # so many positives stand at the very top, each of precision 1
    places = read_places(
        np.zeros(first + right, np.int64),
        np.r_[np.arange(first, 0, -1), np.zeros(right)],
        np.r_[np.arange(first), np.full(right, nearer)],
        np.r_[np.ones(first, np.int64), np.full(right, tied)],
        form,
        "expected",
    )
    total = Fraction(first)
    for place in range(nearer + 1, nearer + tied + 1):
        hits = first + Fraction((place - nearer - 1) * (right - 1), tied - 1)
        at, just_before = (hits + 1) / place, hits / (place - 1) if place > 1 else Fraction(1)
        total += Fraction(right, tied) * (at if form == "step" else (at + just_before) / 2)
    assert places.average_precision_B.tolist() == pytest.approx([float(total / (first + right))], rel=1e-13, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_levels=st.integers(1, 6),
    num_rows=st.integers(1, 40),
    form=st.sampled_from(["step", "trapezoid"]),
)
def test_the_expectation_lies_between_the_worst_and_the_best_order(
    seed: int, num_levels: int, num_rows: int, form: Any
) -> None:
    rng = np.random.default_rng(seed)
    distance, labels = rng.integers(0, num_levels, (4, num_rows)), rng.integers(0, 2, num_rows)
    labels[0] = 1
    found = {
        ties: evaluate_distances(
            distance, [1] * 4, labels, None, None, replace(PLAIN, ties=ties, average_precision=form)
        ).per_query
        for ties in get_args(Ties)
    }
    for column in ("average_precision", "inverse_negative_penalty"):
        low, middle, high = (found[ties][column].to_numpy() for ties in ("pessimistic", "expected", "optimistic"))
        assert (low <= middle + 1e-12).all()
        assert (middle <= high + 1e-12).all()
    order = rng.permutation(num_rows)
    moved = evaluate_distances(
        distance[:, order], [1] * 4, labels[order], None, None, replace(PLAIN, average_precision=form)
    )
    pd.testing.assert_frame_equal(moved.per_query, found["expected"], check_exact=True)


def test_a_threshold_is_a_rule_of_average_precision_alone() -> None:
    distance = np.random.default_rng(0).integers(0, 5, (20, 40))
    labels = np.arange(40) % 5
    found, wanted = (
        evaluate_distances(distance, np.arange(20) % 5, labels, None, None, replace(PLAIN, ties=ties))
        for ties in ("threshold", "expected")
    )
    columns = ["first_hit", "inverse_negative_penalty"]
    pd.testing.assert_frame_equal(found.per_query[columns], wanted.per_query[columns])
    pd.testing.assert_frame_equal(found.cmc(), wanted.cmc())
    assert (found.per_query["average_precision"] != wanted.per_query["average_precision"]).all()


def test_cmc_stays_at_its_last_value_beyond_the_gallery() -> None:
    result = evaluate_distances(
        np.array([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3]]),
        list("ax"),
        list("axa"),
        [0, 0],
        [1, 1, 0],
        ReidProtocol(ranks=(1, 2, 3, 20)),
    )
    assert [values(result)[f"rank-{rank}"] for rank in (1, 2, 3, 20)] == [0, 1, 1, 1]
    assert (np.diff(result.cmc(30)["value"]) >= 0).all()


def test_mean_over_queries_and_over_identities() -> None:
    distance = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])  # "a" is first three times, right for two queries
    who: tuple[list[str], list[str], None, None] = (["a", "a", "b"], ["a", "b"], None, None)
    by_query = evaluate_distances(distance, *who, PLAIN)
    by_identity = evaluate_distances(distance, *who, replace(PLAIN, average="identity"))
    assert by_query.metrics["mAP"].value == pytest.approx((1 + 1 + 0.5) / 3)
    assert by_identity.metrics["mAP"].value == pytest.approx((1 + 0.5) / 2)
    assert by_identity.metrics["rank-1"].value == pytest.approx(0.5)
    assert by_identity.cmc(1)["value"].tolist() == pytest.approx([0.5])
    assert "mean over identities" in by_identity.metrics["mAP"].protocol


def test_unmatched_queries_are_skipped_or_zero() -> None:
    distance = np.array([[1.0, 2.0], [1.0, 2.0]])
    skipped = evaluate_distances(distance, ["a", "x"], ["a", "b"], None, None, PLAIN)
    zero = evaluate_distances(distance, ["a", "x"], ["a", "b"], None, None, replace(PLAIN, unmatched="zero"))
    assert (skipped.metrics["mAP"].value, skipped.metrics["mAP"].n, skipped.num_skipped) == (1, 1, 1)
    assert (zero.metrics["mAP"].value, zero.metrics["rank-1"].value, zero.metrics["mINP"].value) == (0.5, 0.5, 0.5)
    assert (zero.metrics["mAP"].n, zero.num_skipped) == (2, 0)
    assert zero.worst_queries(1).index.tolist() == [1]
    assert skipped.worst_queries(5).index.tolist() == [0]


# --- invariances -----------------------------------------------------------------------------------------------------


def crowd(seed: int, dtype: type = np.float64) -> tuple[Any, Any, Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((12, 8))
    query_labels, gallery_labels = rng.integers(0, 12, 45), rng.integers(0, 14, 150)
    query = centre[query_labels] + rng.standard_normal((45, 8))
    gallery = centre[gallery_labels % 12] + rng.standard_normal((150, 8))
    gallery[100:] = gallery[rng.integers(0, 100, 50)]  # the same picture under another name or camera
    return (
        query.astype(dtype),
        gallery.astype(dtype),
        query_labels,
        gallery_labels,
        rng.integers(1, 5, 45),
        rng.integers(1, 5, 150),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", ["expected", "threshold", "optimistic", "pessimistic"])
def test_the_order_of_the_gallery_does_not_matter(ties: Any, dtype: type) -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(3, dtype)
    protocol = ReidProtocol(ties=ties)
    first = evaluate_reid(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, protocol)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(gallery))
        again = evaluate_reid(
            query, gallery[order], query_labels, gallery_labels[order], query_cameras, gallery_cameras[order], protocol
        )
        assert values(again) == pytest.approx(values(first), abs=1e-12)


def test_equal_gallery_rows_tie_wherever_they_stand() -> None:
    # 38 rows of 195 numbers: a size at which a float32 matrix product rounds equal columns differently
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((38, 195)).astype(np.float32)
    gallery[5::3] = gallery[0]
    query = gallery[[0]] + 0.5 * rng.standard_normal((7, 195)).astype(np.float32)
    labels = ["a" if row == 37 else f"b{row}" for row in range(38)]
    labels[0], labels[5] = "c", "a"
    result = evaluate_reid(query, gallery, ["a"] * 7, labels, None, None, PLAIN)
    num_copies = 1 + len(range(5, 38, 3))
    assert result.per_query["num_positives"].tolist() == [2] * 7
    assert result.per_query["first_hit"].to_numpy() == pytest.approx((num_copies + 1) / 2)


def test_blocks_of_any_size_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given_all = crowd(5)
    whole = evaluate_reid(*given_all, ReidProtocol())
    for rows, cells in ((1, 1), (7, 400), (44, 10**6)):
        monkeypatch.setattr(reid_ranking, "_BLOCK_BYTES", 8 * 150 * rows)
        monkeypatch.setattr(reid_ranking, "_FEWEST_ROWS", 1)
        monkeypatch.setattr(reid_ranking, "_COUNTED_CELLS", cells)
        parts = evaluate_reid(*given_all, ReidProtocol())
        assert values(parts) == pytest.approx(values(whole), abs=1e-12)
        pd.testing.assert_frame_equal(parts.per_query, whole.per_query, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_embeddings_and_their_distances_give_the_same(seed: int) -> None:
    query, gallery, *labels_and_cameras = crowd(seed)
    who: Any = labels_and_cameras
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery)]
    distinct = np.unique(unit[1], axis=0, return_inverse=True)
    distance = (2 - 2 * unit[0] @ distinct[0].T)[:, distinct[1].ravel()]
    direct = evaluate_reid(query * 3, gallery, who[0], who[1], who[2], who[3], ReidProtocol())
    given_matrix = evaluate_distances(distance, who[0], who[1], who[2], who[3], ReidProtocol())
    assert values(direct) == pytest.approx(values(given_matrix), abs=1e-12)
    assert "cosine similarity" in direct.metrics["mAP"].protocol
    assert "distances as given" in given_matrix.metrics["mAP"].protocol


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6),
        min_size=1,
        max_size=3,
    ),
    positives=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
)
def test_counting_in_bins_is_exact_at_any_range(rows: list[list[float]], positives: list[int]) -> None:
    similarity = np.array(rows, dtype=np.float32)
    row_P = np.repeat(np.arange(len(rows)), len(positives))
    columns = [sorted(positives, key=lambda column: -row[column]) for row in similarity]
    column_P = np.array(columns).ravel()
    block = reid_ranking.Block(0, similarity, row_P, column_P)
    nearer, tied = reid_ranking.count_nearer(block)
    value = block.value_P[:, None]
    assert nearer.tolist() == (similarity[row_P] > value).sum(axis=1).tolist()
    assert tied.tolist() == (similarity[row_P] == value).sum(axis=1).tolist()


# --- labels, cameras, junk -------------------------------------------------------------------------------------------


def test_junk_for_everybody_is_removed_and_distractors_stay() -> None:
    distance = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    result = evaluate_distances(
        distance,
        ["5", "-1"],
        np.array([-1, "0", 5, 6], object),
        ["1", "1"],
        [2, 2, 2, 2],
        ReidProtocol(ranks=(1, 2), far=()),
    )
    assert values(result) == {"mAP": 0.5, "rank-1": 0.0, "rank-2": 1.0, "mINP": 0.5}
    assert (result.num_junk_gallery, result.num_junk_queries, result.num_distractors, result.num_gallery) == (
        1,
        1,
        2,
        3,
    )
    assert result.ranked_list(0)["gallery"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "read",
    [
        lambda labels: labels,
        lambda labels: [torch.tensor(label) for label in labels],
        lambda labels: torch.tensor(labels),
        lambda labels: [str(label).encode() for label in labels],
        lambda labels: [np.int32(label) for label in labels],
        lambda labels: pd.array(labels, dtype="Int64"),
    ],
    ids=["int", "torch scalars", "tensor", "bytes", "numpy scalars", "pandas"],
)
def test_junk_is_junk_however_labels_are_held(read: Callable[[list[int]], Any]) -> None:
    result = evaluate_distances(np.array([[0.1, 0.2]]), read([5]), read([-1, 5]), None, None, PLAIN)
    assert (result.metrics["mAP"].value, result.num_junk_gallery) == (1.0, 1)


def test_labels_beyond_float32_and_leading_zeros_stay_apart() -> None:
    result = evaluate_distances(
        np.array([[0.2, 0.1]]), [16777217], np.array([16777217, 16777216]), None, None, replace(PLAIN, ranks=(1,))
    )
    assert result.metrics["rank-1"].value == 0
    with pytest.raises(ValueError, match="none of the query labels"):
        evaluate_distances(np.array([[0.2]]), ["007"], [7], None, None, PLAIN)


def test_cameras_may_be_numbers_text_or_nullable() -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(1)
    numbers = evaluate_reid(
        query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, ReidProtocol()
    )
    mixed = evaluate_reid(
        query,
        gallery,
        [str(label) for label in query_labels],
        pd.Series(gallery_labels.astype(str), dtype="str"),
        pd.array(query_cameras, dtype="Int64"),
        gallery_cameras.astype(str),
        ReidProtocol(),
    )
    assert values(numbers) == values(mixed)


def test_one_camera_for_all_is_named_as_the_cause() -> None:
    with pytest.raises(ValueError, match=r"2 of 3 queries.*own camera \(cameras there: 4\).*junk='none'"):
        evaluate_distances(np.ones((3, 2)), ["a", "b", "c"], ["a", "b"], [4, 4, 4], [4, 4], ReidProtocol())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery_ND": np.zeros((0, 2)), "gallery_labels": [], "gallery_cameras": []}, "no gallery row"),
        ({"query_labels": ["-1", "-1"]}, r"no query row to evaluate: 2 were given, 2 of them junk"),
        ({"query_ND": np.array([[1.0, np.nan], [1, 0]])}, "row 0 of query_ND is not finite"),
        ({"gallery_ND": np.array([[1.0, 0], [0, 0]])}, "row 1 of gallery_ND has length zero"),
        ({"gallery_ND": np.ones((2, 3))}, "widths 2 and 3"),
        ({"gallery_ND": np.ones(2)}, r"gallery_ND must have two axes.*\(2,\)"),
        ({"query_labels": ["a"]}, "query_labels must have one label for each of 2 rows"),
        ({"query_labels": [1.0, 2.0]}, r"row 0 of query_labels is 1.0 \(float\): a label is text or a whole number"),
        ({"gallery_labels": ["a", None]}, "row 1 of gallery_labels has no label"),
        ({"gallery_cameras": None}, "gallery_cameras has no camera for 2 of 2 rows"),
        ({"query_cameras": [1, None]}, r"no camera for 1 of 2 rows \(first: 1\)"),
        ({"query_cameras": [1, 2.5]}, "a camera is text or a whole number"),
        ({"query_cameras": [1]}, "one camera for each of 2 rows"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    given_all: dict[str, Any] = {
        "query_ND": np.eye(2),
        "gallery_ND": np.eye(2),
        "query_labels": ["a", "b"],
        "gallery_labels": ["a", "b"],
        "query_cameras": [1, 1],
        "gallery_cameras": [2, 2],
    }
    with pytest.raises(ValueError, match=message):
        evaluate_reid(**(given_all | change), protocol=ReidProtocol())


def test_distances_must_be_finite_numbers() -> None:
    with pytest.raises(ValueError, match=r"distance_QG\[0, 1\] is inf"):
        evaluate_distances(np.array([[1.0, np.inf]]), ["a"], ["a", "b"], None, None, PLAIN)
    with pytest.raises(ValueError, match="queries by gallery rows"):
        evaluate_distances(np.array([1.0]), ["a"], ["a"], None, None, PLAIN)


def test_whole_numbers_as_distances_are_not_rounded() -> None:
    distance = np.array([[2**24 + 1, 2**24]])
    assert evaluate_distances(distance, ["a"], ["a", "b"], None, None, PLAIN).metrics["rank-1"].value == 0


# --- what stands beside the numbers ----------------------------------------------------------------------------------


def test_each_pair_of_cameras_is_a_search_in_that_camera_alone() -> None:
    query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras = crowd(2)
    result = evaluate_reid(query, gallery, query_labels, gallery_labels, query_cameras, gallery_cameras, ReidProtocol())
    table = result.per_camera_pair.set_index(["query_camera", "gallery_camera"])
    assert len(table) == 16
    assert table["num_queries"][("3", "3")] == 0
    assert np.isnan(table["mAP"][("3", "3")])
    asked, seen = query_cameras == 2, gallery_cameras == 4
    alone = evaluate_reid(query[asked], gallery[seen], query_labels[asked], gallery_labels[seen], None, None, PLAIN)
    row = table.loc[[("2", "4")]].iloc[0]
    assert row["num_queries"] == alone.metrics["mAP"].n
    assert row["mAP"] == pytest.approx(alone.metrics["mAP"].value, abs=1e-12)
    assert row["rank-1"] == pytest.approx(alone.metrics["rank-1"].value, abs=1e-12)


def test_no_camera_no_pairs() -> None:
    assert one_query([0], 3).per_camera_pair.empty


def test_cameras_are_sorted_by_number() -> None:
    result = evaluate_distances(np.ones((1, 3)), ["a"], ["a"] * 3, ["10"], [9, 135, 10], ReidProtocol())
    assert result.per_camera_pair["gallery_camera"].tolist() == ["9", "10", "135"]


def test_ranked_list_marks_what_the_metric_counted() -> None:
    distance = np.array([[0.5, 0.2, 0.1, 0.3, 0.4]])
    result = evaluate_distances(distance, ["a"], list("abaca"), [1], [2, 2, 1, 2, 2], ReidProtocol())
    shown = result.ranked_list(0, 3)
    assert shown["gallery"].tolist() == [2, 1, 3, 4]
    assert shown["mark"].tolist() == ["junk", "wrong", "wrong", "right"]
    assert shown["distance"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert shown["place"].fillna(0).tolist() == [0, 1, 2, 3]
    assert result.per_query["first_hit"].tolist() == [3]
    assert len(result.ranked_list(0, 50)) == 5
    with pytest.raises(ValueError, match="query 1 is not among"):
        result.ranked_list(1)


def test_ranked_list_of_a_query_with_nothing_but_junk() -> None:
    result = evaluate_distances(np.array([[0.2], [0.1]]), ["a", "a"], ["a"], [1, 2], [1], ReidProtocol())
    assert result.ranked_list(0)["mark"].tolist() == ["junk"]
    assert result.ranked_list(0)["place"].isna().all()
    assert result.ranked_list(1)["mark"].tolist() == ["right"]


@pytest.mark.parametrize(
    ("ties", "gallery", "place"),
    [
        ("expected", [0, 2, 1, 3], [1, 2, 2, 4]),
        ("threshold", [0, 2, 1, 3], [1, 2, 2, 4]),
        ("optimistic", [0, 2, 1, 3], [1, 2, 3, 4]),
        ("pessimistic", [0, 1, 2, 3], [1, 2, 3, 4]),
    ],
)
def test_ranked_list_shows_ties_as_they_were_counted(ties: str, gallery: list[int], place: list[float]) -> None:
    shown = one_query([2], 4, [0.1, 0.2, 0.2, 0.3], ties=ties).ranked_list(0, 10)
    assert shown["gallery"].tolist() == gallery
    assert shown["place"].tolist() == place


def test_ranked_lists_place_the_first_right_row_where_the_metric_did() -> None:
    result = evaluate_reid(*crowd(7, np.float32), ReidProtocol(ties="optimistic"))
    for query, first in result.per_query["first_hit"].dropna().items():
        shown = result.ranked_list(int(str(query)), 200)
        assert shown.loc[shown["mark"] == "right", "place"].iloc[0] == first


def test_intervals_resample_individuals() -> None:
    given_all = fixture_b()
    result = evaluate_reid(*given_all, ReidProtocol())
    labels = given_all[2]
    hit = (result.per_query["first_hit"] <= 1).to_numpy(dtype=float)
    wanted = cluster_interval(hit, labels)
    rank_1 = result.metrics["rank-1"]
    assert (rank_1.value, rank_1.low, rank_1.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert rank_1.n == 40


def test_interval_of_map_is_that_of_a_mean_not_of_a_share() -> None:
    rng = np.random.default_rng(0)
    labels = [f"{row:03d}" for row in range(400)]
    # each individual is first or second: average precision 1 or 1/2, whose deviation is half that of a yes or no
    second = rng.random(400) < 0.5
    distance = np.full((400, 400), 9.0)
    distance[np.arange(400), np.arange(400)] = np.where(second, 2.0, 1.0)
    distance[np.arange(400), (np.arange(400) + 1) % 400] = 1.5
    result = evaluate_distances(distance, labels, labels, None, None, PLAIN)
    precision = np.where(second, 0.5, 1.0)
    half = 1.96 * precision.std() / 20
    metric = result.metrics["mAP"]
    assert metric.value == pytest.approx(precision.mean())
    assert (metric.high - metric.low) / 2 == pytest.approx(half, rel=0.1)


def test_one_picture_of_each_individual_and_a_tiny_gallery() -> None:
    result = evaluate_reid(np.eye(3), np.eye(3), list("abc"), list("abc"), None, None, PLAIN)
    assert set(values(result).values()) == {1.0}
    assert all(metric.low < 1 for metric in result.metrics.values())


def test_queries_of_one_individual_and_camera_are_pooled() -> None:
    query = np.array([[1.0, 0], [0, 1], [0, 5], [-1, 0]])
    gallery = np.array([[1.0, 1], [1, 0], [-1, 0.1]])
    who: tuple[list[str], list[str], list[int], list[int]] = (list("aaab"), list("acb"), [1, 1, 2, 1], [3, 3, 3])
    result = evaluate_reid(query, gallery, *who, ReidProtocol(tracklets="mean", far=()))
    assert result.per_query.index.tolist() == [0, 2, 3]
    assert result.per_query["num_images"].tolist() == [2, 1, 1]
    assert result.per_query["first_hit"].tolist() == [1, 1, 1]
    assert result.ranked_list(0, 1)["similarity"].tolist() == pytest.approx([1.0])
    assert "pooled" in result.metrics["mAP"].protocol
    alone = evaluate_reid(query, gallery, *who, ReidProtocol(far=()))
    assert alone.per_query["first_hit"].tolist() == [2, 1, 1, 1]


# --- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"junk": "camera"}, "junk must be one of .*'camera' was given"),
        ({"ties": "random", "average": "class"}, "ties must be.*; average must be"),
        ({"neck": "inside"}, "neck"),
        ({"ranks": ()}, "ranks"),
        ({"ranks": (5, 1)}, "ascending"),
        ({"ranks": (0, 1)}, "from 1"),
        ({"far": (1,)}, "below 1"),
        ({"input_size": (256,)}, r"\(height, width\)"),
        ({"flip": "yes"}, "True or False"),
    ],
)
def test_a_protocol_refuses_what_there_is_not(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReidProtocol(**fields)


def test_a_protocol_is_one_line() -> None:
    protocol = ReidProtocol(
        flip=True, neck="after", input_size=(256, 128), camera_embedding=True, distance="k-reciprocal, k1 20"
    )
    assert protocol.describe() == (
        "same identity in the same camera is junk; step average precision; ties expected (all orders); queries without a match left out; "
        "mean over queries; one picture a query; mean with the mirror image; feature after the neck; 256 x 128 px; "
        "camera embedding; k-reciprocal, k1 20"
    )


def test_each_image_searches_all_the_others() -> None:
    """The same as a camera of its own for each image; tied copies of other images stay, junk rows are left out on both sides."""
    rng = np.random.default_rng(0)
    embedding_ND = rng.choice([-1.0, 1.0], (40, 4))  # many equal rows
    labels = [str(number) for number in rng.integers(-1, 8, 40)]
    itself = replace(PLAIN, junk="itself", far=(0.1,))
    ours = evaluate_reid(embedding_ND, embedding_ND, labels, labels, None, None, itself)
    own = np.arange(40)
    same = evaluate_reid(
        embedding_ND, embedding_ND, labels, labels, own, own, replace(itself, junk="same_id_same_camera")
    )
    assert values(ours) == values(same)
    assert ours.metrics["rank-1"].value < 1
    assert "each image searches all the others" in ours.metrics["mAP"].protocol
    marks = ours.ranked_list(int(ours.per_query.index[0]), 5)
    assert marks.loc[marks["mark"] == "junk", "gallery"].tolist() == [ours.per_query.index[0]]
    distance_QG = -(embedding_ND @ embedding_ND.T)
    assert values(evaluate_distances(distance_QG, labels, labels, None, None, itself)) == values(ours)


def test_itself_wants_the_same_rows_on_both_sides() -> None:
    itself, eye = replace(PLAIN, junk="itself"), np.eye(3)
    with pytest.raises(ValueError, match="found 2 queries and 3 gallery rows"):
        evaluate_reid(eye[:2], eye, ["a", "a"], ["a", "a", "b"], None, None, itself)
    with pytest.raises(ValueError, match="3 gallery rows of other labels"):
        evaluate_reid(eye, eye, ["a", "a", "b"], ["a", "b", "a"], None, None, itself)
    with pytest.raises(ValueError, match="every label has one image"):
        evaluate_reid(eye, eye, ["a", "b", "c"], ["a", "b", "c"], None, None, itself)
    with pytest.raises(ValueError, match="tracklets='none'"):
        replace(itself, tracklets="mean")
