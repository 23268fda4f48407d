"""Reader of the products that the workbench draws itself: a table `catalog.csv` beside the pictures."""

from pathlib import Path

import pandas as pd

from workbench.data.card import Card
from workbench.data.readers.listing import LayoutError, check_listed, note

_COLUMNS = ["path", "label", "split", "camera", "group", "domain"]


def draw(card: Card) -> Path:
    """The folder with the pictures of the card's options: drawn at the first call, taken from the cache afterwards."""
    # Imported here, because reading a table needs none of the drawing.
    from workbench.data.synthetic.products import synthetic_folder

    return synthetic_folder(card.options)


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order of `catalog.csv`.

    Raises:
        LayoutError: the table is missing or lacks a column, or a listed picture is not there (a damaged cache).
    """
    table = root / "catalog.csv"
    advice = f"Remove the folder {root}; it is drawn anew."
    note(table)
    try:
        frame = pd.read_csv(table, dtype="str", keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LayoutError(f"Cannot read {table}: {error}. {advice}") from error
    missing = [column for column in _COLUMNS if column not in frame.columns]
    if missing:
        raise LayoutError(f"{table} lacks the columns {missing}. {advice}")
    try:
        check_listed(root, frame["path"].tolist(), "catalog.csv")
    except LayoutError as error:
        raise LayoutError(f"{error} {advice}") from error
    frame["camera"] = pd.to_numeric(frame["camera"].mask(frame["camera"] == "")).astype("Int64")
    frame["group"] = frame["group"].mask(frame["group"] == "")
    return frame[_COLUMNS]
