"""Figures of thresholds and probabilities: how a threshold moves as the gallery grows, and whether a probability keeps its word."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.report.style import GREY, OKABE_ITO, SYMBOLS, finish, interval_bars, need_columns, span, thousands

_DASHES = ("solid", "dash", "dot", "dashdot")


def threshold_against_gallery(growth: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The threshold that a rate of false accepts wants, against the number of classes in the gallery.

    Args:
        growth: columns `gallery_classes`, `far`, `threshold`, `threshold_low`, `threshold_high`, `num_chosen_on`, `resolved`.
        subtitle: the protocol in words.

    Raises:
        ValueError: no row, or a column is missing.
    """
    _need_growth(growth, ("threshold", "threshold_low", "threshold_high", "num_chosen_on"))
    figure = go.Figure()
    for index, (far, rows) in enumerate(growth.groupby("far", sort=False)):
        _add_growth(figure, rows, "threshold", _far_text(far, rows), index)
    notes = [
        subtitle,
        f"Chosen on n = {span(growth['num_chosen_on'])} queries a split, each without its class. Bars: 95 % intervals",
    ]
    finish(figure, "How the threshold moves as the gallery grows", [*notes, _unresolved(growth)], 460)
    _gallery_axis(figure, growth)
    figure.update_yaxes(title_text="threshold of the statistic")
    return figure


def false_accepts_against_gallery(growth: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """Unseen products accepted: with the threshold of each gallery, and with that of the smallest one kept.

    Args:
        growth: columns `gallery_classes`, `far`, `n`, `resolved`, `false_accepts` and `kept_false_accepts` with `_low` and `_high`.
        subtitle: the protocol in words.

    Raises:
        ValueError: no row, or a column is missing.
    """
    names = ("false_accepts", "kept_false_accepts")
    _need_growth(growth, [f"{name}{end}" for name in names for end in ("", "_low", "_high")] + ["n"])
    figure = go.Figure()
    smallest = int(growth["gallery_classes"].min())
    rates = list(growth.groupby("far", sort=False))
    for index, (far, rows) in enumerate(rates):
        _add_growth(figure, rows, "false_accepts", f"{_far_text(far, rows)}, threshold chosen anew", 2 * index)
        text = f"{_far_text(far, rows)}, threshold of {smallest} classes kept"
        _add_growth(figure, rows, "kept_false_accepts", text, 2 * index + 1)
    notes = [subtitle, f"n = {span(growth['n'])} unseen queries. Bars: 95 % intervals"]
    finish(figure, "False accepts on unseen products as the gallery grows", [*notes, _unresolved(growth)], 480)
    _gallery_axis(figure, growth)
    figure.update_yaxes(title_text="unseen queries accepted (%)", tickformat=".1%", rangemode="tozero")
    return figure


def reliability_curve(bins: pd.DataFrame, saved: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The share of right answers against the probability that was promised, bins of equal count, n at each point.

    Args:
        bins: columns `predicted`, `observed`, `low`, `high`, `n`; predicted by `cross_fit`: what the calibration is worth.
        saved: the same of the calibration that is saved, on the answers that it was fitted to.
        subtitle: how the answers came about, in words.

    Raises:
        ValueError: no bin, or a column is missing.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.82, 0.18], vertical_spacing=0.04)
    line = {"color": GREY, "dash": "dot", "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="as promised", line=line, row=1, col=1)
    for index, (name, table) in enumerate(
        (("cross-fitted: each label by a fit without it", bins), ("saved calibration, on what it was fitted to", saved))
    ):
        need_columns(table, ("predicted", "observed", "low", "high", "n"), "bins")
        if table.empty:
            raise ValueError("Wanted at least one bin, found none.")
        observed, low, high = (table[column].to_numpy(np.float64) for column in ("observed", "low", "high"))
        figure.add_scatter(
            x=table["predicted"],
            y=observed,
            name=name,
            mode="lines+markers",
            line={"color": OKABE_ITO[index], "width": 2, "dash": _DASHES[index]},
            marker={"size": 9, "symbol": SYMBOLS[index]},
            # the fitted one promises nothing: it has seen the answers
            error_y={**interval_bars(observed, low, high), "width": 4} if index == 0 else None,
            customdata=[thousands(n) for n in table["n"]],
            hovertemplate="promised %{x:.1%}, right %{y:.1%}, n = %{customdata}",
            row=1,
            col=1,
        )
    figure.add_bar(
        x=bins["predicted"],
        y=bins["n"],
        width=0.012,
        name="answers",
        marker_color=GREY,
        hovertemplate="n = %{y:,}",
        row=2,
        col=1,
    )
    notes = [subtitle, f"{len(bins)} bins, n = {span(bins['n'])} answers each. Bars: 95 % intervals over labels"]
    finish(figure, "Is the probability what it says?", notes, 540)
    figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
    figure.update_xaxes(title_text="probability promised (mean of the bin, %)", row=2, col=1)
    figure.update_yaxes(title_text="answers that are right (%)", tickformat=".0%", range=[-0.02, 1.04], row=1, col=1)
    figure.update_yaxes(title_text="n", rangemode="tozero", nticks=3, row=2, col=1)
    return figure


def _need_growth(growth: pd.DataFrame, columns: Sequence[str]) -> None:
    need_columns(growth, ("gallery_classes", "far", "resolved", *columns), "growth")
    if growth.empty:
        raise ValueError("Wanted at least one gallery size, found none.")


def _add_growth(figure: go.Figure, rows: pd.DataFrame, column: str, name: str, index: int) -> None:
    value, low, high = (rows[f"{column}{end}"].to_numpy(np.float64) for end in ("", "_low", "_high"))
    symbol = SYMBOLS[index % len(SYMBOLS)]
    figure.add_scatter(
        # side by side, or bars would lie on each other
        x=rows["gallery_classes"].to_numpy(np.float64) * 1.025**index,
        y=value,
        name=name,
        mode="lines+markers",
        line={"color": OKABE_ITO[index % len(OKABE_ITO)], "dash": _DASHES[index % 4], "width": 2},
        marker={"size": 9, "symbol": [symbol if fine else f"{symbol}-open" for fine in rows["resolved"]]},
        error_y={**interval_bars(value, low, high), "width": 4},
        customdata=np.stack([rows["gallery_classes"], low, high], axis=1),
        hovertemplate="%{customdata[0]} classes: %{y:.3f}  [%{customdata[1]:.3f}, %{customdata[2]:.3f}]",
    )


def _gallery_axis(figure: go.Figure, growth: pd.DataFrame) -> None:
    sizes = sorted({int(size) for size in growth["gallery_classes"]})
    kept = [size for size, after in zip(sizes, [*sizes[1:], np.inf], strict=True) if after > 1.15 * size]
    figure.update_xaxes(
        type="log",
        title_text="classes in the gallery (log scale)",
        tickvals=kept,
        ticktext=[f"{size:,}" for size in kept],
        range=[np.log10(0.9 * sizes[0]), np.log10(1.2 * sizes[-1])],
    )


def _far_text(far: object, rows: pd.DataFrame) -> str:
    return f"FAR {float(far) * 100:.4g} %" + ("" if rows["resolved"].all() else " (not resolved)")  # type: ignore[arg-type]


def _unresolved(growth: pd.DataFrame) -> str:
    few = growth[~growth["resolved"].astype(bool)]
    return "" if few.empty else "Hollow: the rate is below one query, the threshold is the largest value seen"
