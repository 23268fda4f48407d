"""Reader of the Market-1501 layout, which most person re-identification code reads and other sets are brought into.

A file is named `PPPP_cCsS_FFFFFF_NN.jpg`: identity P, camera C, sequence S, frame F. Identity -1 is junk, 0 a distractor.
Option of the card: `group`, `sequence` (the S) or `frame` (the F) when that part means something in the set.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and the readme of its archive.
"""

import re
from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_error, check_keys
from workbench.data.readers.listing import LayoutError, few, scan, text_column

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
# The sign belongs to the identity: without it junk (-1) would become person 1. The name alone is parsed, never the
# path. Cameras may have several digits, the sequence may be absent, and what follows the third underscore is ignored.
_NAME = (
    r"^(?P<label>-0*1|[0-9]+)_c(?P<camera>[0-9]+)(?:s(?P<sequence>[0-9]+))?"
    r"(?:_(?P<frame>[^_]+?)(?:_.*)?)?\.(?:jpg|jpeg|png)$"
)


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / folder).is_dir() for folder in SPLIT_FOLDERS.values()):
        return f"none of the folders {', '.join(SPLIT_FOLDERS.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order train, query, gallery, then by name.

    The label is the identity as it stands in the file name ("0002" stays "0002"), "-1" for junk and "0" for a
    distractor. The domain is real. Split folders that are not there are left out; the other parts of the original
    archive (`gt_bbox`, `gt_query`) are not read.

    Raises:
        LayoutError: a file whose name is not of this kind, a split folder that is empty or that holds folders.
        CardError: an unknown option.
    """
    try:
        check_keys(card.options, ("group",), "option")
        check_keys([card.options.get("group", "frame")], ("sequence", "frame"), "value of the option 'group':")
    except ValueError as error:
        raise card_error(card, error) from error
    parts = []
    for split, folder in SPLIT_FOLDERS.items():
        if (root / folder).is_dir():
            parts.append(_read_folder(root, folder, split, card.options.get("group")))
    return pd.concat(parts, ignore_index=True)


def _read_folder(root: Path, folder: str, split: str, group: str | None) -> pd.DataFrame:
    files, folders = scan(root / folder, root)
    if folders:
        raise LayoutError(f"{root / folder} holds folders: {few(folders)}. Wanted: pictures only.")
    if not files:
        raise LayoutError(f"{root / folder} is empty. Wanted: pictures named like 0002_c1s1_000451_03.jpg.")
    names = text_column(files, "file names")
    fields = names.str.extract(_NAME, flags=re.IGNORECASE)
    bad = names[fields["label"].isna()]
    if len(bad):
        raise LayoutError(
            f"{len(bad)} of {len(names)} files in {root / folder} are not named like 0002_c1s1_000451_03.jpg "
            f"(identity, camera, sequence, frame): {few(list(bad))}. Rename or remove them."
        )
    label = fields["label"].mask(fields["label"].str.startswith("-"), "-1")
    label = label.mask(label.str.fullmatch("0+"), "0")
    return pd.DataFrame(
        {
            "path": f"{folder}/" + names,
            "label": label,
            "split": pd.Series(split, index=names.index, dtype="str"),
            "camera": pd.to_numeric(fields["camera"]).astype("Int64"),
            "group": fields[group] if group else pd.Series(None, index=names.index, dtype="str"),
            "domain": pd.Series("real", index=names.index, dtype="str"),
        }
    )
