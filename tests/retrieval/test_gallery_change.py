"""What a change broke, on galleries whose every answer is known by hand."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_change import GalleryChange, compare_galleries


def _on_circle(degrees: list[float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def _before() -> Gallery:
    return Gallery.build(_on_circle([0, 40, 80, 200]), ["cola", "tea", "milk", "soap"])


def _after() -> Gallery:
    gallery = _before()
    gallery.remove("soap")
    gallery.extend(_on_circle([12, 70, 120]), ["cola zero", "milk", "0001234"])
    return gallery


#           label        degrees  before   after
QUERIES = [
    ("cola", 2.0),  #      cola     cola         still right
    ("cola", 10.0),  #     cola     cola zero    broke
    ("cola", 14.0),  #     cola     cola zero    broke
    ("tea", 41.0),  #      tea      tea          still right
    ("tea", 58.0),  #      tea      milk         broke (the new milk at 70)
    ("milk", 57.0),  #     tea      milk         mended
    ("milk", 110.0),  #    milk     0001234      broke
    ("milk", 1.0),  #      cola     cola         still wrong
    ("tea", 16.0),  #      cola     cola zero    still wrong, another answer
    ("0001234", 119.0),  # milk     0001234      new
    ("0001234", 88.0),  #  milk     milk         new, not found
    ("soap", 200.0),  #    soap     0001234      removed
    ("pie", 11.0),  #      cola     cola zero    absent
]


def _change() -> GalleryChange:
    labels, degrees = zip(*QUERIES, strict=True)
    return compare_galleries(_before(), _after(), _on_circle(list(degrees)), list(labels))


def test_every_answer_hand_worked() -> None:
    change = _change()
    cola, zero = "cola", "cola zero"
    assert change.answers["before"].tolist() == [
        *(cola, cola, cola, "tea", "tea", "tea", "milk", cola, cola, "milk", "milk", "soap", cola)
    ]
    assert change.answers["after"].tolist() == [
        *(cola, zero, zero, "tea", "milk", "milk", "0001234", cola, zero, "0001234", "milk", "0001234", zero)
    ]
    broke, right, wrong = "right -> wrong", "still right", "still wrong"
    assert change.answers["effect"].tolist() == [
        *(right, broke, broke, right, broke, "wrong -> right", broke, wrong, wrong),
        *("wrong -> right", wrong, broke, wrong),
    ]
    assert change.answers["group"].tolist() == [*(["known"] * 9), "new", "new", "removed", "absent"]
    assert change.num_queries == {"known": 9, "new": 2, "removed": 1, "absent": 1}
    assert (change.new_labels, change.removed_labels) == (["cola zero", "0001234"], ["soap"])
    assert change.changed["query"].tolist() == [1, 2, 4, 5, 6, 8, 9, 11, 12]
    assert change.answers["similarity_before"].iloc[0] == pytest.approx(np.cos(np.deg2rad(2)), abs=1e-6)
    assert change.answers["similarity_after"].iloc[1] == pytest.approx(np.cos(np.deg2rad(2)), abs=1e-6)


def test_tables_hand_worked() -> None:
    change = _change()
    columns = ["label", "num_queries", "right_before", "right_after", "broke", "mended", "most_taken_by", "taken"]
    wanted = [
        ("cola", 3, 3, 1, 2, 0, "cola zero", 2),
        ("tea", 3, 2, 1, 1, 0, "milk", 1),
        ("milk", 3, 1, 1, 1, 1, "0001234", 1),
    ]
    assert list(change.by_label.columns) == columns
    assert list(change.by_label.itertuples(index=False, name=None)) == wanted
    takers = [
        ("cola zero", True, 4, 2, 0),  # two colas, the tea at 16, the pie
        ("0001234", True, 3, 1, 1),  # a milk, its own, the soap
        ("milk", False, 2, 1, 1),  # a tea; its own one was mended
    ]
    assert list(change.by_taker.columns) == ["label", "is_new", "num_taken", "num_broke", "num_own"]
    assert list(change.by_taker.itertuples(index=False, name=None)) == takers


def test_numbers_hand_worked() -> None:
    change = _change()
    values: dict[str, Any] = {name: (metric.value, metric.n) for name, metric in change.metrics.items()}
    # Of nine known queries six were right and three are; one of two new ones is.
    assert values["accuracy@1_before"] == (pytest.approx(6 / 9), 9)
    assert values["accuracy@1_after"] == (pytest.approx(3 / 9), 9)
    assert values["difference"] == (pytest.approx(-3 / 9), 9)
    assert values["accuracy@1_new"] == (pytest.approx(1 / 2), 2)
    # Four broke, one was mended: twice the probability of at most one head in five throws.
    assert change.p_value == pytest.approx(2 * binom.cdf(1, 5, 0.5))
    assert change.p_value == pytest.approx(0.375)
    difference = change.metrics["difference"]
    assert -1 <= difference.low < difference.value < difference.high <= 1
    assert "4 references of 4 labels against 6 of 5" in difference.protocol
    said = change.describe()
    assert said.startswith(
        "2 labels added, 1 removed: of 9 queries of labels in both galleries 4 broke and 1 were mended"
    )
    assert "-33.3 points" in said
    assert "Most were taken by cola zero (2), 0001234 (1), milk (1)." in said


def test_nothing_changes_where_nothing_was_changed() -> None:
    change = compare_galleries(_before(), _before(), _on_circle([1, 41, 81, 60.5]), ["cola", "tea", "milk", "tea"])
    assert change.changed.empty
    assert change.by_taker.empty
    assert change.p_value == 1
    assert change.metrics["difference"].value == 0
    assert change.by_label["most_taken_by"].isna().all()
    assert "accuracy@1_new" not in change.metrics
    assert "0 broke and 0 were mended" in change.describe()
    assert "taken" not in change.describe()


def test_a_gallery_and_its_reverse_mirror_each_other() -> None:
    rng = np.random.default_rng(4)
    rows_ND = rng.standard_normal((300, 6))
    labels = np.array([f"{n % 30:02d}" for n in range(300)])
    small, large = Gallery.build(rows_ND[labels < "20"], labels[labels < "20"]), Gallery.build(rows_ND, labels)
    query_QD = rows_ND + 0.6 * rng.standard_normal((300, 6))
    there, back = (compare_galleries(*pair, query_QD, labels) for pair in ((small, large), (large, small)))
    assert there.metrics["difference"].value == -back.metrics["difference"].value < 0
    assert there.by_label["broke"].sum() == back.by_label["mended"].sum() > 0
    # Only an added label can take an answer away, since every old reference is still there.
    assert there.by_taker["is_new"].all()
    assert there.by_label["mended"].sum() == 0
    # A plain count of the same.
    unit_ND = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    known = np.flatnonzero(labels < "20")
    answers = [labels[np.argmax(unit_ND @ query_QD[q])] for q in known]
    assert there.by_label["right_after"].sum() == sum(a == labels[q] for a, q in zip(answers, known, strict=True))


def test_a_tie_goes_to_the_oldest_reference() -> None:
    before = Gallery.build(np.eye(2), ["a", "b"])
    after = Gallery.build(np.eye(2), ["a", "b"])
    after.add("twin", np.array([[3.0, 0.0]]))
    change = compare_galleries(before, after, np.eye(2), ["a", "b"])
    assert change.changed.empty


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="both galleries must have one width, found 2 and 3"):
        compare_galleries(_before(), Gallery.build(np.eye(3), list("abc")), np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match="none of 2 queries has its label in both galleries"):
        compare_galleries(_before(), _after(), np.eye(2), ["soap", "0001234"])
    with pytest.raises(ValueError, match="none of 0 queries"):
        compare_galleries(_before(), _after(), np.empty((0, 2)), [])
    with pytest.raises(ValueError, match="one label for each of 2 rows"):
        compare_galleries(_before(), _after(), np.eye(2), ["tea"])
    with pytest.raises(ValueError, match="none of 1 queries has its label in both galleries"):
        compare_galleries(_before(), Gallery(2), np.eye(2)[:1], ["tea"])


def test_labels_are_compared_as_text() -> None:
    before = Gallery.build(np.eye(3), ["0001234", "1234", "9007199254740993"])
    after = Gallery.build(np.eye(3), ["0001234", "1234", "9007199254740993"])
    change = compare_galleries(before, after, np.eye(3), pd.Series(["0001234", "1234", "9007199254740992"]))
    assert change.answers["group"].tolist() == ["known", "known", "absent"]
    assert change.metrics["accuracy@1_before"].value == 1
