"""Reader of Products-10K: `train.csv` and `test_kaggletest.csv` beside the folders `train/` and `test/`.

Source: Bai, Chen, Yu, Wang, Zhang, "Products-10K: A Large-scale Product Recognition Dataset", 2020.
"""

from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.readers.fields import recognition_frame
from workbench.data.readers.listing import LayoutError, check_listed, few
from workbench.data.tables import need_columns, open_table

_LISTS = {"train": "train.csv", "test": "test_kaggletest.csv"}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / name).is_file() for name in _LISTS.values()):
        return f"none of the lists {', '.join(_LISTS.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order of the lists, train first.

    The label is the class number as it is written, `group` the number of the coarse group. The test list of some versions has
    no groups: they are then taken from the training list. A list that is not there is left out.

    Raises:
        LayoutError: a list without these columns or with an empty field, a class in two groups, a listed file that is not there.
        CardError: an option; this reader has none.
    """
    card_options(card, {})
    tables = {split: _read_list(root / name) for split, name in _LISTS.items() if (root / name).is_file()}
    groups = _group_of_class(root, tables)
    frames = []
    for split, table in tables.items():
        paths = f"{split}/" + table["name"]
        check_listed(root, paths.tolist(), _LISTS[split])
        frames.append(recognition_frame(paths, table["class"], split, table["class"].map(groups)))
    return pd.concat(frames, ignore_index=True)


def _read_list(path: Path) -> pd.DataFrame:
    table = open_table(path)
    need_columns(table, ("name", "class"), path)
    table = table[[name for name in ("name", "class", "group") if name in table]].apply(
        lambda column: column.str.strip()
    )
    short = table[(table == "").any(axis=1)]
    if len(short):
        raise LayoutError(
            f"{path} has {len(short)} rows with an empty field, the first being {','.join(short.iloc[0])!r}. "
            "Download it again."
        )
    return table


def _group_of_class(root: Path, tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    pairs = pd.concat([table[["class", "group"]] for table in tables.values() if "group" in table] or [_NO_PAIRS])
    pairs = pairs.drop_duplicates()
    twice = pairs["class"][pairs["class"].duplicated()]
    if len(twice):
        raise LayoutError(f"The lists in {root} put {len(twice)} classes into several groups: {few(list(twice))}.")
    return dict(zip(pairs["class"], pairs["group"], strict=True))


_NO_PAIRS = pd.DataFrame({"class": [], "group": []}, dtype="str")
