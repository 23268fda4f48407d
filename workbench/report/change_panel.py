"""Changes of a gallery on trial: mark references as bad, add a new product, see what it does, undo, save."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from workbench.report.gallery_figures import what_broke
from workbench.report.live_page import LiveFigure
from workbench.report.markup import as_text
from workbench.report.picture_grid import Tile
from workbench.report.pictures import table


class Change(Protocol):
    """What a change did: see `retrieval.gallery_change.GalleryChange`."""

    @property
    def by_label(self) -> pd.DataFrame: ...  # noqa: D102

    @property
    def metrics(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def num_queries(self) -> Mapping[str, int]: ...  # noqa: D102

    @property
    def answers(self) -> pd.DataFrame: ...  # noqa: D102

    def describe(self) -> str: ...  # noqa: D102


class Changed(Protocol):
    """What is changed: see `retrieval.gallery_trial.GalleryTrial`."""

    def mark_bad(self, references: Sequence[int]) -> None: ...  # noqa: D102

    def add_folder(self, folder: str, label: str) -> list[str]: ...  # noqa: D102

    def undo(self) -> None: ...  # noqa: D102

    def change(self) -> Change: ...  # noqa: D102

    def save(self, folder: Path | None = None) -> str: ...  # noqa: D102


class ChangePanel:
    """Buttons for changes, and what they did.

    Attributes:
        picked: the reference that `bad` takes out, set by `pick`.
        bad, add, undo, save: buttons.
        folder, label: of the new product's pictures.
        note: what was done, or why not.
        result: the counts before and after, and what broke.
        box: all of it.
    """

    def __init__(self, changed: Changed, refresh: Callable[[], None]) -> None:
        """A panel without a change; `refresh` is called after each one."""
        self._changed, self._refresh = changed, refresh
        self.picked: Tile | None = None
        self.bad = widgets.Button(description="Mark as bad", disabled=True)
        self.folder = widgets.Text(placeholder="folder of its pictures, or one picture", description="New product")
        self.label = widgets.Text(placeholder="its label", layout={"width": "14rem"})
        self.add = widgets.Button(description="Add")
        self.undo = widgets.Button(description="Undo all")
        self.save = widgets.Button(description="Save as new version", layout={"width": "auto"})
        self.target = widgets.HTML(_line("Pick a reference among the thumbnails above to mark it as bad."))
        self.note = widgets.HTML()
        self.result = widgets.VBox([])
        rows = [[self.bad, self.target], [self.folder, self.label, self.add], [self.undo, self.save]]
        self.box = widgets.VBox(
            [*(widgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows), self.note, self.result]
        )
        self.bad.on_click(lambda _: self._do(self._mark))
        self.add.on_click(lambda _: self._do(self._add))
        self.undo.on_click(lambda _: self._do(self._undo))
        self.save.on_click(lambda _: self._do(self._save))

    def pick(self, tile: Tile) -> None:
        """Takes the thumbnail that was picked anywhere; only a reference can be marked as bad."""
        self.picked = tile if tile.key[0] == "reference" else None
        self.bad.disabled = self.picked is None
        text = f"reference {tile.key[1]}: {tile.caption}" if self.picked else "That is a query; pick a reference."
        self.target.value = _line(text)

    def _do(self, action: Callable[[], str]) -> None:
        try:
            self.note.value = _line(action())
        except (ValueError, OSError) as error:
            self.note.value = _line(f"Not done: {error}")

    def _mark(self) -> str:
        if self.picked is None:
            return "Pick a reference first."
        number = self.picked.key[1]
        self._changed.mark_bad([number])
        self.picked, self.bad.disabled = None, True
        self.target.value = _line("Pick a reference among the thumbnails above to mark it as bad.")
        self._show()
        return f"Reference {number} is out of the gallery on trial."

    def _add(self) -> str:
        notes = self._changed.add_folder(self.folder.value, self.label.value)
        self._show()
        return " ".join([f"{self.label.value} was added.", *notes])

    def _undo(self) -> str:
        self._changed.undo()
        self.result.children = ()
        self._refresh()
        return "The gallery is again as it was saved."

    def _save(self) -> str:
        said = self._changed.save()
        self.result.children = ()
        self._refresh()
        return said

    def _show(self) -> None:
        self._refresh()
        change = self._changed.change()
        children = [widgets.HTML(change_table(change).data)]
        if (figure := change_figure(change)) is not None:
            children.append(LiveFigure(figure))
        self.result.children = tuple(children)


def change_figure(change: Change) -> go.Figure | None:
    """Which labels the change broke and mended; None where no answer changed between right and wrong."""
    if not (change.by_label[["broke", "mended"]] > 0).any(axis=None):
        return None
    return what_broke(change.by_label, change.describe())


def change_table(change: Change) -> Any:
    """Counts and accuracy before and after, with the paired difference, as a table."""
    known = change.answers[change.answers["group"] == "known"]
    effects = known["effect"].value_counts()
    still, broke, mended = (int(effects.get(name, 0)) for name in ("still right", "right -> wrong", "wrong -> right"))
    difference = change.metrics["difference"]
    points = f"{100 * difference.value:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    rows = [
        ("right at the first answer", f"{still + broke:,}", f"{still + mended:,}", f"{mended - broke:+,}"),
        ("of these, right -> wrong and wrong -> right", "–", "–", f"{broke:,} broke, {mended:,} mended"),
        ("accuracy@1", str(change.metrics["accuracy@1_before"]), str(change.metrics["accuracy@1_after"]), points),
    ]
    if "accuracy@1_new" in change.metrics:
        rows.append(("accuracy@1 of new labels", "–", str(change.metrics["accuracy@1_new"]), "–"))
    frame = pd.DataFrame(rows, columns=["queries of labels in both galleries", "before", "after", "difference"])
    return table(frame, caption=f"Before and after, n = {len(known):,} queries, 95 % intervals over labels, paired")


def _line(text: str) -> str:
    return f'<div class="wb" role="status">{as_text(text)}</div>'
