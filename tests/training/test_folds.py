from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.training.folds import class_disjoint_fold, read_fold


def _catalog(
    counts: dict[str, int], groups: dict[str, list[str]] | None = None, card: str = "grocery_store"
) -> Catalog:
    """Images of each label in the split train; the group of each of its images in turn."""
    rows = [
        (f"{label}/{number}.jpg", label, "train", (groups or {}).get(label, [None])[number % len((groups or {}).get(label, [None]))])
        for label, count in counts.items()
        for number in range(count)
    ]  # fmt: skip
    rows.append(("other.jpg", "other", "query", None))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "group"]).astype({"group": "str"})
    frame = frame.assign(camera=pd.array([pd.NA] * len(rows), dtype="Int64"), domain="real", source="set")
    return Catalog(frame, {"set": Path("there")}, {"set": read_card(card)}, {})


def _paths(part: Catalog) -> set[str]:
    return set(part.frame["path"])


def test_every_class_is_held_out_once_and_never_trained_on_then() -> None:
    counts = {f"sku{number}": 3 + number % 4 for number in range(11)}
    catalog = _catalog(counts)
    held_out: list[str] = []
    for fold in range(4):
        train, references, queries = class_disjoint_fold(catalog, "train", 4, fold, seed=3)
        held = set(references.labels)
        assert held.isdisjoint(set(train.labels))
        assert held == set(queries.labels)
        assert held | set(train.labels) == set(counts)
        assert len(held) in (2, 3)
        assert _paths(references).isdisjoint(_paths(queries))
        assert len(train) + len(references) + len(queries) == sum(counts.values())
        for label in held:
            assert int((queries.labels == label).sum()) == counts[label] // 2
        held_out += held
    assert sorted(held_out) == sorted(counts)


def test_folds_are_the_same_for_any_order_of_images_and_others_for_another_seed() -> None:
    catalog = _catalog({f"sku{number}": 4 for number in range(12)})
    shuffled = catalog.take(np.random.default_rng(0).permutation(len(catalog)))
    one, two = (class_disjoint_fold(part, "train", 3, 1, seed=5) for part in (catalog, shuffled))
    assert [_paths(part) for part in one] == [_paths(part) for part in two]
    other = class_disjoint_fold(catalog, "train", 3, 1, seed=6)
    assert set(other.references.labels) != set(one.references.labels)


def test_an_encounter_is_not_torn_apart() -> None:
    encounters = {"fox": ["e1", "e2", "e3"], "owl": ["e4", "e5"], "elk": ["e6"]}
    catalog = _catalog({"fox": 9, "owl": 8, "elk": 4}, encounters)
    sides: dict[str, set[str]] = {}
    for fold in range(3):
        _, references, queries = class_disjoint_fold(catalog, "train", 3, fold)
        for side, part in (("reference", references), ("query", queries)):
            for group in part.frame["group"]:
                sides.setdefault(group, set()).add(side)
    # Fox: one encounter of 3 fits into the half of 9; owl: 4 of 8. Elk has one encounter, whose images are divided singly.
    assert sorted(len(sides[name]) for name in ("e1", "e2", "e3", "e4", "e5")) == [1] * 5
    assert sum(sides[name] == {"query"} for name in ("e1", "e2", "e3")) == 1
    assert sum(sides[name] == {"query"} for name in ("e4", "e5")) == 1
    assert sides["e6"] == {"reference", "query"}


def test_whole_groups_go_into_one_fold_and_chains_of_groups_too() -> None:
    groups = {
        "cola": ["drinks"],
        "tea": ["drinks"],
        "soap": ["clean"],
        "foam": ["clean", "bath"],
        "salt": ["bath"],
        "rice": ["food"],
    }
    catalog = _catalog(dict.fromkeys(groups, 4), groups)
    held = [set(class_disjoint_fold(catalog, "train", 3, fold, unit="group").references.labels) for fold in range(3)]
    assert sorted(held, key=sorted) == [{"cola", "tea"}, {"foam", "salt", "soap"}, {"rice"}]
    with pytest.raises(ValueError, match="2 to 3, the number of groups"):
        class_disjoint_fold(catalog, "train", 4, 0, unit="group")


def test_junk_distractors_and_lone_images() -> None:
    catalog = _catalog({"-1": 3, "0": 3, "a": 4, "b": 1, "c": 4}, card="nyala_market1501")
    parts = [class_disjoint_fold(catalog, "train", 2, fold, seed=1) for fold in range(2)]
    assert {label for part in parts for one in part for label in one.labels} == {"a", "b", "c"}
    assert all("b" not in part.queries.labels for part in parts)
    assert sum("b" in part.references.labels for part in parts) == 1


def test_products_may_be_called_as_junk_and_distractors_are() -> None:
    catalog = _catalog({"-1": 3, "0": 3, "a": 4, "c": 4})
    parts = [class_disjoint_fold(catalog, "train", 2, fold, seed=1) for fold in range(2)]
    for part in parts:
        assert {label for one in part for label in one.labels} == {"-1", "0", "a", "c"}
    held = [set(part.queries.labels) for part in parts]
    assert held[0] | held[1] == {"-1", "0", "a", "c"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", 3, 3), "fold is 0 to num_folds - 1"),
        (("train", 3, -1), "fold is 0 to num_folds - 1"),
        (("train", 1, 0), "num_folds is 2 to 3"),
        (("train", 4, 0), "num_folds is 2 to 3"),
        (("nowhere", 2, 0), "nowhere"),
    ],
)
def test_wrong_numbers_are_refused(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_disjoint_fold(_catalog({"a": 4, "b": 4, "c": 4}), *arguments)


def test_a_fold_without_queries_and_images_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match="images enough for a reference and a query"):
        class_disjoint_fold(_catalog({"a": 1, "b": 1}), "train", 2, 0)
    with pytest.raises(ValueError, match="8 images have no group"):
        class_disjoint_fold(_catalog({"a": 4, "b": 4}), "train", 2, 0, unit="group")


def test_a_fold_is_written_as_number_of_how_many() -> None:
    assert read_fold("0/5") == (5, 0, ())
    assert read_fold(" 2 / 3") == (3, 2, ())
    assert read_fold("0/3 without 2") == (3, 0, (2,))
    assert read_fold("0/5 without 3, 4") == (5, 0, (3, 4))
    for text in ("5", "a/b", "-1/5", "1/", "0/3 without", "0/3 2", "0/3 without two"):
        with pytest.raises(ValueError, match="0/5, the first of five"):
            read_fold(text)


def test_folds_left_out_are_in_no_part() -> None:
    catalog = _catalog({f"class{number}": 4 for number in range(9)})
    whole = [class_disjoint_fold(catalog, "train", 3, number) for number in range(3)]
    classes = [set(fold.references.labels) for fold in whole]
    assert [len(one) for one in classes] == [3, 3, 3]
    assert set.union(*classes) == {f"class{number}" for number in range(9)}
    part = class_disjoint_fold(catalog, "train", 3, 0, without=(2,))
    assert set(part.train.labels) == classes[1]
    # what is asked about stays the same, whoever trained
    for one, other in ((part.references, whole[0].references), (part.queries, whole[0].queries)):
        assert list(one.frame["path"]) == list(other.frame["path"])


@pytest.mark.parametrize("without", [(0,), (3,), (1, 2), (-1,)])
def test_folds_to_leave_out_are_others_and_leave_one(without: tuple[int, ...]) -> None:
    catalog = _catalog({f"class{number}": 4 for number in range(9)})
    with pytest.raises(ValueError, match="others than fold 0"):
        class_disjoint_fold(catalog, "train", 3, 0, without=without)
