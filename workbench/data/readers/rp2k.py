"""Reader of RP2K as its authors distribute it: `all/train/<class>/*.jpg` and `all/test/<class>/*.jpg`.

Option of the card: `others`, the names of the class folders (in any case) that hold what is none of the products. They are
kept apart as the splits `others_train` and `others_test`, because a heap of all sorts is no product that could be recognised.

Source: Peng, Xiao, Li, "RP2K: A Large-Scale Retail Product Dataset for Fine-Grained Image Classification", 2020.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.labels import as_label
from workbench.data.readers import image_folder

_FOLDERS = {"train": "all/train", "test": "all/test"}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    return image_folder.find_fault(root, _as_folders(card))


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, sorted by split, label, path.

    The label is the name of the class folder. Splits that are not there are left out. When none of the folders named in
    `others` is there, a note says so: the name may be another one in this version of the set.

    Raises:
        LayoutError: see `image_folder.read`.
        CardError: an unknown option, or `others` is not a list.
    """
    names = [as_label(str(name)).lower() for name in card_options(card, {"others": []})["others"]]
    frame = image_folder.read(root, _as_folders(card))
    others = frame["label"].map(as_label).str.lower().isin(names)
    frame["split"] = frame["split"].mask(others, "others_" + frame["split"])
    if names and not others.any():
        frame.attrs["notes"] = [
            f"none of the folders {', '.join(names)} is in {root / 'all'}; if pictures of no product have a folder of another "
            "name, put it under `others` in the card's options (an empty list there ends this note)"
        ]
    return frame


def _as_folders(card: Card) -> Card:
    return replace(card, options={"split_folders": _FOLDERS})
