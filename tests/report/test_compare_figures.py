import numpy as np
import pandas as pd
import pytest

from workbench.report.compare_figures import (
    beside_published,
    cost_against_accuracy,
    paired_differences,
    paired_matrix,
    pareto_front,
    told_apart,
    variants_with_seeds,
)
from workbench.report.published import published_like
from workbench.report.spread_figures import spread_before_after

GROUPED = pd.DataFrame(
    [("A", 2, 0.75, 0.5, 0.9, 40), ("B", 1, 0.5, 0.25, 0.75, 40)],
    columns=["variant", "num_seeds", "value", "low", "high", "n"],
)
RUNS = pd.DataFrame([("A", 0, 0.7), ("A", 1, 0.8), ("B", 0, 0.5)], columns=["variant", "seed", "value"])


def test_seeds_stand_beside_the_mean_of_their_variant() -> None:
    figure = variants_with_seeds(GROUPED, RUNS, "accuracy@1", "the protocol")
    means, seeds = figure.data
    assert list(means.x) == [0.75, 0.5]
    assert list(means.error_x.array) == pytest.approx([0.15, 0.25])
    assert list(seeds.x) == [0.7, 0.8]
    assert {round(y) for y in seeds.y} == {1}
    assert list(figure.layout.yaxis.ticktext) == ["A, 2 seeds", "B"]
    assert "the protocol" in figure.layout.title.subtitle.text
    assert "n = 40" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="at least one row"):
        variants_with_seeds(GROUPED.iloc[:0], RUNS, "accuracy@1")


def test_pairs_that_differ_are_filled_and_others_hollow() -> None:
    pairs = pd.DataFrame(
        [("A", "B", 0.2, 0.1, 0.3, 40, 0.01), ("A", "C", -0.1, -0.3, 0.1, 40, 0.3), ("B", "C", np.nan, np.nan, np.nan, 0, np.nan)],
        columns=["first", "second", "difference", "low", "high", "n", "p_holm"],
    )  # fmt: skip
    figure = paired_differences(pairs, "accuracy@1", "how")
    sure, unsure = figure.data
    assert [*sure.x, *sure.y] == pytest.approx([20, 1])
    assert [*unsure.x, *unsure.y] == pytest.approx([-10, 2])
    assert unsure.marker.symbol == "diamond-open"
    assert figure.layout.shapes[0].x0 == 0
    assert list(figure.layout.yaxis.ticktext) == ["A less B", "A less C"]
    assert "2 pairs" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="queries in common"):
        paired_differences(pairs.iloc[2:], "accuracy@1")


def test_many_pairs_stand_in_one_half_of_a_matrix_the_best_first() -> None:
    pairs = pd.DataFrame(
        [("<b>A", "B", 0.01, -0.02, 0.04, 40, 0.6), ("<b>A", "C", -0.03, -0.05, -0.01, 40, 0.01),
         ("B", "C", -0.04, -0.05, -0.03, 40, 0.02), ("B", "D", np.nan, np.nan, np.nan, 0, np.nan)],
        columns=["first", "second", "difference", "low", "high", "n", "p_holm"],
    )  # fmt: skip
    figure = paired_matrix(pairs, "accuracy@1", "how")
    # mean leads by hand: C (3 + 4) / 2, A (1 - 3) / 2, B (-1 - 4) / 2
    assert list(figure.layout.yaxis.ticktext) == ["1  C", "2  &lt;b&gt;A", "3  B"]
    (heat,) = figure.data
    cells = {(row, column): text for row, column, text in zip(heat.y, heat.x, heat.text, strict=True)}
    assert cells == {
        (1, 2): "<b>+3.0 *</b><br>[1.0, 5.0]",
        (1, 3): "<b>+4.0 *</b><br>[3.0, 5.0]",
        (2, 3): "+1.0<br>[-2.0, 4.0]",
    }
    assert sorted(heat.z) == pytest.approx([1, 3, 4])
    assert heat.zmin == -heat.zmax
    assert figure.layout.meta == {"min_width": 220 + 2 * 70}, "names and two columns"
    assert "n = 40 queries, 3 pairs" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="queries in common"):
        paired_matrix(pairs.iloc[3:], "accuracy@1")


def test_pareto_front_by_hand() -> None:
    cost, value = np.array([1, 2, 2, 3, 4, 1, np.nan]), np.array([0.5, 0.7, 0.6, 0.7, 0.9, 0.5, 1.0])
    assert pareto_front(cost, value).tolist() == [True, True, False, False, True, True, False]
    assert pareto_front(np.array([]), np.array([])).tolist() == []


def test_pareto_front_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        cost, value = rng.integers(0, 5, 12).astype(float), rng.integers(0, 5, 12).astype(float)
        expected = [
            not any(
                cost[b] <= cost[a] and value[b] >= value[a] and (cost[b] < cost[a] or value[b] > value[a])
                for b in range(12)
            )
            for a in range(12)
        ]
        assert pareto_front(cost, value).tolist() == expected


def test_cost_has_a_panel_a_cost_and_more_images_per_second_are_better() -> None:
    table = GROUPED.assign(seconds=[120.0, 60.0], images_per_s=[10.0, 20.0], peak_memory_mib=[2048.0, 1024.0])
    figure = cost_against_accuracy(table, "accuracy@1", "on cpu")
    fronts = [trace for trace in figure.data if trace.name == "not beaten"]
    assert [list(front.x) for front in fronts] == [[1, 2], [10, 20], [1, 2]]
    assert figure.layout.xaxis2.title.text == "training speed (images/s)"
    dominated = table.assign(images_per_s=[20.0, 10.0], peak_memory_mib=np.nan)
    fronts = [trace for trace in cost_against_accuracy(dominated, "accuracy@1").data if trace.name == "not beaten"]
    assert [list(front.x) for front in fronts] == [[1, 2], [20]]
    with pytest.raises(ValueError, match="a known cost"):
        cost_against_accuracy(table.assign(seconds=np.nan, images_per_s=np.nan, peak_memory_mib=np.nan), "accuracy@1")


def test_published_values_are_matched_by_what_they_are() -> None:
    one = published_like("seen/accuracy@1/shots=1/micro/references=reference:packshot")
    assert sorted(one["value"]) == [0.7718, 0.8280, 0.8490, 0.8770, 0.8860]
    most = published_like("accuracy@1/shots=all/micro")
    nvidia = most[most["data"].str.startswith("NVIDIA")]
    assert sorted(nvidia["value"]) == [0.8587, 0.8777]
    assert all("references_per_class=100" in text for text in nvidia["condition"])
    assert published_like("rank-1")["value"].max() < 1
    assert set(published_like("mAP")["system"]) == {"NVIDIA ReIdentificationNet, ResNet50"}
    assert published_like("accuracy@1/shots=17/micro").empty
    assert published_like("nothing").empty


def test_published_values_are_hollow_and_named() -> None:
    published = published_like("accuracy@1/shots=1/micro")
    figure = beside_published(GROUPED, published, "accuracy@1/shots=1/micro")
    assert [trace.name for trace in figure.data] == ["this comparison", "published"]
    assert sorted(figure.data[1].x) == sorted(published["value"])
    assert np.isnan(np.array(figure.data[1].error_x.array, float)).all()
    with pytest.raises(ValueError, match="found 2 and 0"):
        beside_published(GROUPED, published.iloc[:0], "accuracy@1")


def test_spread_is_an_arrow_from_before_to_after() -> None:
    columns = ["series", "stage", "n", "alignment", "alignment_low", "alignment_high"]
    columns += ["uniformity", "uniformity_low", "uniformity_high"]
    table = pd.DataFrame(
        [("unseen", "before", 90, 1.0, 0.8, 1.2, -1.0, -1.3, -0.7), ("unseen", "after", 90, 0.5, 0.4, 0.6, -3.0, -3.2, -2.8)],
        columns=columns,
    )  # fmt: skip
    figure = spread_before_after(table, "a set", least_uniformity=-3.9)
    before, after = figure.data
    assert (before.marker.symbol, after.marker.symbol) == ("circle-open", "circle")
    assert (list(after.x), list(after.y)) == ([-3.0], [0.5])
    assert list(after.error_y.array) == pytest.approx([0.1])
    (arrow,) = [one for one in figure.layout.annotations if one.showarrow]
    assert (arrow.ax, arrow.ay, arrow.x, arrow.y) == (-1.0, 1.0, -3.0, 0.5)
    assert figure.layout.shapes[0].x0 == -3.9
    assert "n = 90 images" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="before or after"):
        spread_before_after(table.assign(stage="then"))


def test_from_how_many_others_a_variant_is_told_apart() -> None:
    pairs = pd.DataFrame(
        [("a", "b", -0.117, -0.161, -0.072, 0.001), ("c", "a", 0.02, -0.01, 0.05, 0.3), ("c", "b", 0.5, 0.4, 0.6, 0.001),
         ("c", "d", 0.2, 0.1, 0.3, 0.049), ("e", "c", 0.01, 0.005, 0.015, 0.05), ("c", "f", *[np.nan] * 4)],
        columns=["first", "second", "difference", "low", "high", "p_holm"],
    )  # fmt: skip
    assert told_apart(pairs, "c") == (
        "told apart from 2 of 4 others (Holm p < 0.05), percentage points: b +50.0 [40.0, 60.0]; d +20.0 [10.0, 30.0]. "
        "Without a query in common: 1"
    )
    assert told_apart(pairs, "b") == (
        "told apart from 2 of 2 others (Holm p < 0.05), percentage points: a +11.7 [7.2, 16.1]; c -50.0 [-60.0, -40.0]"
    )
    assert told_apart(pairs, "e") == "told apart from 0 of 1 others (Holm p < 0.05)"
    assert told_apart(pairs, "alone") == "nothing to hold it against"
