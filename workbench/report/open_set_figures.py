"""Figures of the open set: how far known and unknown products lie apart, and what refusing costs."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.report.style import (
    OKABE_ITO,
    SYMBOLS,
    escaped,
    finish,
    interval_bars,
    mark_line,
    need_columns,
    span,
)

_DASHES = ("solid", "dash", "dot", "dashdot")
_CURVE_COLUMNS = ("curve", "kind", "at", "value", "low", "high", "n", "resolved")
_KIND_NAMES = {"all": "all unknown products", "near": "near: a sibling is known", "far": "far: no sibling is known"}
_SERIES = (
    ("known, answered right", 2),
    ("known, answered wrong", 4),
    ("unknown, near", 1),
    ("unknown, far", 3),
    ("unknown", 0),
)


def similarity_histograms(
    answers: pd.DataFrame,
    thresholds: Mapping[float, float] | None = None,
    subtitle: str = "",
    *,
    statistic: str = "similarity to the nearest reference",
    num_bins: int = 60,
) -> go.Figure:
    """The spread of the statistic for known products answered right or wrong and for unknown ones, each 100 % in all.

    Args:
        answers: columns `kind` (known, near, far, unknown), `right` (0 to 1) and `statistic`.
        thresholds: by rate of false accepts, drawn as lines.
        subtitle: the protocol in words.
        statistic: what the x axis shows.
        num_bins: of equal width, fewer for kinds with few answers.

    Raises:
        ValueError: no answer, or a column is missing.
    """
    need_columns(answers, ("kind", "right", "statistic"), "answers")
    if answers.empty:
        raise ValueError("Wanted at least one answer, found none.")
    right = answers["right"] >= 0.5
    names = {"near": "unknown, near", "far": "unknown, far", "unknown": "unknown"}
    of_known = np.where(right, "known, answered right", "known, answered wrong")
    series = np.where(answers["kind"] == "known", of_known, answers["kind"].map(names))
    values = answers["statistic"].to_numpy(np.float64)
    low, high = float(values.min()), float(values.max())
    high = high if high > low else low + 0.01
    figure, counts = go.Figure(), []
    for name, index in _SERIES:
        own = values[series == name]
        if not len(own):
            continue
        counts.append(f"{name}: n = {len(own):,}")
        edges = np.linspace(low, high, 1 + min(num_bins, max(8, round(4 * len(own) ** (1 / 3)))))
        share = 0.01 * np.histogram(own, edges, density=True)[0]
        figure.add_scatter(
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(share, 2), [0]]),
            name=f"{name} (n = {len(own):,})",
            mode="lines",
            line={"width": 2, "color": OKABE_ITO[index], "dash": _DASHES[index % 4]},
            fill="tozeroy" if name == "known, answered right" else None,
            fillcolor="rgba(0,158,115,0.12)",
            hovertemplate=escaped(name) + " %{x:.3f}: %{y:.1%} in 0.01",
        )
    for place, (far, at) in enumerate(sorted((thresholds or {}).items(), reverse=True)):
        mark_line(figure, at, f"FAR {far * 100:.4g} %: {at:.3f}", horizontal=False, left=place == 0)
    notes = [subtitle, "; ".join(counts), "A query counts once in each split"]
    finish(figure, "How similar known and unknown products are to the gallery", notes, 480)
    figure.update_xaxes(title_text=escaped(statistic))
    figure.update_yaxes(title_text="share of a kind in each 0.01 (%)", tickformat=".0%", rangemode="tozero")
    return figure


def oscr_curves(curves: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """Known queries accepted with the right answer against unknown ones accepted (OSCR), a curve a kind of unknown.

    Args:
        curves: columns `curve`, `kind`, `at`, `value`, `low`, `high`, `n`, `resolved`; the rows "DIR" are drawn.
        subtitle: the protocol in words.

    Raises:
        ValueError: a column or the curve is missing.
    """
    figure, notes = _draw(curves, "DIR", lambda at: at >= 0.02, 3)
    finish(figure, "Open-set classification rate (OSCR)", [subtitle, *notes], 480)
    figure.update_xaxes(title_text="unknown queries accepted (%)", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="known queries accepted, answer right (%)", tickformat=".0%", range=[0, 1.03])
    return figure


def dir_against_far(curves: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The same with the rate of false accepts on a log scale (DIR against FAR); hollow: too few queries for the rate.

    Args:
        curves: as for `oscr_curves`.
        subtitle: the protocol in words.

    Raises:
        ValueError: a column or the curve is missing.
    """
    figure, notes = _draw(curves, "DIR", lambda _: True, 3)
    if not curves["resolved"][curves["curve"] == "DIR"].all():
        notes.append(
            "Hollow: the rate is below one query a split; the value is too favourable, its lower end unknown (0)"
        )
    finish(figure, "Detection and identification rate at a rate of false accepts", [subtitle, *notes], 480)
    figure.update_xaxes(
        type="log",
        title_text="false accepts: unknown queries accepted (%, log scale)",
        tickvals=[0.001, 0.01, 0.1, 1],
        ticktext=["0.1 %", "1 %", "10 %", "100 %"],
    )
    figure.update_yaxes(title_text="known queries accepted, answer right (%)", tickformat=".0%", range=[0, 1.03])
    return figure


def risk_against_coverage(curves: pd.DataFrame, subtitle: str = "", *, unknown_share: float | None = None) -> go.Figure:
    """The share of accepted answers that are wrong, against the share of queries that are answered.

    Args:
        curves: as for `oscr_curves`; the rows "risk" are drawn.
        subtitle: the protocol in words.
        unknown_share: for which share of unknown queries, said in the subtitle.

    Raises:
        ValueError: a column or the curve is missing.
    """
    figure, notes = _draw(curves, "risk", lambda _: True, 2)
    if unknown_share is not None:
        notes.append(f"At {unknown_share:.0%} unknown queries, always wrong when answered")
    finish(figure, "Risk against coverage", [subtitle, *notes], 480)
    figure.update_xaxes(title_text="coverage: queries answered (%)", tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(title_text="risk: answers that are wrong (%)", tickformat=".0%", rangemode="tozero")
    return figure


def _draw(
    curves: pd.DataFrame, curve: str, shows_bar: Callable[[float], bool], every: int
) -> tuple[go.Figure, list[str]]:
    need_columns(curves, _CURVE_COLUMNS, "curves")
    table = curves[curves["curve"] == curve]
    if table.empty:
        raise ValueError(f"Wanted rows of the curve {curve!r}, found none.")
    figure = go.Figure()
    for index, (kind, part) in enumerate(table.groupby("kind", sort=False)):
        rows = part.sort_values("at")
        at, value, low, high = (rows[name].to_numpy(np.float64) for name in ("at", "value", "low", "high"))
        colour, name = OKABE_ITO[index], _KIND_NAMES.get(str(kind), escaped(kind))
        figure.add_scatter(
            x=at,
            y=value,
            name=f"{name}",
            legendgroup=str(kind),
            mode="lines",
            line={"color": colour, "width": 2.25, "dash": _DASHES[index % 4]},
            hovertemplate="%{x:.2%}: %{y:.1%}",
        )
        shown = np.array([bool(shows_bar(x)) for x in at]) & (np.arange(len(at)) % every == index % every)
        resolved = rows["resolved"].to_numpy(bool)
        symbol = SYMBOLS[index]
        figure.add_scatter(
            x=at[shown],
            y=value[shown],
            legendgroup=str(kind),
            showlegend=False,
            mode="markers",
            marker={
                "size": 8,
                "color": colour,
                "symbol": [symbol if fine else f"{symbol}-open" for fine in resolved[shown]],
            },
            error_y={**interval_bars(value[shown], low[shown], high[shown]), "width": 4},
            customdata=[f"[{lo:.1%}, {hi:.1%}]" for lo, hi in zip(low[shown], high[shown], strict=True)],
            hovertemplate="%{x:.2%}: %{y:.1%}  %{customdata}",
        )
    return figure, [f"n = {span(table['n'])} queries. Bars: 95 % intervals over classes and splits"]
