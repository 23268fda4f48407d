from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.export.comparison import compare_rows
from workbench.export.triton_models.recognise import _unit_rows
from workbench.retrieval.arrays import normalise, read_cameras, read_labels
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol

# --- rows of length 1 ------------------------------------------------------------------------------------------------


def exact_unit(row: np.ndarray) -> list[float]:
    """In fractions, the root by Newton's steps on whole numbers: no float is squared."""
    numbers = [Fraction(float(value)) for value in row]
    largest = max(abs(number) for number in numbers)
    numbers = [number / largest for number in numbers]
    squared = sum(number * number for number in numbers)
    scale = 10**60
    length = Fraction(int_root(int(squared * scale * scale)), scale)
    return [float(number / length) for number in numbers]


def int_root(number: int) -> int:
    guess = 1 << ((number.bit_length() + 1) // 2)
    while (better := (guess + number // guess) // 2) < guess:
        guess = better
    return guess


SCALES = [1e300, 1e200, 1e160, 1e39, 1.0, 1e-39, 1e-160, 1e-200, 1e-300, 1e-322]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_scale_of_float64_has_its_direction(dtype: Any) -> None:
    given = np.outer(SCALES, [3.0, -4.0, 0.0])
    given[-1] = [6 * 5e-324, -8 * 5e-324, 0]  # subnormal: whole multiples of the least number
    found = normalise(given, "given", dtype=dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.tile([0.6, -0.8, 0.0], (10, 1)), rtol=2 * float(np.finfo(dtype).eps))
    assert not np.signbit(found[:, 2]).any()


def test_a_row_may_mix_scales() -> None:
    given = np.array([[1e200, 1e200, 1e-200], [1e300, 1e10, -1e300], [5e-324, 1e-310, 0], [1e308, 1e308, 1e308]])
    found = normalise(given, "given")
    np.testing.assert_allclose(found, [exact_unit(row) for row in given], rtol=1e-15, atol=1e-300)


def test_a_row_that_only_looks_of_length_1_when_it_is_scaled() -> None:
    given = np.array([[0.6, 0.8], [0.6 * 2.0**600, 0.8 * 2.0**600]])
    np.testing.assert_array_equal(normalise(given, "given"), [[0.6, 0.8], [0.6, 0.8]])


@settings(max_examples=150, deadline=None)
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_row_is_right_and_stays_once_it_has_length_1(numbers: list[float], dtype: Any) -> None:
    row = np.array([numbers])
    if not row.any():
        with pytest.raises(ValueError, match="row 0 of row has length zero"):
            normalise(row, "row")
        return
    found = normalise(row, "row", dtype=dtype)
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found[0], exact_unit(row[0]), rtol=4 * eps, atol=float(np.finfo(dtype).tiny))
    assert normalise(found, "found") is found
    both = normalise(np.concatenate([found, [[7.0] * len(numbers)]]).astype(dtype), "both")
    np.testing.assert_array_equal(both[:1], found)  # what becomes of a row depends on no other row


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 699, 700, 8999])
def test_the_first_row_without_a_direction_is_named(wrong: float, place: int) -> None:
    given = np.full((9000, 96), 1e200)
    given[place, 95] = wrong
    given[place + 1 :] = np.nan
    with pytest.raises(ValueError, match=rf"row {place} of it is not finite \(NaN or infinity\)"):
        normalise(given, "it")
    given[place] = -0.0
    with pytest.raises(ValueError, match=rf"row {place} of it has length zero and no direction"):
        normalise(given, "it")
    with pytest.raises(ValueError, match=rf"row {place} of it has length zero"):
        normalise(given, "it", np.array([place]))


def test_rows_are_named_by_their_place_in_what_was_given() -> None:
    given = np.array([[1.0, 0], [np.nan, 0], [0, 2], [0, 0]])
    np.testing.assert_array_equal(normalise(given, "x", np.array([2, 0])), [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="row 1 of x is not finite"):
        normalise(given, "x", np.array([0, 1]))
    with pytest.raises(ValueError, match="row 3 of x has length zero"):
        normalise(given, "x", np.array([0, 3]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(3), r"x must have two axes \(rows, width\), found shape \(3,\)"),
        (np.ones((2, 0)), r"found shape \(2, 0\)"),
        (np.array([["a"]]), "x must hold real numbers, found dtype <U1"),
        (np.ones((1, 2), complex), "real numbers"),
    ],
)
def test_what_is_no_embedding_is_refused(given: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalise(given, "x")
    with pytest.raises(ValueError, match=r"two axes \(rows, 3\), found shape \(2, 4\)"):
        normalise(np.ones((2, 4)), "x", width=3)
    assert normalise(np.empty((0, 4), np.float16), "x", width=4).shape == (0, 4)


def test_columns_first_is_read_as_rows_first() -> None:
    given = np.random.default_rng(0).standard_normal((50, 700))
    np.testing.assert_array_equal(normalise(np.asfortranarray(given), "x"), normalise(given, "x"))


def test_every_way_into_the_package_divides_alike() -> None:
    """Rows of 1e200 were zeros in one evaluation, "not finite" in another, and right in the gallery."""
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((40, 8)), [f"l{number % 20}" for number in range(40)]
    query = rows + 0.3 * rng.standard_normal((40, 8))
    results = []
    for scale in (1.0, 1e200, 1e-200):
        few = evaluate_few_shot(
            scale * rows, labels, scale * query, labels, FewShotProtocol(shots=(1,), draws=2, num_replicates=100)
        )
        reid = evaluate_reid(scale * query, scale * rows, labels, labels, None, None, ReidProtocol(junk="none", far=()))
        gallery = Gallery.build(scale * rows, labels)
        found = gallery.search(scale * query, 3)
        results.append(
            (few.metrics["accuracy@1/shots=1/micro"].value, reid.metrics["mAP"].value, found.label_QK.tolist())
        )
        cosine, _, ratio = compare_rows(scale * rows, 2 * scale * rows)
        np.testing.assert_allclose(cosine, 1, atol=1e-15)
        np.testing.assert_allclose(ratio, 2, rtol=1e-14)
    assert results[1] == results[2] == results[0]


def test_triton_answers_with_the_same_rows_to_the_last_bit() -> None:
    drawn = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    unit = normalise(drawn, "drawn")
    for query in (drawn, unit, 1e30 * drawn, 1e-35 * drawn, np.concatenate([unit, drawn])):
        np.testing.assert_array_equal(_unit_rows(query), normalise(query, "query"))


# --- labels and cameras ----------------------------------------------------------------------------------------------

HELD: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "text": lambda values: [str(value) for value in values],
    "numpy text": lambda values: np.array([str(value) for value in values]),
    "list of numpy text": lambda values: list(np.array([str(value) for value in values])),
    "bytes": lambda values: [str(value).encode() for value in values],
    "numpy bytes": lambda values: np.array([str(value).encode() for value in values]),
    "int64": lambda values: np.array(values, np.int64),
    "numpy scalars": lambda values: [np.int64(value) for value in values],
    "arrays of no axis": lambda values: [np.array(value) for value in values],
    "objects": lambda values: np.array(values, dtype=object),
    "torch scalars": lambda values: [torch.tensor(value) for value in values],
    "tensor": lambda values: torch.tensor(values),
    "series": lambda values: pd.Series(values, index=range(7, 7 + len(values))),
    "nullable series": lambda values: pd.Series(values, dtype="Int64"),
    "text series": lambda values: pd.Series([str(value) for value in values], dtype="str"),
    "index": lambda values: pd.Index(values),
    "categories": lambda values: pd.Series([str(value) for value in values]).astype("category"),
    "mixed": lambda values: [str(values[0]).encode(), torch.tensor(values[1]), *values[2:]],
}


@pytest.mark.parametrize("held", HELD.values(), ids=HELD.keys())
def test_labels_are_read_alike_however_they_are_held(held: Callable[[list[int]], Any]) -> None:
    # beyond what float32 (2^24) and float64 (2^53) keep apart
    values = [-1, 0, 7, 2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**63 - 1]
    for read in (read_labels, read_cameras):
        found = read(held(values), 8, "it")
        assert found.dtype == object
        assert found.tolist() == [str(value) for value in values]
        assert {type(text) for text in found} == {str}


def test_text_stays_as_it_stands() -> None:
    texts = ["007", "7", "7.0", " 7", "-1 ", "nan", "None", "é", ""]
    assert read_labels(texts, None, "it").tolist() == texts
    assert read_labels([text.encode() for text in texts], None, "it").tolist() == texts
    forms: Any = ["e\u0301", "e\u0301".encode(), np.str_("e\u0301"), "é"]
    assert read_labels(forms, 4, "it").tolist() == ["é"] * 4
    assert read_labels([2**64, -(2**70)], 2, "it").tolist() == ["18446744073709551616", "-1180591620717411303424"]
    assert read_labels([], 0, "it").shape == (0,)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1.0], r"row 1 of it is 1.0 \(float\): a label is text or a whole number"),
        (np.array([1.0, 2.0]), "row 0 of it is 1.0"),
        ([1, np.float32(16777217)], "row 1 of it is 16777216.0"),
        ([torch.tensor(1.5), 1], "row 0 of it is 1.5"),
        ([1, True], "row 1 of it is True"),
        ([1, [2]], r"row 1 of it is \[2\]"),
        ([torch.tensor([1]), 2], "row 0 of it is"),
        ([1, np.datetime64("2020-01-01")], "row 1 of it is"),
        (["a", None], "row 1 of it has no label"),
        ([float("nan"), "a"], "row 0 of it has no label"),
        (np.array([np.nan, 1.0]), "row 0 of it has no label"),
        (["a", pd.NA], "row 1 of it has no label"),
        (pd.Series([1, None], dtype="Int64"), "row 1 of it has no label"),
        (["a", torch.tensor(float("nan"))], "row 1 of it has no label"),
        ([b"\xff", "a"], "row 0 of it .* no text in UTF-8"),
        (["a"], r"it must have one label for each of 2 rows, found shape \(1,\)"),
        ("ab", r"one label for each of 2 rows, found shape \(\)"),
        (np.ones((2, 1), int), r"found shape \(2, 1\)"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(labels, 2, "it")


def test_a_camera_may_be_missing_or_come_from_a_column_with_a_gap() -> None:
    given: Any = [2.0, None, np.nan, "2", b"c3", torch.tensor(4), pd.NA, np.float32(135)]
    assert read_cameras(given, 8, "it").tolist() == ["2", None, None, "2", "c3", "4", None, "135"]
    assert read_cameras(None, 2, "it").tolist() == [None, None]
    with pytest.raises(ValueError, match=r"row 0 of it is 2.5 \(float\): a camera is text or a whole number"):
        read_cameras([2.5], 1, "it")
