"""One look for all figures: template, colours, titles with n and protocol, rows with names, lines with a note.

Colours are those of Okabe and Ito, told apart with every common kind of colour blindness; series differ in marker and
line too. Names that come from data pass through `escaped`, because plotly reads a few HTML tags in texts.
"""

import html
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MAX_NAMED_ROWS = 120
GREY = "#8a8f98"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")
_TITLE_WIDTH = 100
_NAME_WIDTH = 30
_LINE_PX = 17  # of a row's name, at the size of its letters
CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}
_STILL_CONFIG = {**CONFIG, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def use_workbench_style() -> None:
    """Sets plotly's default template and renderer to the workbench's; importing this module has called it already."""
    axis = {
        "gridcolor": "#e4e8ec",
        "linecolor": "#b6bdc6",
        "zerolinecolor": "#d0d7de",
        "tickcolor": "#b6bdc6",
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 12, "font": {"size": 12}},
    }
    pio.templates["workbench"] = go.layout.Template(
        layout={
            "font": {
                "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
                "size": 13,
                "color": "#1f2328",
            },
            "colorway": list(OKABE_ITO),
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"l": 12, "t": 14},
            },
            "margin": {"l": 12, "r": 16, "t": 90, "b": 12},
            "xaxis": {**axis, "showgrid": False, "showline": True},
            "yaxis": {**axis, "showline": False},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "xref": "container",
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "font": {"size": 12},
            },
            "hoverlabel": {
                "align": "left",
                "bgcolor": "#ffffff",
                "bordercolor": "#b6bdc6",
                "font": {"color": "#1f2328"},
            },
            "hovermode": "closest",
        }
    )
    pio.templates.default = "workbench"
    pio.renderers["plotly_mimetype"].config.update(_STILL_CONFIG)
    pio.renderers.default = "plotly_mimetype"


def need_columns(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Nothing; a `ValueError` when `frame`, called `name`, lacks one of `columns`."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"`{name}` wants the columns {', '.join(columns)}; {', '.join(missing)} is missing.")


def finish(figure: go.Figure, title: str, notes: Iterable[str], height_px: int) -> None:
    """The workbench's template, title, subtitle in lines that fit a notebook's width, a height to which these are added."""
    sentences = [note.strip() for note in notes if note.strip()]
    text = " ".join(note if note[-1] in ".!?" else f"{note}." for note in sentences)
    lines = textwrap.wrap(text, _TITLE_WIDTH)
    figure.update_layout(
        template="workbench",
        title={
            "text": f"<b>{escaped(title)}</b>",
            "font": {"size": 17},
            "subtitle": {"text": "<br>".join(map(escaped, lines)), "font": {"size": 12}},
        },
        margin={"t": 62 + 17 * len(lines)},
        height=height_px + 17 * len(lines),
    )


def name_rows(
    figure: go.Figure,
    labels: Iterable[str],
    x_title: str,
    y_title: str,
    title: str,
    notes: Iterable[str],
    row_px: int = 18,
) -> None:
    """Rows 1, 2, ... from the top with their labels; positions are numbers, so that "007" is not read as 7."""
    names = list(labels)
    roomy = row_px > 30
    texts = [wrapped(name, _NAME_WIDTH) if roomy else escaped(shortened(name)) for name in names]
    num_lines = max((text.count("<br>") + 1 for text in texts), default=1)
    finish(figure, title, notes, 150 + max(row_px, _LINE_PX * num_lines + 12) * len(names))
    figure.update_layout(legend={"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom"})
    figure.update_xaxes(title_text=escaped(x_title), showgrid=True)
    figure.update_yaxes(
        title_text=escaped(y_title),
        tickvals=list(range(1, len(names) + 1)),
        ticktext=texts,
        range=[len(names) + 0.7, 0.1 if roomy else -0.4],
        tickfont={"size": 13 if roomy else 11},
        ticks="",
    )


def mark_line(figure: go.Figure, at: float, text: str, *, horizontal: bool, left: bool = False) -> None:
    """A dotted line across the plot at a value, with its meaning written to the right of it or to the left."""
    line = {"line": {"color": GREY, "width": 1.5, "dash": "dot"}, "annotation_text": text, "annotation_font_size": 11}
    draw = figure.add_hline if horizontal else figure.add_vline
    draw(at, annotation_position="top left" if left else "top right", **line)


def interval_bars(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> dict[str, object]:
    """Plotly's error bars from interval ends; an end that is NaN draws no bar."""
    return {"type": "data", "array": highs - values, "arrayminus": values - lows, "thickness": 1.5, "width": 0}


def interval_markers(values: np.ndarray, lows: np.ndarray, highs: np.ndarray, texts: list[str]) -> dict[str, object]:
    """What the marks of a forest plot have in common, for `add_scatter`: x, its bars, and the number above each mark."""
    return {
        "x": values,
        "mode": "markers+text",
        "text": texts,
        "textposition": "top center",
        "cliponaxis": False,
        "error_x": interval_bars(values, lows, highs),
    }


def escaped(value: object) -> str:
    """`value` as text in which plotly finds no tag."""
    return html.escape(str(value), quote=False)


def shortened(value: object, width: int = _NAME_WIDTH) -> str:
    """`value` as text at most `width` letters wide: of a longer one the middle is left out, because names often differ at the end.

    Wide signs (Chinese, Japanese, Korean) count as two letters, marks that are set upon a letter as none.
    """
    text = " ".join(str(value).split())
    if sum(map(_width, text)) <= width:
        return text
    room = width - 1
    head = _cut(text, (room + 1) // 2)
    tail = _cut(text[::-1], room // 2)[::-1]
    while tail and _width(tail[0]) == 0:
        tail = tail[1:]  # a mark whose letter is left out
    return f"{head.rstrip()}…{tail.lstrip()}"


def wrapped(value: object, width: int) -> str:
    """`value` escaped, in lines of at most `width` letters, of which a wide sign counts as two."""
    doubled = "".join(sign + "\0" * (_width(sign) - 1) for sign in str(value))
    return "<br>".join(escaped(line.replace("\0", "")) for line in textwrap.wrap(doubled, width)) or " "


def _width(sign: str) -> int:
    return 0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """The start of the text, at most `width` letters wide."""
    widths = accumulate(map(_width, text))
    return "".join(sign for sign, so_far in zip(text, widths, strict=True) if so_far <= width)


def as_sentence(text: str) -> str:
    """`text` with a capital at its start."""
    return text[:1].upper() + text[1:]


def thousands(n: object) -> str:
    """A count with separators; empty text where it is missing."""
    return "" if pd.isna(n) else f"{int(n):,}"  # type: ignore[call-overload]


def span(counts: pd.Series) -> str:
    """The smallest and the largest count, or the one there is."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


use_workbench_style()
