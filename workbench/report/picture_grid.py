"""Thumbnails that can be picked, in JupyterLab: what is seen is sent, as small WEBP data addresses, and nothing else.

All texts are set as text in the browser: a class name is never markup.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import anywidget
import traitlets
from PIL import Image

from workbench.data.file_names import IMAGE_SUFFIXES
from workbench.data.images import ImageError
from workbench.report.markup import webp_address

THUMB_PX = 96
Mark = Literal["plain", "query", "right", "wrong", "bad"]
SIGNS = {"plain": "", "query": "Query. ", "right": "✓ right. ", "wrong": "✗ wrong. ", "bad": "marked as bad. "}


@dataclass(frozen=True)
class Tile:
    """One thumbnail: `key` finds its picture (see `Thumbnails`), `caption` stands below it, `mark` says what it is."""

    key: tuple[str, int]
    caption: str
    mark: Mark = "plain"


class Thumbnails:
    """Pictures by key, as data addresses; the last 2,000 are kept."""

    def __init__(self, load: Callable[[str, int], Image.Image]) -> None:
        """Keeps `load`, which gives the picture of a key (a kind and a number) or raises `ImageError`."""
        self._address = lru_cache(maxsize=2000)(lambda kind, number: webp_address(load(kind, number), THUMB_PX)[0])

    def forget(self) -> None:
        """Forgets all: a number may stand for another picture now."""
        self._address.cache_clear()

    def item(self, tile: Tile) -> dict[str, str]:
        """What the browser gets of a tile; where there is no picture, the reason stands in its place."""
        alternative = f"{SIGNS[tile.mark]}{tile.caption}"
        try:
            return {"src": self._address(*tile.key), "alt": alternative, "caption": alternative, "mark": tile.mark}
        except ImageError as error:
            return {"src": "", "alt": f"No picture: {error}", "caption": alternative, "mark": tile.mark}


class PictureGrid(anywidget.AnyWidget):
    """A line of text and thumbnails; one of them may be selected.

    Attributes:
        items: what `Thumbnails.item` makes.
        title, note: lines above the thumbnails; the note is read out when it changes.
        selected: place of the picked thumbnail, -1 for none.
        drop_text: what a place to drop a picture on says; "" shows none. What is dropped goes to `on_drop`.
        accept: which files the browser offers there; it does not know every suffix as a picture's.
    """

    _esm = Path(__file__).with_name("picture_grid.js")
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    drop_text = traitlets.Unicode("").tag(sync=True)
    accept = traitlets.Unicode(",".join(("image/*", *IMAGE_SUFFIXES))).tag(sync=True)

    def __init__(self, thumbnails: Thumbnails, **traits: Any) -> None:
        """An empty grid that takes its pictures from `thumbnails`."""
        super().__init__(**traits)
        self._thumbnails = thumbnails
        self.tiles: list[Tile] = []
        self._take: Callable[[str, bytes], None] | None = None
        self.on_msg(self._receive)

    def show(self, tiles: Sequence[Tile], note: str | None = None) -> None:
        """Shows these thumbnails in place of those before, none selected."""
        self.tiles = list(tiles)
        with self.hold_sync():
            self.selected = -1
            self.items = [self._thumbnails.item(tile) for tile in tiles]
            if note is not None:
                self.note = note

    def on_drop(self, take: Callable[[str, bytes], None]) -> None:
        """Calls `take` with name and content of each picture that is dropped."""
        self._take = take

    @property
    def picked(self) -> Tile | None:
        """The selected thumbnail."""
        return self.tiles[self.selected] if 0 <= self.selected < len(self.tiles) else None

    def _receive(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        if content.get("kind") == "too large":
            mb = int(content["num_bytes"]) / 1e6
            self.note = (
                f"{content['name']} has {mb:.1f} MB, more than a browser may send (8 MB): type its path instead."
            )
        elif content.get("kind") == "picture" and self._take is not None:
            self._take(str(content["name"]), bytes(buffers[0]))
