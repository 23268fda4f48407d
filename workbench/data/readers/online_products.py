"""Reader of Stanford Online Products: `Ebay_train.txt`, `Ebay_test.txt` and twelve folders of pictures.

A line is `image_id class_id super_class_id path`, below a header line. The classes 1 to 11318 are for training, 11319 to 22634
for testing. Option of the card: `references_per_class`, see `fields.part_test`; 0, the default, leaves the split `test` whole.

Source: Oh Song, Xiang, Jegelka, Savarese, "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016.
"""

from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.readers.fields import part_test, read_fields, recognition_frame
from workbench.data.readers.listing import LayoutError, check_listed, few

_COLUMNS = ("image_id", "class_id", "super_class_id", "path")
_LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / name).is_file() for name in _LISTS.values()):
        return f"none of the lists {', '.join(_LISTS.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order of the lists, train first.

    The label is the class number as it is written, `group` the folder of the super class (`bicycle_final`). A list that is
    not there is left out.

    Raises:
        LayoutError: no header line, a malformed line (with its number), a class in both lists, a listed file that is not
            there.
        CardError: an unknown option, or a number of references below 0.
    """
    num_references = card_options(card, {"references_per_class": 0})["references_per_class"]
    frames = []
    for split, name in _LISTS.items():
        if not (root / name).is_file():
            continue
        table = read_fields(root / name, _COLUMNS)
        if table.empty or tuple(table.iloc[0]) != _COLUMNS:
            raise LayoutError(f"{root / name} does not begin with the header line '{' '.join(_COLUMNS)}'.")
        table = table.iloc[1:]
        check_listed(root, table["path"].tolist(), name)
        frames.append(recognition_frame(table["path"], table["class_id"], split, table["path"].str.split("/").str[0]))
    if len(frames) == 2:
        both = sorted(set(frames[0]["label"]) & set(frames[1]["label"]))
        if both:
            raise LayoutError(f"{len(both)} classes are in both lists: {few(both)}. Wanted: no class in common.")
    return part_test(pd.concat(frames, ignore_index=True), num_references)
