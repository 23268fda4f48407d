"""Verdicts on a set as a whole, from tables whose counts are known."""

import pandas as pd
import pytest

from workbench.data.guidelines import COLUMNS
from workbench.data.long_tail import TAIL_COLUMNS
from workbench.data.near_duplicates import NearDuplicates
from workbench.data.set_checks import check_set, join_verdicts, set_metrics, verdict_row


def near(pairs: list[tuple[int, int, bool, bool]], num_compared: int = 100) -> NearDuplicates:
    table = pd.DataFrame(pairs, columns=["row", "other_row", "same_label", "across_splits"])
    table = table.astype({"same_label": bool, "across_splits": bool})
    return NearDuplicates(table, num_compared, 0, True, "a protocol")


def groups(rows: list[tuple[int, bool]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["num_images", "across_splits"]).astype({"across_splits": bool})


def measures(num: int, **odd: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame({"brightness": [0.5] * num, "contrast": [0.2] * num, "aspect": [1.0] * num})
    for name, values in odd.items():
        frame.loc[: len(values) - 1, name] = values
    return frame


def tail(imbalance: float) -> pd.DataFrame:
    return pd.DataFrame([("train", 30, 11, 1, 1.0, 20, imbalance, 0.5, 0.7, 2, 10)], columns=list(TAIL_COLUMNS))


def verdicts(rows: list[dict[str, object]]) -> dict[str, tuple[object, object, object]]:
    return {str(row["guideline"]): (row["num_failing"], row["n"], row["verdict"]) for row in rows}


def test_a_clean_set_meets_all() -> None:
    rows = check_set(measures(100), groups([]), near([]), tail(10.0), ["a", "b", "a"])
    assert [row["verdict"] for row in rows] == ["met"] * 7
    assert all(tuple(row) == COLUMNS for row in rows)


def test_faults_are_counted_where_they_are() -> None:
    pairs = [(0, 1, True, True), (2, 3, False, True), (4, 5, True, False), (4, 6, True, False)]
    odd = measures(100, brightness=[0.1, 0.99, 0.14], contrast=[0.2, 0.2, 0.01, 0.04], aspect=[2.1, 0.49, 2.0])
    found = verdicts(check_set(odd, groups([(3, True), (2, False)]), near(pairs), tail(10.5), ["Tee", "tee ", "Cola"]))
    assert found == {
        "no identical files across splits": (3, 100, "not met"),
        "no near duplicates across splits": (2, 100, "not met"),
        "hardly any near duplicates within a split": (3, 100, "not met"),  # pictures 4, 5, 6: 3 %
        "no two labels that look alike": (2, 3, "not met"),
        "classes alike in size": (1, 1, "not met"),
        "light that shows something": (4, 100, "not met"),  # the third is too dark and nearly empty, and counts once
        "pictures of one shape": (2, 100, "met"),  # 2 % are tolerated; 2.0 is within a factor of 2
    }


def test_labels_that_look_alike_are_named() -> None:
    rows = check_set(measures(9), groups([]), near([]), tail(1), ["Tee", "tee ", "Cola", "cola", "Tee", "water"])
    (found,) = (row["measured"] for row in rows if row["guideline"] == "no two labels that look alike")
    assert found == "2 groups: 'Cola' and 'cola', 'Tee' and 'tee '"


def test_two_labels_on_one_picture_are_not_tolerated() -> None:
    one = near([(0, 1, False, False)], 1000)
    found = verdicts(check_set(measures(9), groups([]), one, tail(1), ["a"]))
    assert found["hardly any near duplicates within a split"] == (2, 1000, "not met")
    same = verdicts(check_set(measures(9), groups([]), near([(0, 1, True, False)], 1000), tail(1), ["a"]))
    assert same["hardly any near duplicates within a split"] == (2, 1000, "met")


def test_nothing_is_for_the_eye() -> None:
    found = verdicts(check_set(measures(0), groups([]), near([], 0), tail(1).iloc[:0], []))
    assert [found[name][2] for name in list(found)[4:]] == ["look"] * 3


def test_the_joined_table_and_its_counts() -> None:
    guideline = pd.DataFrame([verdict_row("one class each", "", "", 0, 9, "look", "")])
    table = join_verdicts(guideline, check_set(measures(9), groups([]), near([(0, 1, True, True)]), tail(1), ["a"]), [])
    assert table["asked_by"].tolist() == ["published guideline"] + ["this audit"] * 7
    assert str(table["n"].dtype) == "Int64"
    metrics = set_metrics(near([(0, 1, False, True), (2, 3, True, False)]), table)
    values = {name: (metric["value"], metric["n"]) for name, metric in metrics.items()}
    assert values == {
        "near_duplicate_pairs": (2, 100),
        "near_duplicate_pairs_across_splits": (1, 100),
        "near_duplicate_pairs_with_two_labels": (1, 100),
        "checks_met": (6, 7),
    }
    assert join_verdicts(guideline.iloc[:0]).empty
    with pytest.raises(ValueError, match="found 'perhaps'"):
        verdict_row("", "", "", None, None, "perhaps", "")
