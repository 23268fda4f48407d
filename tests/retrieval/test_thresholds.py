from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval.open_set import OpenSetProtocol, OpenSetResult, evaluate_open_set
from workbench.retrieval.threshold_choice import Asked, follow, leave_out_in_turn, smallest_within
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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=20),
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    st.sampled_from([0.01, 0.2, 1 / 3, 0.5]),
)
def test_a_chosen_threshold_keeps_its_rate_and_no_smaller_one_does(
    chosen: list[int], checked: list[int], far: float
) -> None:
    x, y = np.array(chosen, np.float32), np.array(checked, np.float32)
    found = follow(Asked(x, None, np.zeros(len(x), int)), [Asked(y, None, np.zeros(len(y), int))], [far], None)
    threshold, share = found[0, 0].tolist()
    assert threshold == smallest_within(x, far)
    assert (x > threshold).mean() <= far + 1e-12
    assert all((x > smaller).mean() > far for smaller in x[x < threshold])
    assert share == pytest.approx((y > threshold).mean())


def test_weights_of_classes_move_the_threshold() -> None:
    asked = Asked(np.array([1.0, 2.0, 3.0, 4.0]), None, np.array([0, 0, 1, 1]))
    weight_RC = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0]])
    found = follow(asked, [asked], [0.25], weight_RC)
    # above 3 lie 1/4, 3/8 and 1/8 of the weight; with weights 3 and 1 also above 2 (1/4)
    assert found[:, 0, 0].tolist() == [3.0, 4.0, 2.0]
    assert found[:, 0, 1].tolist() == [0.25, 0.0, 0.25]


def test_every_class_leaves_the_gallery_once(result: OpenSetResult) -> None:
    gallery_C = result.held_out[1].gallery_C
    asked = leave_out_in_turn(result.similarities, gallery_C, 1)
    assert sorted(asked.class_V) == sorted(np.flatnonzero(gallery_C).repeat(6))
    top_QC = result.similarities.top_DQCk[0, :, :, 0]
    for value, class_ in zip(asked.value_V, asked.class_V, strict=True):
        queries = result.similarities.class_Q == class_
        others = gallery_C & (np.arange(24) != class_)
        # never its own class, so never above the best of the others
        assert value <= top_QC[queries][:, others].max() + 1e-7


def test_the_table_is_that_of_loops(result: OpenSetResult, sheet: ThresholdSheet) -> None:
    found: dict[tuple[float, str, str], list[float]] = {}
    thresholds: dict[float, list[float]] = {0.05: [], 0.001: []}
    for split in result.held_out:
        chosen = np.sort(leave_out_in_turn(result.similarities, split.gallery_C, split.number).value_V)[::-1]
        answers = result.answers[result.answers["split"] == split.number]
        for far in PROTOCOL.far:
            threshold = chosen[int(far * len(chosen) + 1e-9)]
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
    assert "NOT RESOLVED: 0.001 of 108" in sheet.metrics["threshold/FAR=0.1%/known refused"].protocol
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
        assert rows["threshold"].is_monotonic_increasing
        assert rows["kept_false_accepts"].is_monotonic_increasing
        assert rows["kept_false_accepts"].iloc[-1] > rows["false_accepts"].iloc[-1]
        assert rows["kept_false_accepts"].iloc[0] == rows["false_accepts"].iloc[0]
        assert (rows["threshold_low"] < rows["threshold"]).all()
        assert (rows["threshold"] < rows["threshold_high"]).all()
    for name in ("false_accepts", "kept_false_accepts", "accepted_right"):
        assert ((growth[f"{name}_low"] <= growth[name]) & (growth[name] <= growth[f"{name}_high"])).all()
        assert growth[name].between(0, 1).all()
    assert growth["resolved"].tolist() == [far * 18 >= 1 for far in growth["far"]]


def test_sizes_of_small_and_large_galleries() -> None:
    small = threshold_sheet(_evaluate(num_classes=8, kind="random"))
    assert small.growth["gallery_classes"].drop_duplicates().tolist() == [2, 5, 6]
    large = threshold_sheet(_evaluate(num_classes=32, kind="random"))
    assert large.growth["gallery_classes"].drop_duplicates().tolist() == [10, 20, 24]


def test_one_held_out_class_gives_a_sheet_without_growth() -> None:
    found = threshold_sheet(_evaluate(num_classes=4, kind="random"))
    assert found.growth.empty
    assert {"gallery_classes", "threshold", "kept_false_accepts"} <= set(found.growth)
    assert {"known", "unknown, all"} <= set(found.table["queries"])


def test_gallery_sizes_without_meaning_are_refused(result: OpenSetResult) -> None:
    with pytest.raises(ValueError, match="at least 1, found"):
        threshold_sheet(result, gallery_sizes=[0])
    with pytest.raises(ValueError, match="at least 2, found"):
        threshold_sheet(_evaluate(statistic="margin"), gallery_sizes=[1])


def test_the_sheet_of_a_margin_and_of_few_shots() -> None:
    for found in (
        threshold_sheet(_evaluate(statistic="margin")),
        threshold_sheet(_evaluate(statistic="mean_k", k=3, shots=2)),
    ):
        assert np.isfinite(found.table["threshold"]).all()
        assert np.isfinite(found.growth["threshold"]).all()
