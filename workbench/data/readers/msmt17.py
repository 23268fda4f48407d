"""Reader of MSMT17 as its authors distribute it: lists of `path identity` beside the folders of the pictures.

A file is named `PPPP_NNN_CC_DDDDtime_FFFF_N.jpg`: the third part C is the camera. Version V1 has the folders `train` and
`test`, V2, whose faces are masked, `mask_train_v2` and `mask_test_v2`; the lists are the same.

The identities of training and of testing are both counted from 0 and belong to different people. The label says which:
`train-0000` and `test-0000` are two people.

Options of the card: `val`, `apart` (the list `list_val.txt` is the split val; default) or `train` (its pictures belong to
the split train, as in many published results); `version`, V1 or V2, when both are there.

Source: Wei, Zhang, Gao, Tian, "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018.
"""

import re
from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_error, check_keys
from workbench.data.readers.fields import read_fields
from workbench.data.readers.listing import LayoutError, check_listed, check_plain

VERSIONS = {
    "V1": {"train": "train", "test": "test"},
    "V2": {"train": "mask_train_v2", "test": "mask_test_v2"},
}
# The list of each split, and which side's people and folder it speaks of.
_LISTS = {
    "train": ("list_train.txt", "train"),
    "val": ("list_val.txt", "train"),
    "query": ("list_query.txt", "test"),
    "gallery": ("list_gallery.txt", "test"),
}
_NAME = r"(?:^|/)[^/_]*_[^/_]*_(?P<camera>[0-9]{1,9})_[^/]*\.(?:jpg|jpeg|png)$"


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    for below in ("MSMT17_V1", "MSMT17_V2"):
        if not _has_list(root) and _has_list(root / below):
            return f"the set is its folder {root / below}"
    if not _has_list(root):
        return f"none of the lists {', '.join(name for name, _ in _LISTS.values())}"
    if not _versions(root):
        return "neither the folders train and test (V1) nor mask_train_v2 and mask_test_v2 (V2)"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order train, val, query, gallery, then of the lists.

    The label is `train-` or `test-` and the identity of the list, of four digits at least. The group is empty, the domain
    real. Splits whose list is not there are left out; pictures that no list names are not read.

    Raises:
        LayoutError: a malformed line (with its number), a listed file that is not there or beyond a link out of `root`,
            both versions and no option that says which, or not the version that the option says.
        CardError: an unknown option.
    """
    try:
        check_keys(card.options, ("val", "version"), "option")
        check_keys([card.options.get("val", "apart")], ("apart", "train"), "value of the option 'val':")
        check_keys([card.options.get("version", "V1")], VERSIONS, "value of the option 'version':")
    except ValueError as error:
        raise card_error(card, error) from error
    folders = VERSIONS[_version(root, card)]
    parts = [
        _read_list(root, name, side, folders[side]).assign(split=split)
        for split, (name, side) in _LISTS.items()
        if (root / name).is_file()
    ]
    frame = pd.concat(parts, ignore_index=True)
    if card.options.get("val") == "train":
        frame["split"] = frame["split"].mask(frame["split"] == "val", "train")
    return frame[["path", "label", "split", "camera", "group", "domain"]]


def _has_list(folder: Path) -> bool:
    return any((folder / name).is_file() for name, _ in _LISTS.values())


def _versions(root: Path) -> list[str]:
    return [name for name, folders in VERSIONS.items() if any((root / folder).is_dir() for folder in folders.values())]


def _version(root: Path, card: Card) -> str:
    there = _versions(root)
    wanted = card.options.get("version")
    if wanted is None and len(there) > 1:
        raise LayoutError(
            f"{root} holds the pictures of both versions, V1 and V2 (faces masked). Say which one is meant: options: "
            f"{{version: V2}} in a copy of the card {card.path}; or remove one."
        )
    if wanted is not None and wanted not in there:
        raise LayoutError(
            f"The card {card.path} asks for version {wanted}; {root} holds {' and '.join(there)}. "
            f"Wanted: the folders {' and '.join(VERSIONS[wanted].values())}."
        )
    return wanted or there[0]


def _read_list(root: Path, name: str, side: str, folder: str) -> pd.DataFrame:
    fields = read_fields(root / name, ("path", "identity"))
    if fields.empty:
        raise LayoutError(f"{root / name} is empty. Download it again.")
    check_plain(fields["path"].tolist(), name)
    camera = fields["path"].str.extract(_NAME, flags=re.IGNORECASE)["camera"]
    bad = fields[camera.isna() | ~fields["identity"].str.fullmatch("[0-9]+")]
    if len(bad):
        raise LayoutError(
            f"{root / name}, line {bad.index[0]}: wanted a picture, the camera being the third part of its name, and the "
            f"number of a person, as '0000/0000_000_01_0303morning_0008_0.jpg 0'; found {' '.join(bad.iloc[0])!r} "
            f"({len(bad)} such lines)."
        )
    frame = pd.DataFrame(
        {
            "path": f"{folder}/" + fields["path"],
            "label": f"{side}-" + fields["identity"].str.zfill(4),
            "camera": pd.to_numeric(camera).astype("Int64"),
            "group": pd.Series(None, index=fields.index, dtype="str"),
            "domain": "real",
        }
    )
    check_listed(root, frame["path"].tolist(), name)
    return frame
