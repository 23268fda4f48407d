"""Figures of the stress test: accuracy against severity, a panel a corruption, and who leads by how much."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.data.corruption_kinds import KINDS, Kind
from workbench.report.style import (
    GREY,
    OKABE_ITO,
    SYMBOLS,
    as_sentence,
    escaped,
    finish,
    interval_bars,
    need_columns,
    span,
    thousands,
    wrapped,
)

_COLUMNS = 2
_PANEL_PX = 235
_DASHES = ("solid", "dash", "dashdot", "longdash")
_CURVE_COLUMNS = ("embedder", "kind", "severity", "value", "low", "high", "n", "chance", "threshold", "verdict")


def stress_curves(table: pd.DataFrame, subtitle: str = "", *, quantity: str = "accuracy@1") -> go.Figure:
    """The quantity against the severity, a panel a corruption, a curve an embedder; worse is to the right.

    Full markers are kept by the rule, hollow ones not shown to be, crosses shown not to be. The dotted line is what the
    rule wants of the first embedder, the grey one is chance. Where no number says "clean" it stands apart on the left.

    Args:
        table: `stress_tables.stress_table`: columns embedder, kind, severity, value, low, high, n, chance, threshold,
            verdict; each kind begins with its clean row.
        subtitle: rule and protocol in words.
        quantity: what the values are.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, _CURVE_COLUMNS, "table")
    embedders = list(dict.fromkeys(table["embedder"]))
    figure, places = _panels(table)
    for panel, (name, place) in enumerate(places.items()):
        of_kind = table[table["kind"] == name]
        for index, embedder in enumerate(embedders):
            rows = of_kind[of_kind["embedder"] == embedder]
            symbol = SYMBOLS[index % len(SYMBOLS)]
            shapes = {"clean": symbol, "kept": symbol, "open": f"{symbol}-open", "lost": "x-thin"}
            curve = _curve(rows, KINDS[name], index, [shapes[verdict] for verdict in rows["verdict"]], rows["verdict"])
            figure.add_trace(curve.update(name=wrapped(embedder, 42), showlegend=panel == 0), **place)
        first = of_kind[of_kind["embedder"] == embedders[0]].iloc[0]
        for colour, height in ((OKABE_ITO[0], first["threshold"]), (GREY, first["chance"])):
            figure.add_hline(height, line={"dash": "dot", "color": colour, "width": 1.25}, **place)
    notes = [
        subtitle,
        f"n = {span(table['n'])} queries at each point. Bars: 95 % intervals.",
        "Full markers: kept by the rule; hollow: not shown to be kept; crosses: shown not to be kept",
        f"Dotted: what the rule wants of {embedders[0]} (blue), chance (grey)",
    ]
    top = min(1.02, 1.06 * float(table["high"].max()))
    _finish_panels(figure, f"{as_sentence(quantity)} against severity, worse to the right", notes, len(places))
    figure.update_yaxes(tickformat=".0%", range=[0, top])
    figure.update_yaxes(title_text=f"{escaped(quantity)} (%)", col=1)
    return figure


def lead_curves(
    table: pd.DataFrame, limits: Mapping[str, float], subtitle: str = "", *, quantity: str = "accuracy@1"
) -> go.Figure:
    """The first embedder less the second against the severity, a panel a corruption, with intervals; zero is a draw.

    Args:
        table: `stress_tables.difference_table`: columns kind, severity, value, low, high (-1 to 1) and n; each kind begins
            with its clean row.
        limits: by kind, the severity at which the first embedder's guideline ends, drawn as a dotted line; NaN draws none.
        subtitle: who is compared, under which protocol.
        quantity: what the values are differences of.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("kind", "severity", "value", "low", "high", "n"), "table")
    figure, places = _panels(table)
    for name, place in places.items():
        rows = table[table["kind"] == name]
        verdicts = ["clean", *["paired"] * (len(rows) - 1)]
        figure.add_trace(_curve(rows, KINDS[name], 0, SYMBOLS[0], verdicts).update(showlegend=False), **place)
        figure.add_hline(0, line={"color": GREY, "width": 1.5}, **place)
        limit = limits.get(name, np.nan)
        if np.isfinite(limit):
            figure.add_vline(limit, line={"dash": "dot", "color": OKABE_ITO[0], "width": 1.5}, **place)
    notes = [
        subtitle,
        f"n = {span(table['n'])} queries. Bars: 95 % intervals, paired by query and draw.",
        "Grey: no difference. Dotted: where the guideline ends",
    ]
    low, high = min(float(table["low"].min()), 0.0), max(float(table["high"].max()), 0.0)
    _finish_panels(figure, f"Lead in {quantity} against severity, worse to the right", notes, len(places))
    ticks = np.arange(-100, 101, 10 if high - low < 0.7 else 20)
    words = [f"{tick:+d}" if tick else "0" for tick in ticks]
    figure.update_yaxes(range=[1.08 * low - 0.01, 1.08 * high + 0.01], tickvals=ticks / 100, ticktext=words)
    figure.update_yaxes(title_text="lead (points)", col=1)
    return figure


def _panels(table: pd.DataFrame) -> tuple[go.Figure, dict[str, dict[str, int]]]:
    """An empty panel a kind, and the row and column of each."""
    if table.empty:
        raise ValueError("Wanted at least one corruption to draw, found none.")
    names = list(dict.fromkeys(table["kind"]))
    num_rows = -(-len(names) // _COLUMNS)
    figure = make_subplots(
        num_rows,
        _COLUMNS,
        subplot_titles=[f"<b>{escaped(KINDS[name].title)}</b>" for name in names],
        vertical_spacing=0.42 / num_rows if num_rows > 1 else 0,
        horizontal_spacing=0.09,
        shared_yaxes=True,
    )
    places = {name: {"row": panel // _COLUMNS + 1, "col": panel % _COLUMNS + 1} for panel, name in enumerate(names)}
    for name, place in places.items():
        figure.update_xaxes(**_axis(KINDS[name], table["severity"][table["kind"] == name]), **place)
        figure.update_yaxes(showticklabels=True, **place)
    return figure, places


def _finish_panels(figure: go.Figure, title: str, notes: Iterable[str], num_panels: int) -> None:
    figure.update_annotations(font_size=13)
    finish(figure, title, notes, 90 + _PANEL_PX * -(-num_panels // _COLUMNS))
    figure.update_layout(margin={"b": 70}, title={"y": 1})


def _curve(
    rows: pd.DataFrame, kind: Kind, index: int, symbols: str | Sequence[str], verdicts: Iterable[str]
) -> go.Scatter:
    values, lows, highs = (rows[column].astype("float64").to_numpy() for column in ("value", "low", "high"))
    colour = OKABE_ITO[index % len(OKABE_ITO)]
    return go.Scatter(
        x=_positions(kind, rows["severity"]),
        y=values,
        legendgroup=str(index),
        mode="lines+markers",
        marker={"size": 8, "symbol": symbols, "color": colour, "line": {"width": 2, "color": colour}},
        line={"width": 2, "color": colour, "dash": _DASHES[index % len(_DASHES)]},
        error_y={**interval_bars(values, lows, highs), "color": colour, "width": 3},
        customdata=[
            [
                "clean" if verdict == "clean" else kind.say_briefly(severity),
                f"[{low:.1%}, {high:.1%}]",
                verdict,
                thousands(n),
            ]
            for severity, low, high, verdict, n in zip(rows["severity"], lows, highs, verdicts, rows["n"], strict=True)
        ],
        hovertemplate="%{customdata[0]}: %{y:.1%} %{customdata[1]}<br>%{customdata[2]}, n = %{customdata[3]}",
    )


def _positions(kind: Kind, severities: pd.Series) -> np.ndarray:
    """Places on the axis: the severity itself; an endless one (clean) one step before the mildest."""
    place_S = severities.to_numpy(np.float64)
    return np.where(np.isfinite(place_S), place_S, _before_the_first(kind, place_S[np.isfinite(place_S)]))


def _before_the_first(kind: Kind, place_S: np.ndarray) -> float:
    return float(1.7 * place_S.max() if kind.unit.endswith("(px)") else place_S.max() + 0.15 * (place_S.max() + 5))


def _axis(kind: Kind, severities: pd.Series) -> dict[str, object]:
    measured = np.unique(severities.to_numpy(np.float64))
    finite = measured[np.isfinite(measured)]
    places, texts = finite.tolist(), [f"{value:g}" for value in finite]
    if len(finite) < len(measured):
        places, texts = [*places, _before_the_first(kind, finite)], [*texts, "clean"]
    is_log = kind.unit.endswith("(px)")
    low, high = np.log10([min(places) / 1.15, max(places) * 1.15]) if is_log else (min(places), max(places))
    pad = 0.0 if is_log else 0.05 * (high - low)
    ends = [float(low - pad), float(high + pad)]
    return {
        "type": "log" if is_log else "linear",
        "range": ends[::-1] if kind.descends else ends,
        "tickvals": places,
        "ticktext": texts,
        "tickangle": 0,
        "tickfont": {"size": 10},
        "title_text": escaped(kind.unit),
    }
