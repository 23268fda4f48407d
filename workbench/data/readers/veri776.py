"""Reader of VeRi-776 as its authors distribute it: vehicles under twenty cameras, named as in the Market-1501 layout.

A file is named `VVVV_cCCC_FFFFFFFF_N.jpg`: vehicle V, camera C, time F. The lists `name_train.txt`, `name_query.txt` and
`name_test.txt` of the archive need not be there; one that is there has to name the files of its folder.

Source: Liu, Liu, Mei, Ma, "PROVID: Progressive and Multimodal Vehicle Reidentification for Large-Scale Urban Surveillance",
IEEE Transactions on Multimedia 20(3), 2018, and the readme of the archive.
"""

from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.readers.fields import read_lines
from workbench.data.readers.listing import LayoutError, check_listed, few
from workbench.data.readers.market1501 import read_folders

SPLIT_FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if any((root / folder).is_dir() for folder in SPLIT_FOLDERS.values()):
        return None
    if (root / "VeRi" / SPLIT_FOLDERS["query"]).is_dir():
        return f"the set is its folder {root / 'VeRi'}"
    return f"none of the folders {', '.join(SPLIT_FOLDERS.values())}"


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order train, query, gallery, then by name.

    The label is the vehicle as it stands in the file name ("0002"); the group is empty, the domain real. Split folders
    that are not there are left out. A query is in the gallery too, as a file of its own.

    Raises:
        LayoutError: a file whose name is not of this kind; a folder that is empty, that holds folders or is a link out of
            `root`; a list that does not name the files of its folder, each once.
        CardError: an option; this reader has none.
    """
    card_options(card, {})
    frame = read_folders(root, SPLIT_FOLDERS)
    for split, paths in frame.groupby("split", sort=False)["path"]:
        folder = SPLIT_FOLDERS[str(split)]
        names = root / f"{folder.replace('image', 'name')}.txt"
        if names.is_file():
            _check_names(root, names, folder, paths)
    return frame


def _check_names(root: Path, names: Path, folder: str, paths: pd.Series) -> None:
    listed = f"{folder}/" + read_lines(names).str.strip()
    check_listed(root, listed.tolist(), names.name)
    twice = listed[listed.duplicated()]
    if len(twice):
        raise LayoutError(
            f"{names}, line {twice.index[0]}: {twice.iloc[0]} is listed before ({len(twice)} such lines)."
        )
    unlisted = paths[~paths.isin(listed)].tolist()
    if unlisted:
        raise LayoutError(
            f"{len(unlisted)} of {len(paths)} files in {root / folder} are not listed in {names.name}: {few(unlisted)}. "
            "Remove them; or remove the list, when they belong to the set."
        )
