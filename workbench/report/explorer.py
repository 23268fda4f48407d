"""The explorer: threshold, query, map and changes, which follow each other. Everything is computed by what it is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pandas as pd

from workbench.report.change_panel import Changed, ChangePanel
from workbench.report.gallery_map import GalleryMap
from workbench.report.picture_grid import Tile
from workbench.report.query_panel import Asked, QueryPanel
from workbench.report.threshold_panel import Counts, ThresholdPanel


class Trial(Asked, Changed, Protocol):
    """A gallery with changes on trial: see `retrieval.gallery_trial.GalleryTrial`."""

    def points(self) -> tuple[pd.DataFrame, str]: ...  # noqa: D102

    def measured(self) -> list[tuple[str, float]]: ...  # noqa: D102


class Explorer:
    """Four panels, each with a `box` to display.

    Attributes:
        threshold, query, map, change: the panels.
    """

    def __init__(
        self,
        trial: Trial,
        count: Callable[[], Counts],
        threshold: float,
        *,
        dropped: Path,
        subtitle: str = "",
    ) -> None:
        """The panels of a trial.

        Args:
            trial: what is asked and changed.
            count: gives the counts of the gallery as it is now; called at once and after each change.
            threshold: in use at the beginning, cosine similarity.
            dropped: folder for pictures that are dropped into the page.
            subtitle: whose queries they are, in words; without counts of the gallery, which changes.
        """
        self._trial, self._count = trial, count
        self.threshold = ThresholdPanel(count(), threshold, trial.measured(), subtitle)
        self.query = QueryPanel(trial, self.threshold, [], dropped)
        points, words = trial.points()
        self.map = GalleryMap(points, words, self.query.thumbnails, subtitle)
        self.change = ChangePanel(trial, self.refresh)
        self.map.on_pick(self._picked)
        self.query.grid.observe(lambda _: self._pick(self.query.grid.picked), "selected")

    def refresh(self) -> None:
        """Shows the gallery as it is now, after the trial was changed from outside of the panels."""
        self.threshold.count(self._count(), self._trial.measured())
        self.query.ask_again()
        self.map.redraw(*self._trial.points())

    def _picked(self, tile: Tile) -> None:
        """A query that is picked on the map is asked; a reference can be marked as bad."""
        if tile.key[0] == "query":
            self.query.ask_query(tile.key[1])
        self._pick(tile)

    def _pick(self, tile: Tile | None) -> None:
        if tile is not None:
            self.change.pick(tile)
