"""Reader of GroceryStoreDataset as its authors distribute it (the content of their folder `dataset/`), whole or in part.

Source: Klasson, Zhang, Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV 2019.
"""

import io
import warnings
from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_error, check_keys
from workbench.data.readers.fields import read_lines, read_text
from workbench.data.readers.listing import LayoutError, check_listed, check_paths, few

PHOTOGRAPH_SPLITS = ("train", "val", "test")
_COLUMNS = {
    "Class Name (str)": "label",
    "Class ID (int)": "class_id",
    "Coarse Class Name (str)": "group",
    "Coarse Class ID (int)": "group_id",
    "Iconic Image Path (str)": "packshot",
    "Product Description Path (str)": "description",
}


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if (root / "classes.csv").is_file():
        return None
    if (root / "dataset" / "classes.csv").is_file():
        return f"this is the authors' repository; the set is its folder {root / 'dataset'}"
    return "no classes.csv in it"


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order of the authors' lists.

    The photographs of train, val and test (those whose list is there) are followed by the packshots as split `reference`
    of domain `packshot` (when their folder is there). The label is the class name, `group` the coarse class of
    `classes.csv`; camera is empty.

    Raises:
        LayoutError: a malformed line (with its number), an unknown class, a listed file that is not there, no list at all.
        CardError: an option; this reader has none.
    """
    try:
        check_keys(card.options, (), "option")
    except ValueError as error:
        raise card_error(card, error) from error
    classes = _read_classes(root)
    parts = [_read_list(root, split, classes) for split in PHOTOGRAPH_SPLITS if (root / f"{split}.txt").is_file()]
    if not parts:
        raise LayoutError(f"{root} has none of the lists train.txt, val.txt, test.txt. Complete the download.")
    folders = {path.split("/")[0] for path in classes["packshot"]}
    if any((root / folder).is_dir() for folder in folders):
        check_listed(root, classes["packshot"].tolist(), "classes.csv")
        packshots = classes.rename(columns={"packshot": "path"})[["path", "label", "group"]]
        parts.append(packshots.assign(split="reference", domain="packshot"))
    frame = pd.concat(parts, ignore_index=True)
    frame["camera"] = pd.Series(pd.NA, index=frame.index, dtype="Int64")
    return frame[["path", "label", "split", "camera", "group", "domain"]]


def read_descriptions(root: Path) -> dict[str, str]:
    """The authors' English product description of each class that has one, by label.

    Where the file that `classes.csv` names is not there (some releases name a few wrongly), the folder is searched for
    `<class>_Description.txt` in any case, with `-` or `_`. A class whose description is missing or empty is left out.

    Raises:
        LayoutError: `classes.csv` is not there or not as expected, or a description is not UTF-8 text.
    """
    descriptions = {}
    for label, listed in _read_classes(root)[["label", "description"]].itertuples(index=False):
        path = root / listed
        if not path.is_file() and path.parent.is_dir():
            wanted = f"{label}_description.txt".lower().replace("-", "_")
            near = [file for file in sorted(path.parent.iterdir()) if file.name.lower().replace("-", "_") == wanted]
            path = near[0] if near else path
        text = read_text(path).strip() if path.is_file() else ""
        if text:
            descriptions[label] = text
    return descriptions


def _read_classes(root: Path) -> pd.DataFrame:
    path = root / "classes.csv"
    text = read_text(path)
    try:
        table = pd.read_csv(io.StringIO(text), dtype="str", keep_default_na=False, skipinitialspace=True)
    except ValueError as error:
        raise LayoutError(f"{path} is not a table: {error}") from error
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise LayoutError(f"{path} has no rows or lacks the columns {few(missing)}. Download it again.")
    table = table[list(_COLUMNS)].rename(columns=_COLUMNS).apply(lambda column: column.str.strip())
    for column in ("packshot", "description"):
        table[column] = table[column].str.removeprefix("/")
        check_paths(list(table[column]))
    for column in ("label", "class_id", "packshot"):
        repeated = table[column][table[column].duplicated()]
        if len(repeated):
            raise LayoutError(f"{path} repeats the {column} {few(list(repeated))}. Each class wants its own.")
    return table


def _read_list(root: Path, split: str, classes: pd.DataFrame) -> pd.DataFrame:
    name = f"{split}.txt"
    lines = read_lines(root / name)
    fields = lines.str.strip().str.extract(r"^(?P<path>.*\S)\s*,\s*(?P<class_id>[0-9]+)\s*,\s*(?P<group_id>[0-9]+)$")
    bad = lines[fields["path"].isna()]
    if len(bad):
        raise LayoutError(
            f"{root / name}, line {bad.index[0]}: wanted 'path, class id, coarse class id', found "
            f"{bad.iloc[0]!r} ({len(bad)} such lines)."
        )
    known = classes.set_index("class_id")[["label", "group", "group_id"]].rename(columns={"group_id": "wanted_id"})
    fields = fields.join(known, on="class_id")
    unknown = fields[fields["label"].isna()]
    if len(unknown):
        raise LayoutError(
            f"{root / name}, line {unknown.index[0]}: the class id {unknown['class_id'].iloc[0]} is not in "
            f"classes.csv ({len(unknown)} such lines)."
        )
    differing = fields[fields["group_id"] != fields["wanted_id"]]
    if len(differing):
        warnings.warn(
            f"{root / name}, line {differing.index[0]}: the coarse id differs from the one in classes.csv, which "
            f"is used ({len(differing)} such lines).",
            stacklevel=2,
        )
    check_listed(root, fields["path"].tolist(), name)
    return fields[["path", "label", "group"]].assign(split=split, domain="real")
