"""Figures of an export's acceptance: how far the embeddings moved, and how the metrics changed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.report.style import (
    GREY,
    OKABE_ITO,
    SYMBOLS,
    escaped,
    finish,
    interval_bars,
    mark_line,
    name_rows,
    need_columns,
    span,
)

_DASHES = ("solid", "dash", "dashdot", "dot")
_FLOOR = 1e-9  # a log axis has no zero; float32 models agree no better than by chance below this
_MOST_POINTS = 400


def cosine_shares(
    cosines: Mapping[str, np.ndarray], limits: Mapping[str, float] | None = None, subtitle: str = ""
) -> go.Figure:
    """The share of images whose two embeddings are at least so far apart, a curve a series; limits are vertical lines.

    Across stands 1 less the cosine on a log scale, so that 0.9999 and 0.999999 lie apart; what is nearer than 1e-9 stands at 1e-9.
    The worst image is the right end of its curve. Long series are thinned, the ends kept.

    Args:
        cosines: by name (references, queries, or an export each), -1 to 1, any order; NaN is left out and counted.
        limits: by name, the smallest cosine that is allowed, below 1.
        subtitle: models and protocol in words.

    Raises:
        ValueError: no series, one without a number, a cosine out of -1 to 1, or a limit that is not below 1.
    """
    if not cosines:
        raise ValueError("Wanted at least one series of cosines, found none.")
    figure, notes = go.Figure(), [subtitle]
    for index, (name, values) in enumerate(cosines.items()):
        cosine_R = np.asarray(values, dtype=np.float64)
        num_missing = int(np.isnan(cosine_R).sum())
        cosine_R = np.sort(cosine_R[~np.isnan(cosine_R)])
        if not len(cosine_R) or cosine_R[0] < -1.000001 or cosine_R[-1] > 1.000001:
            raise ValueError(f"Wanted cosines from -1 to 1 for {name!r}, at least one that is a number.")
        share_R = np.arange(1, len(cosine_R) + 1) / len(cosine_R)
        shown = np.unique(np.round(np.geomspace(1, len(cosine_R), _MOST_POINTS)).astype(np.int64) - 1)
        figure.add_scatter(
            x=np.maximum(1 - cosine_R[shown], _FLOOR),
            y=share_R[shown],
            name=escaped(name),
            mode="lines+markers" if len(shown) <= 30 else "lines",
            marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
            line={"color": OKABE_ITO[index % len(OKABE_ITO)], "width": 2.25, "dash": _DASHES[index % 4], "shape": "hv"},
            customdata=cosine_R[shown],
            hovertemplate="cosine %{customdata:.9f}<br>%{y:.3%} of images are as far or farther<extra>%{fullData.name}</extra>",
        )
        missing = f", {num_missing:,} more without a direction" if num_missing else ""
        notes.append(f"{name}: n = {len(cosine_R):,}{missing}, min {cosine_R[0]:.9f}, median {np.median(cosine_R):.9f}")
    for name, limit in (limits or {}).items():
        if not -1 <= limit < 1:
            raise ValueError(f"Wanted a limit from -1 to below 1 for {name!r}, found {limit!r}.")
        figure.add_vline(1 - limit, line={"color": GREY, "width": 1.5, "dash": "dot"})
        text = escaped(f"{name}: {limit:.9g}")  # a note on a log axis wants the exponent, a line the number
        figure.add_annotation(
            x=np.log10(1 - limit), y=1, yref="paper", yanchor="bottom", text=text, showarrow=False, font={"size": 11}
        )
    finish(figure, "How far the export's embeddings lie from the original's", notes, 470)
    farthest = max([float(trace.x.max()) for trace in figure.data] + [1 - limit for limit in (limits or {}).values()])
    figure.update_xaxes(
        type="log",
        title_text="1 - cosine of an image's two embeddings (log scale, farther to the right)",
        dtick=1,
        exponentformat="power",
        range=[np.log10(_FLOOR) - 0.15, np.ceil(np.log10(farthest)) + 0.1],
    )
    figure.update_yaxes(title_text="images as far or farther (%, log scale)", type="log", tickformat="~%", dtick=1)
    return figure


def change_intervals(changes: pd.DataFrame, loss_limit: float | None = None, subtitle: str = "") -> go.Figure:
    """The change of each metric from the original to the export, with its paired interval; left of zero is worse.

    Args:
        changes: columns quantity, value, low, high (-1 to 1) and n (queries); a column `export`, where there is one, makes a series
            of each export.
        loss_limit: the lower end of an interval must stay above minus this, drawn as a dotted line; None draws none.
        subtitle: protocol in words.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    need_columns(changes, ("quantity", "value", "low", "high", "n"), "changes")
    if changes.empty:
        raise ValueError("Wanted at least one change to draw, found none.")
    quantities = list(dict.fromkeys(changes["quantity"]))
    exports = list(dict.fromkeys(changes["export"])) if "export" in changes.columns else [""]
    figure = go.Figure()
    for index, export in enumerate(exports):
        rows = changes if export == "" else changes[changes["export"] == export]
        value, low, high = (100 * rows[name].to_numpy(np.float64) for name in ("value", "low", "high"))
        beside = 0.5 * (index - (len(exports) - 1) / 2) / max(len(exports), 1)
        figure.add_scatter(
            x=value,
            y=np.array([quantities.index(one) for one in rows["quantity"]]) + 1 + beside,
            error_x=interval_bars(value, low, high),
            mode="markers",
            name=escaped(export),
            showlegend=len(exports) > 1,
            marker={"color": OKABE_ITO[index % len(OKABE_ITO)], "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 10},
            customdata=np.column_stack([low, high, rows["n"]]),
            hovertemplate="%{x:+.2f} points [%{customdata[0]:+.2f}, %{customdata[1]:+.2f}], n = %{customdata[2]:,}<extra></extra>",
        )
    notes = [subtitle, f"n = {span(changes['n'])} queries. Bars: 95 % intervals, paired by query"]
    if (changes["value"] == 0).any():
        notes.append("A wide bar around exactly 0: no label changed, the bar is the bound for 0 of so many labels")
    name_rows(figure, quantities, "exported less original (points)", "", "Change of the metrics", notes, row_px=44)
    figure.add_vline(0, line={"color": GREY, "width": 1.5})
    ends = [*(100 * changes["low"]), *(100 * changes["high"]), 0.0]
    if loss_limit is not None:
        mark_line(figure, -100 * loss_limit, f"limit {-100 * loss_limit:+.3g}", horizontal=False)
        ends.append(-100 * loss_limit)
    pad = 0.08 * (max(ends) - min(ends)) or 0.1
    figure.update_xaxes(range=[min(ends) - pad, max(ends) + pad])
    return figure
