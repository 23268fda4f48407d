"""A small set in the layout of its authors, for the tests of the readers: files of a few bytes, and a card."""

from pathlib import Path

import pandas as pd

from workbench.data.catalog import Catalog, open_catalog

LONG_NAME = "ü" * 120 + ".jpg"  # 244 bytes: file systems take 255


class Layout:
    """A folder to be filled, and the card of a set that `reader` reads."""

    def __init__(self, folder: Path, reader: str) -> None:
        self.root = folder / "set"
        self.root.mkdir()
        self._card = folder / "cards" / "sample.md"
        self._card.parent.mkdir()
        self._reader = reader

    def write(self, path: str, text: str = "") -> Path:
        """The file at that path of the set, with that text in UTF-8 and its line ends as they are."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8"))
        return file

    def fill(self, *paths: str) -> None:
        """Empty files."""
        for path in paths:
            self.write(path)

    def open(self, extra: str = "") -> Catalog:
        """The catalog of the set; `extra` goes into the card's front matter."""
        self._card.write_text(
            f"---\ntitle: Sample\ntask: recognition\nreader: {self._reader}\nlicence: none\nsource: here\n"
            f"layout: as its authors have it\n{extra}\n---\n",
            encoding="utf-8",
        )
        return open_catalog(str(self._card), data_root=self.root)


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """The rows of these columns as tuples, missing values as None."""
    part = frame[list(columns)].astype(object)
    return list(part.where(part.notna(), None).itertuples(index=False, name=None))
