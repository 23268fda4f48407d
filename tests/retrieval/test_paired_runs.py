import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from workbench.retrieval.paired_runs import compare_pairs, holm, pair_metrics
from workbench.retrieval.seed_groups import group_metrics, group_seeds, seed_interval
from workbench.retrieval.stats import cluster_interval, mcnemar, paired_difference, paired_p_value
from workbench.runs.hits import Hits


def _hits(values: object, queries: list[str] | None = None, labels: list[str] | None = None) -> Hits:
    hit_DQ = np.atleast_2d(np.asarray(values, np.float32))
    names = queries or [f"q{number}" for number in range(hit_DQ.shape[1])]
    return Hits(np.array(names, object), np.array(labels or [name[0] for name in names], object), hit_DQ)


def test_seed_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, s = 1, t of 2 degrees of freedom 4.302653, half 4.302653 / sqrt(3) = 2.484138.
    assert seed_interval([1, 2, 3]) == pytest.approx((2, -0.484138, 4.484138), abs=1e-6)
    value, low, high = seed_interval([0.7])
    assert value == 0.7
    assert np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="at least one seed"):
        seed_interval([])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.5, np.nan, 0.4])
    assert found[[0, 2]].tolist() == pytest.approx([0.8, 0.8])
    assert np.isnan(found[1])
    assert holm([0.9, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_against_its_definition(values: list[float]) -> None:
    """Rejected at a: all smaller ones are, and it is at most a / (how many are left)."""
    found = holm(values)
    for alpha in (0.01, 0.05, 0.3):
        rejected, left = set(), len(values)
        for place in sorted(range(len(values)), key=lambda one: values[one]):
            if values[place] * left > alpha:
                break
            rejected.add(place)
            left -= 1
        assert {place for place in range(len(values)) if found[place] <= alpha} == rejected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_p_value_and_the_interval_say_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, 40)
    first = (rng.random((3, 40)) < 0.7).astype(float)
    second = (rng.random((3, 40)) < rng.choice([0.3, 0.5, 0.7])).astype(float)
    interval = paired_difference(first, second, labels)
    p = paired_p_value(first, second, labels)
    assert 0 <= p <= 1
    assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
    assert p == paired_p_value(second, first, labels)


def test_p_values_at_the_edges() -> None:
    labels = list("aabbcc")
    one, none = np.ones(6), np.zeros(6)
    assert paired_p_value(one, one, labels) == 1
    assert paired_p_value(one, none, ["a"] * 6) == pytest.approx(0.5)  # one class is one trial: t = 1 of 1 degree
    # Six classes of one query, three of which differ: t = 0.5 / sqrt(unit * 0.5). Their own unit, (1/24 + bootstrap) / (1/4) =
    # 1/5, is above the prior, 1/6; t = 0.5 / sqrt(0.1) of 5 degrees of freedom.
    half = np.array([1, 0, 1, 0, 1, 0.0])
    assert paired_p_value(half, none, list("abcdef")) == pytest.approx(2 * student.sf(0.5 / np.sqrt(0.1), 5), rel=0.05)


def test_a_pair_is_compared_on_the_queries_that_both_have_in_whatever_order() -> None:
    first = _hits([1, 1, 0, 1, 1], ["a1", "a2", "b1", "b2", "c1"])
    second = _hits([0, 1, 0, 1, 0], ["c1", "b2", "b1", "a1", "d1"])
    (row,) = compare_pairs({"A": {0: first}, "B": {0: second}}, protocol="how").to_dict("records")
    # In common a1 b1 b2 c1: A is right on a1 b2 c1, B on a1 b2, so that A is ahead by 1/4.
    assert (row["first"], row["second"], row["seeds"], row["n"]) == ("A", "B", "0", 4)
    assert row["difference"] == pytest.approx(0.25)
    expected = paired_difference([1, 0, 1, 1], [1, 0, 1, 0], list("abbc"))  # type: ignore[arg-type]
    assert (row["low"], row["high"]) == (expected.low, expected.high)
    assert row["p_mcnemar"] == 1
    assert row["note"] == f"2 queries are not in both; interval not to be relied on: {expected.doubt}"
    assert row["doubt"] == expected.doubt != ""
    assert row["protocol"] == "first less second, paired by query; how"


def test_mcnemar_and_holm_over_three_variants() -> None:
    labels = [f"{letter}{number}" for letter in "abcdefgh" for number in range(2)]
    good, poor = np.ones(16), np.zeros(16)
    hits: dict[str, dict[int | None, Hits]]
    hits = {"good": {0: _hits(good, labels)}, "poor": {0: _hits(poor, labels)}, "again": {0: _hits(good, labels)}}
    table = compare_pairs(hits).set_index(["first", "second"])
    assert table.loc[("good", "poor"), "p_mcnemar"] == pytest.approx(2 * 0.5**16)
    assert table.loc[("good", "poor"), "p_mcnemar_holm"] == pytest.approx(3 * 2 * 0.5**16)
    assert table.loc[("poor", "again"), "p_mcnemar_holm"] == pytest.approx(3 * 2 * 0.5**16)
    assert table.loc[("good", "again"), "p_holm"] == 1
    assert table.loc[("good", "again"), "difference"] == 0
    names = pair_metrics(table.reset_index(), "m")
    assert names["difference/m/good less poor"].value == 1
    assert len(names) == 3


def test_seeds_are_paired_and_take_the_place_of_draws() -> None:
    rng = np.random.default_rng(0)
    labels = list("aabbccdd")
    queries = [f"{label}{number}" for number, label in enumerate(labels)]
    a, b = (rng.integers(0, 2, (3, 2, 8)) for _ in range(2))
    hits: dict[str, dict[int | None, Hits]] = {
        "A": {seed: _hits(a[seed], queries) for seed in (0, 1, 2)},
        "B": {seed: _hits(b[seed], queries) for seed in (2, 1)},
    }
    (row,) = compare_pairs(hits).to_dict("records")
    assert row["seeds"] == "1, 2"
    order = np.argsort(queries)
    expected = paired_difference(a[1:].mean(axis=1)[:, order], b[1:].mean(axis=1)[:, order], np.array(labels)[order])
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert row["difference"] == pytest.approx(a[1:].mean() - b[1:].mean())
    assert row["p_mcnemar"] == mcnemar(a[1, 0], b[1, 0])
    assert "2 seeds, mean over draws" in row["protocol"]


def test_no_common_seed_or_query_and_graded_values_are_said() -> None:
    graded = _hits([0.3, 0.7, 0.4], ["a1", "b1", "c1"])
    (row,) = compare_pairs({"A": {0: graded}, "B": {1: _hits([0.1, 0.2, 0.3], ["a1", "b1", "c1"])}}).to_dict("records")
    assert row["difference"] == pytest.approx(0.8 / 3)
    assert np.isnan(row["p_mcnemar"])
    assert "no seed in common" in row["note"]
    (graded_row,) = compare_pairs({"A": {0: graded}, "B": {0: graded}}).to_dict("records")
    assert np.isnan(graded_row["p_mcnemar"])
    (none,) = compare_pairs({"A": {0: graded}, "B": {0: _hits([1], ["z1"])}}).to_dict("records")
    assert (none["n"], none["note"]) == (0, "no query in common")
    assert compare_pairs({"A": {0: graded}}).empty
    assert pair_metrics(pd.DataFrame([none]), "m") == {}


def test_a_query_that_was_labelled_anew_is_refused() -> None:
    first, second = _hits([1, 0], ["a1", "b1"]), _hits([1, 0], ["a1", "b1"], ["a", "c"])
    with pytest.raises(ValueError, match="query b1 is of class b in one run and c in another"):
        compare_pairs({"A": {0: first}, "B": {0: second}})


def test_seeds_of_a_variant_are_put_together() -> None:
    runs = pd.DataFrame(
        [("A", 0, 0.5, 0.1, 0.9), ("A", 1, 1.0, 0.6, 1.0), ("B", 0, 0.25, 0.2, 0.3), ("C", 0, 0.4, 0, 1), ("C", 1, 0.6, 0, 1)],
        columns=["variant", "seed", "value", "low", "high"],
    ).assign(n=4, protocol="p", doubt="")  # fmt: skip
    runs.loc[2, "doubt"] = "few"
    queries = ["a1", "a2", "b1", "b2"]
    hits: dict[str, dict[int | None, Hits]]
    hits = {"A": {0: _hits([1, 0, 1, 0], queries), 1: _hits([1, 1, 1, 1], queries[::-1])}}
    table = group_seeds(runs, hits).set_index("variant")

    def of(variant: str, *columns: str) -> list[float]:
        return [float(table[column][variant]) for column in columns]

    assert table["num_seeds"].to_dict() == {"A": 2, "B": 1, "C": 2}
    assert of("A", "value", "smallest", "largest") == [0.75, 0.5, 1.0]
    whole = cluster_interval(np.array([[1, 0, 1, 0], [1, 1, 1, 1.0]]), list("aabb"))
    assert of("A", "low", "high") == pytest.approx([whole.low, whole.high])
    # Half-width over two seeds: 12.7062 * 0.353553 / sqrt(2) = 3.17655.
    assert of("A", "seeds_low", "seeds_high") == pytest.approx([0.75 - 3.17655, 0.75 + 3.17655], abs=1e-4)
    assert of("B", "low", "high") == [0.2, 0.3]
    assert np.isnan(of("B", "seeds_low", "seeds_high")).all()
    assert np.isnan(of("C", "low", "high")).all()
    metrics = group_metrics(table.reset_index(), "m")
    assert list(metrics) == ["m/A", "m/B"]
    assert metrics["m/A"].protocol == "mean of 2 seeds; p"
    assert (metrics["m/A"].doubt, metrics["m/B"].doubt) == (whole.doubt, "few")
