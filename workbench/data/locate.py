"""Where the files of a data set lie."""

import importlib
import os
from pathlib import Path
from types import ModuleType

from workbench.data.card import Card, resolve_path
from workbench.runs.root import find_root


class MissingDataError(FileNotFoundError):
    """A data set that is in none of the places where it was looked for."""


def reader_of(card: Card) -> ModuleType:
    """The module that reads the card's layout: `read(root, card)` and `find_fault(root, card)`, or `draw(card)`."""
    return importlib.import_module(f"workbench.data.readers.{card.reader}")


def find_data_root(card: Card, data_root: str | Path | None = None) -> Path:
    """The folder of the card's set, absolute.

    With `data_root`: the folder of the set's name in it, or it itself, and nowhere else, so that a mistyped folder is
    not answered with other data. Without: `$WORKBENCH_DATA/<name>`, then `data/<name>` in the workbench's root. A folder
    that does not have the card's layout is passed over, with the reason in the message. A set that is drawn by code is
    drawn and needs none of these.

    Raises:
        MissingDataError: none of the places holds the set; says all that were tried, where the set comes from and the
            layout that is wanted.
    """
    reader = reader_of(card)
    if hasattr(reader, "draw"):
        return Path(reader.draw(card)).resolve()
    tried = []
    for place in _places(card, data_root):
        fault = reader.find_fault(place, card) if place.is_dir() else "no such folder"
        if fault is None:
            return place.resolve()
        tried.append(f"  {place}: {fault}")
    if data_root is None and not os.environ.get("WORKBENCH_DATA"):
        tried.insert(0, "  $WORKBENCH_DATA: not set")
    layout = "\n".join(f"  {line}" for line in card.layout.splitlines())
    note = "" if data_root is None else " (data_root is given, so $WORKBENCH_DATA and data/ were left aside)"
    raise MissingDataError(
        f"The data set {card.name!r} is not here{note}. Tried:\n"
        + "\n".join(tried)
        + f"\nWhere it comes from: {card.source}\nLayout wanted:\n{layout}\n"
        "Put it into one of these places, or give its folder as data_root."
    )


def _places(card: Card, data_root: str | Path | None) -> list[Path]:
    if data_root is not None:
        folder = resolve_path(data_root)
        return [folder / card.name, folder]
    stated = os.environ.get("WORKBENCH_DATA")
    places = [resolve_path(stated) / card.name] if stated else []
    return [*places, find_root() / "data" / card.name]
