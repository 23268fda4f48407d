"""The rows that a reader found, held against what a catalog must be and against the counts of the card."""

import pandas as pd

from workbench.data.card import DOMAINS, Card
from workbench.data.readers.listing import LayoutError, check_paths, few


class CountMismatch(ValueError):
    """A set whose files are not as many as its card says; the message holds a table of wanted and found."""


def check_rows(frame: pd.DataFrame, card: Card) -> None:
    """Returns nothing when paths are unique and stay in the set, labels and splits are not empty, domains are known.

    Raises:
        LayoutError: otherwise; the first few images are named.
    """
    check_paths(frame["path"].tolist())
    twice = frame["path"][frame["path"].duplicated()]
    if len(twice):
        raise LayoutError(f"{len(twice)} images of {card.name!r} are there more than once: {few(list(twice))}.")
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
