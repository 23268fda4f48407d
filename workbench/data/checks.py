"""The rows that a reader found, held against what a catalog must be and against the counts of the card."""

import numpy as np
import pandas as pd

from workbench.data.boxes import LEAST_SIDE_PX, box_fault, boxes_of
from workbench.data.card import DOMAINS, Card
from workbench.data.readers.listing import LayoutError, check_paths, few


class CountMismatch(ValueError):
    """A set whose files are not as many as its card says; the message holds a table of wanted and found."""


def check_rows(frame: pd.DataFrame, card: Card) -> None:
    """Returns nothing when the rows are those of a catalog.

    Paths stay in the set, boxes are boxes, no image and no box of it is there twice, labels and splits are not empty, and
    domains are known. One file may be there whole and with several boxes.

    Raises:
        LayoutError: otherwise; the first few images are named.
    """
    check_paths(frame["path"].tolist())
    box_N4 = boxes_of(frame)
    if box_N4 is not None:
        _check_boxes(box_N4, frame["path"], card)
    twice = frame["path"][_is_repeated(frame["path"], box_N4)]
    if len(twice):
        what = "images" if box_N4 is None else "images (or boxes of them)"
        raise LayoutError(f"{len(twice)} {what} of {card.name!r} are there more than once: {few(list(twice))}.")
    for name in ("label", "split"):
        empty = frame["path"][frame[name].isna() | (frame[name].str.strip() == "")]
        if len(empty):
            raise LayoutError(f"{len(empty)} images of {card.name!r} have an empty {name}: {few(list(empty))}.")
    strange = sorted(set(frame["domain"].unique()) - set(DOMAINS))
    if strange:
        raise LayoutError(f"{card.name!r} has the domains {few(strange)}; wanted: {', '.join(DOMAINS)}.")


def check_counts(frame: pd.DataFrame, card: Card) -> None:
    """Returns nothing when each split that is there has as many images and labels as the card says.

    Raises:
        CountMismatch: with a table of wanted and found.
    """
    found = frame.groupby("split", sort=False).agg(images=("path", "size"), labels=("label", "nunique"))
    rows = []
    for split, images, labels in found.itertuples():
        count = card.splits.get(split)
        if count is not None:
            rows.append((split, count.images or "any", images, count.labels or "any", labels))
    if any(wanted not in ("any", there) for row in rows for wanted, there in (row[1:3], row[3:5])):
        columns = ["split", "images wanted", "found", "labels wanted", "found"]
        raise CountMismatch(
            f"The files of {card.name!r} are not as many as its card {card.path} says:\n"
            + pd.DataFrame(rows, columns=columns).to_string(index=False)
            + "\nComplete the download; or, when another version is meant, copy the card, correct the counts and give the "
            "copy's path instead of the name."
        )


def _check_boxes(box_N4: np.ndarray, path_N: pd.Series, card: Card) -> None:
    missing_N4 = np.isnan(box_N4)
    sides_N2 = box_N4[:, 2:]
    usable_N = np.isfinite(box_N4).all(axis=1) & (sides_N2 > 0).all(axis=1) & (sides_N2 >= LEAST_SIDE_PX).any(axis=1)
    bad = np.flatnonzero(~usable_N & ~missing_N4.all(axis=1))
    if len(bad):
        named = [f"row {row + 1} ({path_N.iloc[row]}): {box_fault(box_N4[row])}" for row in bad[:2]]
        num_boxes = int((~missing_N4.all(axis=1)).sum())
        raise LayoutError(
            f"{len(bad)} of {num_boxes} boxes of {card.name!r} cannot be used: {'; '.join(named)}. Correct or remove them."
        )


def _is_repeated(path_N: pd.Series, box_N4: np.ndarray | None) -> pd.Series:
    repeated_N = path_N.duplicated()
    if box_N4 is None or not repeated_N.any():
        return repeated_N
    return pd.DataFrame(box_N4 + 0.0, index=path_N.index).assign(path=path_N).duplicated()
