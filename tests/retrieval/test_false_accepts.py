from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval import false_accepts
from workbench.retrieval.false_accepts import LargestValues, num_accepted, select_by_digits
from workbench.retrieval.reid import ReidProtocol, evaluate_distances


def tar(distance: list[float], labels: str, far: float) -> float:
    protocol = ReidProtocol(junk="none", far=(far,))
    result = evaluate_distances(np.array([distance]), ["a"], list(labels), None, None, protocol)
    return result.metrics[f"TAR@FAR={far * 100:g}%"].value


def test_worked_by_hand() -> None:
    distance, labels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "abacde"  # matches at .1 and .3, four non-matches
    assert tar(distance, labels, 0.01) == 0.5  # none of four may be accepted: nearer than .2
    assert tar(distance, labels, 0.25) == 1.0  # one may: nearer than .4
    assert tar(distance, labels, 0.24) == 0.5


def test_a_match_as_near_as_the_threshold_is_refused() -> None:
    assert tar([0.1, 0.2, 0.2, 0.3], "aabc", 0.01) == 0.5
    assert tar([0.2, 0.2, 0.2, 0.2], "abcd", 0.5) == 0.0  # all equal: accepting one would accept all


def test_rates_are_rounded_down_but_for_the_rounding_of_floats() -> None:
    assert [num_accepted(0.01, pairs) for pairs in (99, 100, 199, 200, 250)] == [0, 1, 1, 2, 2]
    assert num_accepted(0.07, 100) == 7
    assert num_accepted(0.001, 1000) == 1


def test_without_a_pair_of_two_individuals_there_is_no_false_accept() -> None:
    result = evaluate_distances(np.array([[1.0]]), ["a"], ["a"], None, None, ReidProtocol(junk="none"))
    assert [name for name in result.metrics if name.startswith("TAR")] == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("most_held", [0, 10**6])
@pytest.mark.parametrize("num_levels", [1, 7, 10**6])
def test_equals_sorting_all_pairs(dtype: Any, most_held: int, num_levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_accepts, "MOST_VALUES_HELD", most_held)
    monkeypatch.setattr(false_accepts, "_CELLS_AT_ONCE", 100)
    rng = np.random.default_rng(num_levels)
    distance = (rng.integers(0, num_levels, (30, 60)) / num_levels - 0.3).astype(dtype)
    labels, gallery_labels = rng.integers(0, 9, 30), rng.integers(0, 8, 60)  # queries of label 8 have no match
    cameras, gallery_cameras = rng.integers(0, 2, 30), rng.integers(0, 2, 60)
    same = labels[:, None] == gallery_labels
    match = same & (cameras[:, None] != gallery_cameras)
    distance[match] -= 0.1
    non_matches = np.sort(distance[~same])
    protocol = ReidProtocol(far=(0.2, 0.01, 0.0001))
    result = evaluate_distances(distance, labels, gallery_labels, cameras, gallery_cameras, protocol)
    for far in protocol.far:
        # the largest threshold that accepts at most the share: tried one by one
        allowed = [value for value in non_matches if (non_matches < value).sum() <= far * len(non_matches) + 1e-9]
        wanted = (distance[match] < max(allowed)).mean()
        assert result.metrics[f"TAR@FAR={far * 100:g}%"].value == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    double=st.booleans(),
    data=st.data(),
)
def test_digits_find_what_sorting_finds(values: list[float], double: bool, data: st.DataObject) -> None:
    array = np.array([*values, -np.inf], dtype=np.float64 if double else np.float32)
    places = data.draw(st.lists(st.integers(1, len(values)), min_size=1, max_size=3))
    found = select_by_digits(lambda: iter([array[:3], array[3:]] if len(array) > 3 else [array]), places)
    assert found == [float(np.sort(array)[-place]) for place in places]


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.lists(st.integers(-5, 5), max_size=30), max_size=8), num_kept=st.integers(1, 12))
def test_largest_values_are_those_of_the_whole_stream(parts: list[list[int]], num_kept: int) -> None:
    largest = LargestValues(num_kept)
    for part in parts:
        largest.add(np.array(part, dtype=np.float64))
    whole = sorted((value for part in parts for value in part), reverse=True)
    for place in range(1, num_kept + 1):
        assert largest.ordered(place) == (whole[place - 1] if place <= len(whole) else -np.inf)
