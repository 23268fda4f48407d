"""Reader of the Market-1501 layout, which most person re-identification code reads and other sets are brought into.

A file is named `PPPP_cCsS_FFFFFF_NN.jpg`: identity P, camera C, sequence S, frame F. Identity -1 is junk, 0 a distractor.
The names of crops from the AI City Challenge (`0907_c135s1_01_00.png`), of VeRi-776 (`0002_c002_00030600_0.jpg`) and of
DukeMTMC (`0001_c2_f0046182.jpg`; that set is withdrawn, and the workbench does not offer it) are of this kind.

Options of the card: `group`, `sequence` (the S) or `frame` (the F) when that part means something in the set; `domain`, when
the pictures are not photographs (`synthetic`; default `real`).

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and the readme of its archive.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workbench.data.card import DOMAINS, Card, card_error, check_keys
from workbench.data.file_names import IMAGE_SUFFIXES
from workbench.data.readers.listing import LayoutError, check_link, few, scan, text_column

SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
# The sign belongs to the identity: without it junk (-1) would become person 1. The name alone is parsed, never the
# path. Cameras may have several digits, the sequence may be absent, and what follows the third underscore is ignored.
_NAME = (
    r"^(?P<label>-0*1|[0-9]+)_c(?P<camera>[0-9]{1,9})(?:s(?P<sequence>[0-9]+))?"
    rf"(?:_(?P<frame>[^_]+?)(?:_.*)?)?(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})$"
)


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / folder).is_dir() for folder in SPLIT_FOLDERS.values()):
        return f"none of the folders {', '.join(SPLIT_FOLDERS.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order train, query, gallery, then by name.

    The label is the identity as it stands in the file name ("0002" stays "0002"), "-1" for junk and "0" for a
    distractor. Split folders that are not there are left out; the other parts of the original archive (`gt_bbox`,
    `gt_query`) are not read.

    Raises:
        LayoutError: a file whose name is not of this kind, a split folder that is empty, that holds folders, or that is
            a link out of `root`.
        CardError: an unknown option.
    """
    try:
        check_keys(card.options, ("group", "domain"), "option")
        check_keys([card.options.get("group", "frame")], ("sequence", "frame"), "value of the option 'group':")
        check_keys([card.options.get("domain", "real")], DOMAINS, "value of the option 'domain':")
    except ValueError as error:
        raise card_error(card, error) from error
    frame = read_folders(root, SPLIT_FOLDERS, card.options.get("group"))
    return frame.assign(domain=card.options.get("domain", "real"))


def read_folders(root: Path, split_folders: Mapping[str, str], group: str | None = None) -> pd.DataFrame:
    """The rows of pictures that are named in this way, as `read` gives them, with the domain real.

    Args:
        root: the set's folder.
        split_folders: the folder of each split; those that are not there are left out, one has to be there.
        group: `sequence` or `frame`, the part of the name that becomes the group; None for no group.

    Raises:
        LayoutError: see `read`.
    """
    parts = []
    for split, folder in split_folders.items():
        if (root / folder).is_dir():
            check_link(root / folder, root)
            parts.append(_read_folder(root, folder, split, group))
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
