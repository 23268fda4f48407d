"""A slider for the threshold, and what it accepts, refuses and gets wrong while it moves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import ipywidgets as widgets
import pandas as pd

from workbench.report.explore_figures import counts_against_threshold
from workbench.report.live_page import LiveFigure
from workbench.report.markup import STYLE, as_text

_ROWS = (
    ("right", "accepted and right"),
    ("wrong", "accepted and wrong"),
    ("refused", "refused"),
    ("refused_right", "of these, would have been right"),
)
_UNKNOWN_ROWS = (("false_accepts", "accepted, wrongly"), ("refused_unknown", "refused, rightly"))


class Counts(Protocol):
    """Counts at any threshold: see `retrieval.explore.ThresholdCounts`."""

    def at(self, threshold: float) -> Mapping[str, int]: ...  # noqa: D102

    def span(self) -> tuple[float, float]: ...  # noqa: D102

    def curve(self) -> pd.DataFrame: ...  # noqa: D102


class ThresholdPanel:
    """Slider, counts and curves.

    Attributes:
        slider: its value is the threshold in use.
        measured: thresholds that were measured for a rate of false accepts, to jump to.
        text: the counts.
        figure: the curves with the threshold as a line.
        box: all of it.
    """

    def __init__(
        self, counts: Counts, threshold: float, measured: Sequence[tuple[str, float]] = (), subtitle: str = ""
    ) -> None:
        """A panel at `threshold`; `measured` are names with thresholds, `subtitle` says whose queries are counted."""
        low, high = counts.span()
        self.slider = widgets.FloatSlider(
            value=threshold,
            min=min(low, threshold) - 0.001,
            max=max(high, threshold) + 0.001,
            step=max((high - low) / 2000, 1e-5),
            description="Threshold",
            readout_format=".4f",
            continuous_update=True,
            layout={"width": "34rem", "max_width": "100%"},
        )
        self.measured = widgets.Dropdown(options=_choices(measured), layout={"width": "22rem", "max_width": "100%"})
        self.text = widgets.HTML()
        self.figure = LiveFigure(counts_against_threshold(counts.curve(), threshold, subtitle))
        self._counts, self._subtitle = counts, subtitle
        self._listeners: list[Callable[[float], None]] = []
        self.slider.observe(lambda change: self._moved(change["new"]), "value")
        self.measured.observe(lambda change: self._jump(change["new"]), "value")
        self.box = widgets.VBox(
            [widgets.HBox([self.slider, self.measured], layout={"flex_flow": "row wrap"}), self.text, self.figure]
        )
        self._write(threshold)

    @property
    def threshold(self) -> float:
        """The threshold in use, cosine similarity."""
        return float(self.slider.value)

    def on_move(self, listener: Callable[[float], None]) -> None:
        """Calls `listener` with each new threshold."""
        self._listeners.append(listener)

    def count(self, counts: Counts, measured: Sequence[tuple[str, float]] = ()) -> None:
        """Counts these answers from now on: the gallery was changed; `measured` as at the beginning, for the gallery as it is now."""
        self._counts = counts
        self.measured.options = _choices(measured)
        curve = counts.curve()
        low, high = counts.span()
        self.slider.min, self.slider.max = min(low, self.threshold) - 0.001, max(high, self.threshold) + 0.001
        fresh = counts_against_threshold(curve, self.threshold, self._subtitle)
        with self.figure.batch_update():
            layout = fresh.layout  # its title has another n, and may take another number of lines
            self.figure.update_layout(title=layout.title, margin=layout.margin, height=layout.height)
            for trace, new in zip(self.figure.data, fresh.data, strict=True):
                trace.x, trace.y = new.x, new.y
        self._write(self.threshold)

    def _jump(self, threshold: float | None) -> None:
        if threshold is not None:
            self.slider.value = threshold

    def _moved(self, threshold: float) -> None:
        self._write(threshold)
        with self.figure.batch_update():
            line, text = self.figure.layout.shapes[0], self.figure.layout.annotations[0]
            line.x0 = line.x1 = text.x = threshold
            text.text = f"{threshold:.4f}"
        for listener in self._listeners:
            listener(threshold)

    def _write(self, threshold: float) -> None:
        self.text.value = counts_table(self._counts.at(threshold), threshold)


def _choices(measured: Sequence[tuple[str, float]]) -> list[tuple[str, float | None]]:
    first = "measured thresholds …" if measured else "no measured threshold"
    return [(first, None), *measured]


def counts_table(counts: Mapping[str, int], threshold: float) -> str:
    """Counts as markup, known queries beside the same queries as unknown products; the numbers have the class `wb-number`."""
    parts = []
    for title, rows, total in (
        ("Queries whose label has a reference", _ROWS, ("right", "wrong", "refused")),
        ("Queries asked without their label's references", _UNKNOWN_ROWS, ("false_accepts", "refused_unknown")),
    ):
        n = sum(counts[name] for name in total)
        body = "".join(
            f'<tr><th scope="row">{as_text(text)}</th><td class="wb-number" data-count="{name}">{counts[name]:,}</td>'
            f'<td class="wb-number">{f"{counts[name] / n:.1%}" if n else "–"}</td></tr>'
            for name, text in rows
        )
        head = f'<tr><th scope="col">{title}, n = {n:,}</th><th scope="col">queries</th><th scope="col">share</th></tr>'
        parts.append(f'<table class="wb-table"><thead>{head}</thead><tbody>{body}</tbody></table>')
    tables = "".join(f'<div style="flex:1 1 20rem">{part}</div>' for part in parts)
    return (
        f'{STYLE}<div class="wb" role="status"><p class="wb-title">Accepted above {threshold:.4f}</p>'
        f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{tables}</div></div>'
    )
