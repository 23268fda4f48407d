"""One picture is asked: its nearest references, the decision at the threshold in use, and which parts match."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML
from PIL import Image

from workbench.data.images import ImageError, load_image
from workbench.report.live_page import LiveFigure
from workbench.report.patch_figures import patch_matches
from workbench.report.picture_grid import SIGNS, Mark, PictureGrid, Thumbnails, Tile
from workbench.report.pictures import picture_sheet
from workbench.report.threshold_panel import ThresholdPanel
from workbench.runs.files import write_bytes


class Asked(Protocol):
    """What answers: see `retrieval.gallery_trial.GalleryTrial`."""

    def find(self, query_D: np.ndarray, k: int) -> pd.DataFrame: ...  # noqa: D102

    def embed(self, path: Path) -> np.ndarray: ...  # noqa: D102

    def answers(self) -> pd.DataFrame: ...  # noqa: D102

    def query_embedding(self, row: int) -> np.ndarray: ...  # noqa: D102

    def reference_picture(self, reference: int) -> Image.Image: ...  # noqa: D102

    def query_picture(self, row: int) -> Image.Image: ...  # noqa: D102

    def match(self, query: Image.Image, reference: Image.Image) -> tuple[Any, np.ndarray, np.ndarray, str]: ...  # noqa: D102


class QueryPanel:
    """A query by name, by path, by chance or dropped, and its answer.

    Attributes:
        text: the name of a query, or the path of a picture; Enter asks.
        next_query, next_wrong: buttons that go on to the next query, and to the next one that is answered wrongly.
        grid: the query and its nearest references; its note is the decision.
        compare: a button that draws which parts match in `parts`.
        box: all of it.
    """

    def __init__(
        self, asked: Asked, threshold: ThresholdPanel, files: list[Path], dropped: Path, num_shown: int = 8
    ) -> None:
        """A panel without an answer.

        Args:
            asked: what answers.
            threshold: whose threshold decides.
            files: pictures that were asked by path get their place in this list, which is their number.
            dropped: folder for pictures that were dropped.
            num_shown: references at most.
        """
        self._asked, self._threshold, self._files, self._dropped = asked, threshold, files, dropped
        self._num_shown = num_shown
        self._answers = asked.answers()
        self._query: tuple[Tile, np.ndarray, str | None] | None = None
        self._found = pd.DataFrame()
        self._row = -1
        self.thumbnails = Thumbnails(self.picture)
        self.text = widgets.Combobox(
            placeholder="name of a query, or path of a picture",
            options=self._answers["name"].tolist()[:2000],
            description="Picture",
            continuous_update=False,
            layout={"width": "34rem", "max_width": "100%"},
        )
        self.next_query = widgets.Button(description="Next query")
        self.next_wrong = widgets.Button(description="Next wrong answer", layout={"width": "auto"})
        self.compare = widgets.Button(description="Which parts match?", disabled=True, layout={"width": "auto"})
        self.grid = PictureGrid(
            self.thumbnails,
            title="Nearest references",
            drop_text="Drop a picture here, or press to choose one",
            note="Choose, type or drop a picture.",
        )
        self.parts = widgets.VBox([])
        buttons = widgets.HBox([self.next_query, self.next_wrong, self.compare], layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([self.text, buttons, self.grid, self.parts])
        self.text.observe(lambda change: self._typed(change["new"]), "value")
        self.next_query.on_click(lambda _: self._step(wrong=False))
        self.next_wrong.on_click(lambda _: self._step(wrong=True))
        self.compare.on_click(lambda _: self._compare())
        self.grid.on_drop(self._take)
        threshold.on_move(lambda _: self._decide())

    def picture(self, kind: str, number: int) -> Image.Image:
        """The picture of a reference, a query or a file that was asked; `ImageError` where there is none."""
        if kind == "reference":
            return self._asked.reference_picture(number)
        if kind == "query":
            return self._asked.query_picture(number)
        return load_image(self._files[number], target_px=192)

    def ask_query(self, row: int) -> None:
        """Asks the query of this row."""
        self._row, answer = row, self._answers.iloc[row]
        tile = Tile(("query", row), str(answer["label"]), "query")
        self._ask(tile, self._asked.query_embedding(row), str(answer["label"]))

    def ask_file(self, path: Path) -> None:
        """Asks the picture of a file; what cannot be used is said in the note."""
        try:
            query_D = self._asked.embed(path)
        except ImageError as error:
            self._refuse(f"{path} cannot be asked: {error.reason}.")
            return
        self._files.append(path)
        self._ask(Tile(("file", len(self._files) - 1), path.name, "query"), query_D, None)

    def _refuse(self, why: str) -> None:
        self._query = None
        self.compare.disabled = True
        self.parts.children = ()
        self.grid.show([], why)

    def ask_again(self) -> None:
        """Asks the same picture again: the gallery was changed."""
        self._answers = self._asked.answers()
        self.thumbnails.forget()
        if self._query is not None:
            self._ask(*self._query)

    def _ask(self, tile: Tile, query_D: np.ndarray, label: str | None) -> None:
        self._query = (tile, query_D, label)
        self._found = self._asked.find(query_D, self._num_shown)
        tiles = answer_tiles(tile, self._found, label)
        self.parts.children = ()
        self.compare.disabled = False
        self.grid.show(tiles, self._decision())

    def _decide(self) -> None:
        if self._query is not None:
            self.grid.note = self._decision()

    def _decision(self) -> str:
        assert self._query is not None
        return decision(self._found, self._threshold.threshold, self._query[2])

    def _step(self, wrong: bool) -> None:
        rows = np.flatnonzero(~self._answers["is_right"]) if wrong else np.arange(len(self._answers))
        if not len(rows):
            self.grid.note = "No query is answered wrongly."
            return
        later = rows[rows > self._row]
        self.ask_query(int((later if len(later) else rows)[0]))

    def _typed(self, text: str) -> None:
        if not text.strip():
            return
        rows = np.flatnonzero(self._answers["name"] == text)
        if len(rows):
            self.ask_query(int(rows[0]))
        else:
            self.ask_file(Path(text.strip()).expanduser())

    def _take(self, name: str, content: bytes) -> None:
        path = self._dropped / (Path(name.replace("\\", "/")).name or "picture")
        try:
            write_bytes(path, content)
        except (OSError, ValueError) as error:  # a name too long, "..", a full disk; a name with a zero byte
            self._refuse(f"{name[:80]} cannot be kept: {getattr(error, 'strerror', None) or error}.")
            return
        self.ask_file(path)

    def _compare(self) -> None:
        if self._query is None or self._found.empty:
            return
        picked = self.grid.picked
        key = (
            picked.key
            if picked and picked.key[0] == "reference"
            else ("reference", int(self._found["reference"].iloc[0]))
        )
        try:
            pictures = self.picture(*self._query[0].key), self.picture(*key)
            figure = parts_figure(self._asked.match, pictures, f"{self._query[0].caption}, reference {key[1]}")
        except ValueError as error:  # an ImageError is one; a trunk without a map is another
            self.grid.note = str(error)
            return
        self.parts.children = (LiveFigure(figure),)


def decision(found: pd.DataFrame, threshold: float, label: str | None = None) -> str:
    """What is answered to a query, in words: `found` is what `Asked.find` gives, `label` what the query shows, if it is known."""
    label_1, similarity_1 = str(found["label"].iloc[0]), float(found["similarity"].iloc[0])
    near = f"nearest {label_1} at {similarity_1:.4f}"
    text = (
        f"Accepted as {label_1}: {near}, above the threshold {threshold:.4f}."
        if similarity_1 > threshold
        else f"Unknown: {near}, not above the threshold {threshold:.4f}."
    )
    return text if label is None else f"{text} It shows {label}."


def answer_tiles(query: Tile, found: pd.DataFrame, label: str | None = None) -> list[Tile]:
    """The query and its nearest references as thumbnails, right and wrong ones marked where its label is known."""
    tiles = [query]
    for one in found.itertuples():
        mark: Mark = "plain" if label is None else "right" if one.label == label else "wrong"
        tiles.append(Tile(("reference", int(one.reference)), f"{one.label}\n{one.similarity:.4f}", mark))  # type: ignore[arg-type]
    return tiles


def answer_sheet(asked: Asked, row: int, threshold: float, num_shown: int = 8) -> HTML:
    """A query of the set and its nearest references, still: what `QueryPanel` shows live."""
    answer = asked.answers().iloc[row]
    label, found = str(answer["label"]), asked.find(asked.query_embedding(row), num_shown)
    tiles = answer_tiles(Tile(("query", row), label, "query"), found, label)
    pictures = [
        picture_or_reason(asked.query_picture, row),
        *(picture_or_reason(asked.reference_picture, tile.key[1]) for tile in tiles[1:]),
    ]
    captions = [f"{SIGNS[tile.mark]}{tile.caption}".replace("\n", ", ") for tile in tiles]
    return picture_sheet(pictures, captions, title=decision(found, threshold, label))


def picture_or_reason(picture: Callable[[int], Image.Image], number: int) -> Image.Image | str:
    """The picture of this number, or in words why there is none, for a `picture_sheet`."""
    try:
        return picture(number)
    except ImageError as error:
        return str(error)


def answer_parts(asked: Asked, row: int) -> go.Figure | HTML:
    """Which parts of a query of the set and of its nearest reference match; where that cannot be drawn, both and the reason."""
    answer = asked.answers().iloc[row]
    reference = int(answer["reference"])
    captions = [f"query {answer['label']}", f"its nearest reference {answer['answer']}"]
    try:
        pictures = asked.query_picture(row), asked.reference_picture(reference)
        return parts_figure(asked.match, pictures, ", ".join(captions))
    except ValueError as error:  # an ImageError is one; a trunk without a map is another
        shown = [picture_or_reason(asked.query_picture, row), picture_or_reason(asked.reference_picture, reference)]
        return picture_sheet(shown, captions, title=f"Which parts match cannot be drawn: {error}")


def parts_figure(
    match: Callable[[Image.Image, Image.Image], tuple[Any, np.ndarray, np.ndarray, str]],
    pictures: tuple[Image.Image, Image.Image],
    subtitle: str,
) -> go.Figure:
    """Which parts of two pictures match, as `match` (see `Asked`) finds them."""
    found, query, reference, words = match(*pictures)
    arrays = found.heat_hw, found.heat_yx, found.pair_M4, found.similarity_M
    return patch_matches(arrays, (query, reference), words, subtitle)
