"""The map of a gallery, live: a click or a lasso shows thumbnails, filters show a part of the points."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from workbench.report.explore_figures import KINDS, embedding_map, point_arrays
from workbench.report.live_page import LiveFigure
from workbench.report.picture_grid import PictureGrid, Thumbnails, Tile

NUM_SHOWN = 24
_HOW = "Click a point, or draw a lasso around some."
_NONE = "No point passes these filters."
ALL = "all"


class GalleryMap:
    """Map, filters and the thumbnails of what was picked.

    Attributes:
        figure: the map; its traces are the kinds of `explore_figures.KINDS`, in their order.
        label: a class, or "" for all; wrong: only wrong answers; domain: a domain, or "all". Offered is what the points have.
        grid: thumbnails of the points that were clicked or lassoed, 24 at a time.
        more: shows the next ones.
        box: all of it.
    """

    def __init__(self, points: pd.DataFrame, words: str, thumbnails: Thumbnails, subtitle: str = "") -> None:
        """A map of `points` (see `explore_figures.embedding_map`), with `number`: a reference's id or a query's row."""
        self.points, self._words, self._subtitle = points, words, subtitle
        self.figure = self._draw()
        self.label = widgets.Combobox(placeholder="every class", description="Class", continuous_update=False)
        self.domain = widgets.Dropdown(options=[ALL], description="Domain")
        self.wrong = widgets.Checkbox(description="wrong answers only", indent=False)
        self.grid = PictureGrid(thumbnails, title="Picked on the map", note=_HOW)
        self.more = widgets.Button(description="Next 24", disabled=True)
        self.box = widgets.VBox(
            [
                widgets.HBox([self.label, self.domain, self.wrong], layout={"flex_flow": "row wrap"}),
                self.figure,
                self.grid,
                self.more,
            ]
        )
        self._rows, self._from = np.empty(0, dtype=np.int64), 0
        self._listeners: list[Callable[[Tile], None]] = []
        self._offer()
        for filter_ in (self.label, self.domain, self.wrong):
            filter_.observe(lambda _: self._filter(), "value")
        self.more.on_click(lambda _: self._show(self._from + NUM_SHOWN))
        self.grid.observe(lambda _: self._picked(), "selected")

    def on_pick(self, listener: Callable[[Tile], None]) -> None:
        """Calls `listener` with each thumbnail that is picked."""
        self._listeners.append(listener)

    def redraw(self, points: pd.DataFrame, words: str) -> None:
        """Shows these points from now on: the gallery was changed; `words` as at the beginning.

        A filter keeps what was chosen, and leaves all where no point has it any more.
        """
        before, self.points, self._words = self.figure, points, words
        self.figure = self._draw()  # a new one: a browser that still loads the old one cannot miss an update
        self.box.children = tuple(self.figure if one is before else one for one in self.box.children)
        self._offer()
        if len(self.visible_rows()) < len(points):
            self._filter()
        self._pick_rows(np.empty(0, dtype=np.int64))

    def visible_rows(self) -> np.ndarray:
        """The rows of `points` that the filters leave, ascending."""
        points = self.points
        kept = np.ones(len(points), dtype=bool)
        if self.label.value:
            kept &= ((points["label"] == self.label.value) | (points["answer"] == self.label.value)).to_numpy()
        if self.domain.value != ALL:
            kept &= (points["domain"] == self.domain.value).to_numpy()
        if self.wrong.value:
            kept &= (points["kind"] == "wrong").to_numpy()
        return np.flatnonzero(kept)

    def _offer(self) -> None:
        """Offers the classes and the domains that the points have."""
        labels, domains = _names(self.points["label"]), _names(self.points["domain"])
        self.label.options = labels
        if self.label.value not in labels:
            self.label.value = ""
        chosen = self.domain.value
        self.domain.options = [ALL, *domains]  # which chooses the first of them
        self.domain.value = chosen if chosen in domains else ALL

    def _draw(self) -> LiveFigure:
        figure = LiveFigure(embedding_map(self.points, self._words, self._subtitle))
        figure.update_layout(dragmode="lasso")
        figure.on_pick(lambda rows: self._pick_rows(np.asarray(rows, dtype=np.int64)))
        return figure

    def _filter(self) -> None:
        rows = self.visible_rows()
        kind_P = self.points["kind"].to_numpy()[rows]
        with self.figure.batch_update():
            for trace, kind in zip(self.figure.data, KINDS, strict=True):
                of_kind = rows[kind_P == kind]
                arrays = point_arrays(self.points, of_kind)
                trace.x, trace.y, trace.text, trace.customdata = (
                    arrays["x"],
                    arrays["y"],
                    arrays["text"],
                    arrays["customdata"],
                )
                trace.selectedpoints = None
                trace.visible = bool(len(of_kind))
        if not len(rows):
            self.grid.show([], _NONE)
        elif self.grid.note == _NONE:
            self.grid.note = _HOW

    def _pick_rows(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._show(0)

    def _show(self, start: int) -> None:
        self._from = start if start < len(self._rows) else 0
        shown = self.points.iloc[self._rows[self._from : self._from + NUM_SHOWN]]
        self.more.disabled = len(self._rows) <= NUM_SHOWN
        many = len(self._rows) > NUM_SHOWN
        part = f", {self._from + 1} to {self._from + len(shown)} shown" if many else ""
        points = "1 point" if len(self._rows) == 1 else f"{len(self._rows):,} points"
        note = f"{points} picked{part}." if len(self._rows) else "Nothing is picked."
        self.grid.show([_tile(point) for point in shown.itertuples()], note)

    def _picked(self) -> None:
        tile = self.grid.picked
        if tile is not None:
            for listener in self._listeners:
                listener(tile)


def _tile(point: Any) -> Tile:
    if point.kind == "reference":
        return Tile(("reference", int(point.number)), f"{point.label}\nreference {point.number}")
    if point.kind == "wrong":
        return Tile(("query", int(point.number)), f"{point.label}\ntaken for {point.answer}", "wrong")
    return Tile(("query", int(point.number)), str(point.label), "right" if point.kind == "right" else "query")


def _names(column: pd.Series) -> list[str]:
    return sorted({str(name) for name in column})
