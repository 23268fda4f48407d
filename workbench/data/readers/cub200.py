"""Reader of Caltech-UCSD Birds-200-2011: `images.txt` and the other lists of the archive, beside the folder `images`.

Options of the card:
    split: `class_disjoint` (the classes 1 to 100 are for training, 101 to 200 for testing, as metric learning has it) or
        `official` (`train_test_split.txt`, which has every class in both).
    boxes: true gives each bird's box; false, the default, the whole picture, with which most numbers are published.
    references_per_class: see `fields.part_test`; 0, the default, leaves the split `test` whole.

Source: Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", Technical Report CNS-TR-2011-001,
and the readme of its archive.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.card import Card, card_error, card_options, check_keys
from workbench.data.readers.fields import check_single, join, part_test, read_fields, recognition_frame, to_numbers
from workbench.data.readers.listing import LayoutError, check_listed, few

LAST_TRAINING_CLASS = 100
_DEFAULTS = {"split": "class_disjoint", "boxes": False, "references_per_class": 0}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if (root / "images.txt").is_file():
        return None
    if (root / "CUB_200_2011" / "images.txt").is_file():
        return f"the set is its folder {root / 'CUB_200_2011'}"
    return "no images.txt in it"


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, and box_x to box_height when asked for, in the list's order.

    The label is the class name with its number (`001.Black_footed_Albatross`). Boxes are in pixels as listed; one that leaves
    its picture is not noticed here, because no picture is opened.

    Raises:
        LayoutError: a malformed line (with its number), an image without class, split or box or with two of them, a class
            number, split or box that is no number, a listed file that is not there.
        CardError: an unknown option or value.
    """
    options = card_options(card, _DEFAULTS)
    try:
        check_keys([options["split"]], ("class_disjoint", "official"), "value of the option 'split':")
    except ValueError as error:
        raise card_error(card, error) from error
    rows = read_fields(root / "images.txt", ("image_id", "path"))
    check_single(rows["path"], root / "images.txt")
    rows = _joined(root, rows, "image_class_labels.txt", ("image_id", "class_id"))
    rows = _joined(root, rows, "classes.txt", ("class_id", "name"))
    if options["split"] == "official":
        mark = _joined(root, rows, "train_test_split.txt", ("image_id", "mark"), ("mark",))["mark"]
        if not mark.isin((0, 1)).all():
            raise LayoutError(
                f"{root / 'train_test_split.txt'} has other marks than 0 and 1: {few(list(mark.unique()))}."
            )
        training = mark == 1
    else:
        training = to_numbers(rows[["class_id"]], root / "images.txt")["class_id"] <= LAST_TRAINING_CLASS
    paths = "images/" + rows["path"]
    check_listed(root, paths.tolist(), "images.txt")
    frame = recognition_frame(paths, rows["name"], np.where(training, "train", "test").tolist())
    if options["boxes"]:
        boxes = _joined(root, rows, "bounding_boxes.txt", ("image_id", *BOX_COLUMNS), BOX_COLUMNS)
        frame = frame.assign(**{name: boxes[name].to_numpy() for name in BOX_COLUMNS})
    return part_test(frame, options["references_per_class"])


def _joined(
    root: Path, rows: pd.DataFrame, name: str, columns: tuple[str, ...], numbers: tuple[str, ...] = ()
) -> pd.DataFrame:
    table = read_fields(root / name, columns)
    table[list(numbers)] = to_numbers(table[list(numbers)], root / name)
    return join(rows, table, columns[0], root / name)
