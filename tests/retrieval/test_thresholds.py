from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval.leave_out import ask_queries, false_accept_table
from workbench.retrieval.open_set import OpenSetProtocol, OpenSetResult, evaluate_open_set
from workbench.retrieval.open_set_search import measure_similarities
from workbench.retrieval.threshold_choice import Asked, Strangers, choose_thresholds, follow, smallest_within
from workbench.retrieval.thresholds import ThresholdSheet, threshold_sheet

PROTOCOL = OpenSetProtocol(kind="both", num_replicates=100, far=(0.05, 0.001))


def _evaluate(num_classes: int = 24, per_group: int = 3, **changes: object) -> OpenSetResult:
    rng = np.random.default_rng(3)
    label_C = np.array([f"{c:03d}" for c in range(num_classes)], object)
    groups = {label: f"g{c // per_group}" for c, label in enumerate(label_C)}
    group_GD = rng.normal(size=(num_classes, 8))
    centre_CD = group_GD[np.arange(num_classes) // per_group] + 0.7 * rng.normal(size=(num_classes, 8))
    reference_ND = centre_CD.repeat(4, axis=0) + 0.5 * rng.normal(size=(4 * num_classes, 8))
    query_QD = centre_CD.repeat(6, axis=0) + 0.5 * rng.normal(size=(6 * num_classes, 8))
    protocol = replace(PROTOCOL, **changes)  # type: ignore[arg-type]
    return evaluate_open_set(reference_ND, label_C.repeat(4), query_QD, label_C.repeat(6), protocol, groups)


@pytest.fixture(scope="module")
def result() -> OpenSetResult:
    return _evaluate()


@pytest.fixture(scope="module")
def sheet(result: OpenSetResult) -> ThresholdSheet:
    return threshold_sheet(result, gallery_sizes=[3, 6, 12, 5000])


def test_the_smallest_threshold_by_hand() -> None:
    values = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
    assert smallest_within(values, 0.2) == np.float32(0.9)  # one of four is too many: none is above
    assert smallest_within(values, 0.25) == 0.5  # the 0.9 is above, the two 0.5 are not
    assert smallest_within(values, 0.5) == 0.5  # three would be above 0.1
    assert smallest_within(values, 0.75) == np.float32(0.1)


def _alone(values: list[float]) -> Strangers:
    """One query of each class, none near another class."""
    value_V = np.array(values, np.float64)
    none = np.full((len(values), 1), -1)
    return Strangers(value_V, np.arange(len(values)), none, value_V[:, None])


def test_the_choice_of_ten_classes_by_hand() -> None:
    # Of 10 classes 3 may be accepted. With 8 out of it, 2 of the other 9 lie above 8; at that rate (2/9) of all 10, 2.22
    # lie above the threshold: between the third largest value (2 above) and the fourth (3 above).
    strangers = _alone([3, 10, 1, 8, 5, 9, 7, 2, 6, 4])
    three, one, half, none = choose_thresholds(strangers, [0.3, 0.1, 0.5, 0.05])
    assert three.threshold == pytest.approx(8 - 2 / 9)
    assert sorted(strangers.value_V[three.accepted_V]) == [8, 9, 10]
    assert one.threshold == 10  # the largest of the other nine never is above itself
    assert half.threshold == pytest.approx(6 - 4 / 9)
    assert [three.resolved, one.resolved, half.resolved, none.resolved] == [True, True, True, False]
    assert none.threshold == 10


def test_a_class_that_surpasses_all_others_leaves_its_share_unresolved() -> None:
    # Three of twenty queries are one class's, above all others: without it the threshold is 0.8 at any rate below 3/20.
    value_V = np.array([0.95, 0.9, 0.85, 0.8, *np.linspace(0.1, 0.7, 16)])
    class_V, none = np.array([0, 0, 0, *range(1, 18)]), np.full((20, 1), -1)
    low, high = choose_thresholds(Strangers(value_V, class_V, none, value_V[:, None]), [0.1, 0.15])
    assert (low.threshold, low.resolved, high.resolved) == (0.95, False, True)
    assert low.accepted_V.tolist() == high.accepted_V.tolist() == [True] * 3 + [False] * 17


def test_one_class_cannot_judge_itself() -> None:
    value_V = np.array([0.1, 0.2])
    (choice,) = choose_thresholds(Strangers(value_V, np.zeros(2, int), np.full((2, 1), -1), value_V[:, None]), [0.5])
    assert (choice.threshold, choice.resolved) == (0.2, False)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_shares_are_those_of_the_other_classes_without_the_class(data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 12))
    pick = st.lists(st.integers(0, 3), min_size=num, max_size=num)
    class_V = np.array(data.draw(pick))
    rival_VJ = np.stack([(class_V + 1) % 4, np.where(np.array(data.draw(pick)) > 1, (class_V + 2) % 4, -1)], axis=1)
    value_V, *lower = (np.array(data.draw(pick), float) for _ in range(3))
    strangers = Strangers(value_V, class_V, rival_VJ, np.stack(lower, axis=1) - 1)
    for found, own, value in zip(strangers.share_above(), class_V, value_V, strict=True):
        above = []
        for other in range(num):
            if class_V[other] != own:
                seen = value_V[other]
                for rival, without in zip(rival_VJ[other], strangers.without_VJ[other], strict=True):
                    seen = without if rival == own else seen
                above.append(seen >= value)
        assert found == (np.mean(above) if above else 0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 4)), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.2, 1 / 3, 0.5]),
)
def test_a_choice_never_accepts_more_than_its_rate_of_those_who_choose(rows: list[tuple[int, int]], far: float) -> None:
    value_V, class_V = np.array(rows).T
    (choice,) = choose_thresholds(Strangers(value_V, class_V, np.full((len(rows), 1), -1), value_V[:, None]), [far])
    assert (value_V > choice.threshold).mean() <= far + 1e-12
    assert smallest_within(value_V, far) <= choice.threshold <= value_V.max()
    if choice.resolved:
        assert choice.accepted_V.mean() <= far + 1e-12


def _products(rng: np.random.Generator, num_known: int, num_new: int) -> list[np.ndarray]:
    """References and queries of the known products, then queries of new ones; labels of each."""
    centre_CD = rng.normal(size=(num_known + num_new, 16))
    counts = ((slice(num_known), 4), (slice(num_known), 10), (slice(num_known, None), 3))
    arrays = []
    for part, times in counts:
        label_N = np.array([f"{c:04d}" for c in np.arange(len(centre_CD))[part]], object).repeat(times)
        arrays += [centre_CD[part].repeat(times, axis=0) + 0.5 * rng.normal(size=(len(label_N), 16)), label_N]
    return arrays


@pytest.mark.parametrize("statistic", ["nearest", "margin", "mean_k"])
def test_new_products_are_accepted_at_the_rate(statistic: Any) -> None:
    fars, num_runs, num_known = (0.01, 0.05), 200, 60
    protocol = OpenSetProtocol(statistic, k=3, kind="random", far=fars)
    accepted_RF = np.empty((num_runs, 2))
    for run in range(num_runs):
        reference_ND, label_N, query_QD, label_Q, new_UD, label_U = _products(
            np.random.default_rng([17, run]), num_known, 200
        )
        both = measure_similarities(
            reference_ND, label_N, np.concatenate([query_QD, new_UD]), np.concatenate([label_Q, label_U]), protocol
        )
        everything, known_Q = np.ones(num_known, bool), both.class_Q < num_known
        choices = choose_thresholds(both.strangers(everything).take(known_Q), fars)
        new_U = both.answers(everything).statistic_Q[~known_Q]
        accepted_RF[run] = [(new_U > choice.threshold).mean() for choice in choices]
    # three standard errors of the mean over runs, each with products of its own: 0.15 and 0.4 points for "nearest",
    # where the plain quantile accepts 1.4 and 5.6 %, and that with a quarter of the classes out at once 1.8 and 7.1 %
    error_F = 3 * accepted_RF.std(axis=0, ddof=1) / np.sqrt(num_runs)
    assert (error_F < [0.002, 0.005]).all()
    assert (np.abs(accepted_RF.mean(axis=0) - fars) < error_F).all(), accepted_RF.mean(axis=0)


@pytest.mark.parametrize("changes", [{}, {"statistic": "margin"}, {"statistic": "mean_k", "k": 3, "shots": 2}])
def test_strangers_are_what_smaller_galleries_answer(changes: dict[str, Any]) -> None:
    similarities = _evaluate(num_classes=9, kind="random", **changes).similarities
    gallery_C = np.arange(9) < 7  # queries of the other two classes are asked as well
    found = similarities.strangers(gallery_C, 1)
    for query, own in enumerate(similarities.class_Q):
        rest_C = gallery_C & (np.arange(9) != own)
        assert found.value_V[query] == similarities.answers(rest_C, 1).statistic_Q[query]
        for other in np.flatnonzero(rest_C):
            smaller = similarities.answers(rest_C & (np.arange(9) != other), 1).statistic_Q[query]
            named = found.rival_VJ[query] == other
            assert (found.without_VJ[query][named][0] if named.any() else found.value_V[query]) == smaller
        assert own not in found.rival_VJ[query]


def test_the_sheet_and_the_gallery_offer_the_same_thresholds() -> None:
    reference_ND, label_N, query_QD, label_Q, new_UD, label_U = _products(np.random.default_rng(5), 24, 3)
    query_QD, label_Q = (
        np.concatenate([query_QD, new_UD]),
        np.concatenate([label_Q, label_U]),
    )  # some without references
    fars = (0.01, 0.02, 0.05, 0.1)
    protocol = replace(PROTOCOL, kind="random", far=fars)
    sheet = threshold_sheet(evaluate_open_set(reference_ND, label_N, query_QD, label_Q, protocol))
    unit_ND = (reference_ND / np.linalg.norm(reference_ND, axis=1, keepdims=True)).astype(np.float32)
    kept = false_accept_table(ask_queries(query_QD, label_Q.tolist(), unit_ND, label_N.tolist()), "how")
    offered = {row["rate"]: row["threshold"] for row in kept if row["rate"] in fars}
    assert {0.05, 0.1} <= set(offered)
    for far in fars:
        assert sheet.use_resolved[far] == (far in offered)
        assert sheet.use[far] == pytest.approx(offered.get(far, sheet.use[far]), abs=1e-6)


def test_weights_of_classes_move_the_threshold() -> None:
    strangers = Strangers(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1]), np.full((4, 1), -1), np.ones((4, 1)))
    asked = Asked(strangers.value_V, None, strangers.class_V)
    weight_RC = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0]])
    value, replicate, resolved = follow(strangers, [asked], [0.25], weight_RC)
    # above 3 lie 1/4, 3/8 and 1/8 of the weight; with weights 3 and 1 also above 2 (1/4)
    assert replicate[:, 0, 0].tolist() == [3.0, 4.0, 2.0]
    assert replicate[:, 0, 1].tolist() == [0.25, 0.0, 0.25]
    # the second class lies above all of the first: what the first chooses says nothing about it
    assert (value.tolist(), resolved) == ([[4.0, 0.0]], [False])


def test_the_table_is_that_of_loops(result: OpenSetResult, sheet: ThresholdSheet) -> None:
    found: dict[tuple[float, str, str], list[float]] = {}
    thresholds: dict[float, list[float]] = {0.05: [], 0.001: []}
    for split in result.held_out:
        answers = result.answers[result.answers["split"] == split.number]
        known_Q = (answers["kind"] == "known").to_numpy()
        chosen = result.similarities.strangers(split.gallery_C, split.number).take(
            known_Q
        )  # no held-out class has a say
        for far, choice in zip(PROTOCOL.far, choose_thresholds(chosen, PROTOCOL.far), strict=True):
            threshold = choice.threshold
            thresholds[far].append(float(threshold))
            accepted = answers["statistic"] > threshold
            known = answers["kind"] == "known"
            wrong = 1 - answers["right"]
            for outcome, hits in (
                ("accepted right", accepted * answers["right"]),
                ("accepted wrong", accepted * wrong),
                ("refused", ~accepted),
            ):
                found.setdefault((far, "known", outcome), []).append(1000 * float(hits[known].mean()))
            for kind, rows in (("all", ~known), ("near", answers["kind"] == "near"), ("far", answers["kind"] == "far")):
                key = (far, f"unknown, {kind}", "accepted")
                found.setdefault(key, []).append(1000 * float(accepted[rows].mean()))
    table = sheet.table.set_index(["far", "queries", "outcome"])
    assert set(table.index) == set(found)
    for row in sheet.table.to_dict("records"):
        assert row["per_1000"] == pytest.approx(np.mean(found[row["far"], row["queries"], row["outcome"]]), abs=1e-6)
        assert row["threshold"] == pytest.approx(np.mean(thresholds[row["far"]]))
        assert row["low"] <= row["per_1000"] <= row["high"]
    known = sheet.table[sheet.table["queries"] == "known"].groupby("far")["per_1000"].sum()
    assert known.to_numpy() == pytest.approx([1000, 1000])
    metric = sheet.metrics["threshold/FAR=5%/unknown, near accepted"]
    assert metric.value == pytest.approx(np.mean(found[0.05, "unknown, near", "accepted"]) / 1000)
    assert "verified on classes held out" in metric.protocol


def test_what_cannot_be_resolved_is_said(sheet: ThresholdSheet) -> None:
    resolved = sheet.table.drop_duplicates("far").set_index("far")
    assert resolved["num_chosen_on"].tolist() == [108, 108]  # 18 known classes of 6 queries
    assert resolved["resolved"].tolist() == [True, False]
    assert (
        "NOT RESOLVED: 0.001 cannot be told from 108 queries"
        in sheet.metrics["threshold/FAR=0.1%/known refused"].protocol
    )
    assert sheet.use_resolved == {0.05: True, 0.001: False}
    read = sheet.for_reading()
    assert read["false accepts wanted"].tolist() == ["0.05", "0.001 (not resolved: 108 queries)"]
    assert "of 1,000 unknown, far: accepted" in read
    assert read["threshold to use"].tolist() == [f"{sheet.use[far]:.4f}" for far in (0.05, 0.001)]


def test_the_threshold_rises_with_the_gallery(sheet: ThresholdSheet) -> None:
    growth = sheet.growth
    assert growth["gallery_classes"].drop_duplicates().tolist() == [3, 6, 12, 18]
    for _, rows in growth.groupby("far"):
        # the same unknown queries, and nothing can get less similar to a larger gallery
        assert rows["threshold"].iloc[-1] > rows["threshold"].iloc[0]
        assert rows["kept_false_accepts"].is_monotonic_increasing
        assert rows["kept_false_accepts"].iloc[-1] > rows["false_accepts"].iloc[-1]
        assert rows["kept_false_accepts"].iloc[0] == rows["false_accepts"].iloc[0]
        assert (rows["threshold_low"] < rows["threshold"]).all()
        assert (rows["threshold"] < rows["threshold_high"]).all()
    for name in ("false_accepts", "kept_false_accepts", "accepted_right"):
        assert ((growth[f"{name}_low"] <= growth[name]) & (growth[name] <= growth[f"{name}_high"])).all()
        assert growth[name].between(0, 1).all()
    # the queries of all known classes choose at every size: the last row is that of the table
    last = growth[growth["gallery_classes"] == 18].set_index("far")
    table = sheet.table[sheet.table["queries"] == "unknown, all"].set_index("far")
    assert (1000 * last["false_accepts"]).to_numpy() == pytest.approx(table["per_1000"].to_numpy())
    assert last["threshold"].to_numpy() == pytest.approx(table["threshold"].to_numpy())
    assert last["n"].tolist() == table["n"].tolist()
    assert (growth["num_chosen_on"] == 108).all()
    assert growth.set_index(["gallery_classes", "far"])["resolved"].loc[18].tolist() == [True, False]


def test_sizes_of_small_and_large_galleries() -> None:
    small = threshold_sheet(_evaluate(num_classes=8, kind="random"))
    assert small.growth["gallery_classes"].drop_duplicates().tolist() == [2, 5, 6]
    large = threshold_sheet(_evaluate(num_classes=32, kind="random"))
    assert large.growth["gallery_classes"].drop_duplicates().tolist() == [10, 20, 24]


def test_one_held_out_class_is_enough() -> None:
    found = threshold_sheet(_evaluate(num_classes=4, kind="random"))
    assert found.growth["gallery_classes"].drop_duplicates().tolist() == [2, 3]
    assert {"known", "unknown, all"} <= set(found.table["queries"])


def test_gallery_sizes_without_meaning_are_refused(result: OpenSetResult) -> None:
    # a class is out of the gallery when it is asked: one more than the statistic needs
    with pytest.raises(ValueError, match="at least 2, found"):
        threshold_sheet(result, gallery_sizes=[1])
    with pytest.raises(ValueError, match="at least 3, found"):
        threshold_sheet(_evaluate(statistic="margin"), gallery_sizes=[2])
    with pytest.raises(ValueError, match="at least 2 classes in the gallery, found 1"):
        result.similarities.strangers(np.arange(24) < 1)


def test_the_sheet_of_a_margin_and_of_few_shots() -> None:
    for found in (
        threshold_sheet(_evaluate(statistic="margin")),
        threshold_sheet(_evaluate(statistic="mean_k", k=3, shots=2)),
    ):
        assert np.isfinite(found.table["threshold"]).all()
        assert np.isfinite(found.growth["threshold"]).all()
