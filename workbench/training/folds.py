"""Class-disjoint folds inside the training images: recipes are chosen on classes that they did not train on.

Choosing a recipe on the test classes, or on classes seen in training, flatters the recipe that was tuned longest.
Source: Musgrave, Belongie and Lim 2020, "A metric learning reality check", section 4.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from workbench.data.catalog import Catalog
from workbench.data.same_images import image_codes

_FOLD_STREAM, _ROLE_STREAM = 1, 2


class Fold(NamedTuple):
    """One fold: `train` (classes to learn from), and the classes held out, as `references` and `queries`."""

    train: Catalog
    references: Catalog
    queries: Catalog


def class_disjoint_fold(
    catalog: Catalog,
    split: str,
    num_folds: int,
    fold: int,
    seed: int = 0,
    *,
    unit: Literal["label", "group"] = "label",
    without: Sequence[int] = (),
) -> Fold:
    """The training images of one fold and its held-out classes, these in two halves: references and queries.

    Over the folds each class is held out once; folds differ by at most one class (by unit "group": as little as whole groups
    allow). Folds depend on the class names, `num_folds` and `seed` alone, so that they are the same for any order of
    the images. Images of one class with one group (an encounter, one physical item) stay together in
    references or in queries where a class has several groups; otherwise images are divided singly, copies of one together.
    A class with one image, or one group of it, is a reference that nobody asks for. Junk and distractors of re-identification
    sets are in no part.

    Args:
        catalog: all images of the run.
        split: the split to divide.
        num_folds: at least 2, at most the number of classes (or groups).
        fold: 0 to num_folds - 1, the one to hold out.
        seed: of folds and halves; the same for all recipes compared.
        unit: "label" deals classes out; "group" deals out whole groups of classes (flavours of a brand stay together), so
            that held-out classes have no sibling in training. Groups that share a class are dealt out together.
        without: further folds that are left out of training too, such as the one whose classes made the trunk.

    Raises:
        ValueError: no such split, numbers out of range, no fold left to learn from, an image without a group under "group",
            or a fold in which
            no class has a query.
    """
    part = catalog.select(split=split)
    part = part.take(np.flatnonzero(~part.is_nobody))
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold is 0 to num_folds - 1; found fold {fold} of {num_folds}.")
    units = _units(part, unit)
    if not 2 <= num_folds <= len(units):
        raise ValueError(f"num_folds is 2 to {len(units)}, the number of {unit}s to divide; found {num_folds}.")
    strange = [number for number in without if not 0 <= number < num_folds or number == fold]
    if strange or len({fold, *without}) == num_folds:
        raise ValueError(
            f"Folds to leave out are others than fold {fold}, 0 to {num_folds - 1}, and one must be left to learn from; "
            f"found {list(without)}."
        )
    dealt = _deal(units, num_folds, seed)
    is_held_N = np.isin(part.labels.astype(str), sorted(dealt[fold]))
    is_left_out_N = np.isin(part.labels.astype(str), sorted(label for number in without for label in dealt[number]))
    kept = part.take(np.flatnonzero(is_held_N))
    is_query_M = _query_half(kept, seed)
    if not is_query_M.any():
        raise ValueError(
            f"No class of fold {fold} has images enough for a reference and a query; take fewer folds or more images."
        )
    return Fold(
        part.take(np.flatnonzero(~is_held_N & ~is_left_out_N)),
        kept.take(np.flatnonzero(~is_query_M)),
        kept.take(np.flatnonzero(is_query_M)),
    )


def read_fold(text: str) -> tuple[int, int, tuple[int, ...]]:
    """Number of folds, the fold to hold out, and those left out besides, from text such as `0/5` or `0/3 without 2`.

    Raises:
        ValueError: not written like that.
    """
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*(?:without\s+(\d+(?:\s*,\s*\d+)*))?\s*", text)
    if found is None:
        raise ValueError(
            f"A fold is written as 0/5, the first of five, or 0/5 without 3, 4, which leaves two more out; found {text!r}."
        )
    return int(found[2]), int(found[1]), tuple(map(int, found[3].split(","))) if found[3] else ()


def _units(part: Catalog, unit: Literal["label", "group"]) -> list[list[str]]:
    """The classes that go into one fold together, sorted."""
    labels = sorted(set(part.labels.astype(str)))
    if unit == "label":
        return [[label] for label in labels]
    if unit != "group":
        raise ValueError(f"unit is 'label' or 'group'; found {unit!r}.")
    lonely = part.frame[part.frame["group"].isna()]
    if len(lonely):
        raise ValueError(f"{len(lonely):,} images have no group, such as {lonely['path'].iloc[0]}; divide by 'label'.")
    # Labels that share a group, or are joined by a chain of groups, are one unit.
    root = {label: label for label in labels}

    def find(label: str) -> str:
        while root[label] != label:
            label = root[label]
        return label

    for _, members in part.frame.groupby("group")["label"]:
        first, *others = sorted(set(members.astype(str)))
        for other in others:
            low, high = sorted((find(first), find(other)))
            root[high] = low
    units: dict[str, list[str]] = {}
    for label in labels:
        units.setdefault(find(label), []).append(label)
    return list(units.values())


def _deal(units: list[list[str]], num_folds: int, seed: int) -> list[list[str]]:
    """The classes of each fold: units in random order, large ones first, each to the fold with the fewest classes."""
    order = np.random.default_rng([seed, _FOLD_STREAM]).permutation(len(units))
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    for place in sorted(order, key=lambda one: -len(units[one])):
        min(folds, key=len).extend(units[place])
    return folds


def _query_half(kept: Catalog, seed: int) -> np.ndarray:
    """Which of the images are queries, bool [M]: the smaller half of each class, by whole groups where it has several."""
    is_query = np.zeros(len(kept), dtype=bool)
    frame = kept.frame.assign(label=kept.labels.astype(str), code=image_codes(kept)[0])
    for label, rows in frame.groupby("label"):
        rng = np.random.default_rng([seed, _ROLE_STREAM, *str(label).encode()])
        rows = rows.sort_values(["source", "path"])
        if rows["group"].nunique() > 1:
            names = rows["group"].fillna("").to_numpy(dtype=object)
        else:
            names = rows["code"].to_numpy()
        pieces = [rows.index.to_numpy()[names == name] for name in dict.fromkeys(names)]
        num_asked = 0
        for piece in (pieces[place] for place in rng.permutation(len(pieces))):
            if num_asked + len(piece) <= len(rows) // 2:
                is_query[piece] = True
                num_asked += len(piece)
    return is_query
