"""Figures of re-identification: how deep one must look, which cameras understand each other, which training fits where."""

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
    need_columns,
    span,
    thousands,
    wrapped,
)

MAX_TEXT_COLUMNS = 14
"""With more columns the values of a heat map are told by colour and on hovering only."""

_SHADES = ((0.0, "#f2f6fa"), (0.5, "#6ba3d0"), (1.0, "#08406f"))
_TICK_RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def cmc_curves(table: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The share of queries with a right answer among the first ranks (CMC), a curve a system, baselines grey and dotted.

    Args:
        table: columns `series`, `rank` (from 1), `value` (fraction), `n` (queries); `low` and `high` draw an interval where
            they are not NaN, and may be missing; `baseline` (bool) may be missing too.
        subtitle: the protocol in words.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("series", "rank", "value", "n"), "table")
    if table.empty:
        raise ValueError("Wanted at least one point of a curve, found none.")
    figure = go.Figure()
    names = list(dict.fromkeys(table["series"]))
    for index, name in enumerate(names):
        rows = table[table["series"] == name].sort_values("rank")
        is_baseline = "baseline" in rows and bool(rows["baseline"].iloc[0])
        values = rows["value"].astype("float64").to_numpy()
        low, high = (
            (rows[end] if end in rows else pd.Series(np.nan, rows.index)).astype("float64").to_numpy()
            for end in ("low", "high")
        )
        known = np.isfinite(low) & np.isfinite(high)
        colour = GREY if is_baseline else OKABE_ITO[index % len(OKABE_ITO)]
        dash = ("dash", "dot")[index % 2] if is_baseline else "solid"
        ranks, shown = rows["rank"].astype(int).to_numpy(), wrapped(name, 60)
        figure.add_scatter(
            x=ranks,
            y=values,
            name=shown,
            legendgroup=str(index),
            mode="lines",
            line={"width": 1.75 if is_baseline else 2.5, "dash": dash, "color": colour},
            hovertemplate="rank %{x}: %{y:.1%}",
        )
        if known.any():
            figure.add_scatter(
                x=ranks[known],
                y=values[known],
                name=shown,
                legendgroup=str(index),
                showlegend=False,
                mode="markers",
                marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
                error_y={**interval_bars(values[known], low[known], high[known]), "width": 4},
                customdata=[f"[{lo:.1%}, {hi:.1%}]" for lo, hi in zip(low[known], high[known], strict=True)],
                hovertemplate="rank %{x}: %{y:.1%}  %{customdata}",
            )
    notes = [subtitle, f"n = {span(table['n'])} queries. Bars: 95 % intervals."]
    finish(figure, "A right answer among the first ranks (CMC)", notes, 500)
    last = int(table["rank"].max())
    top = float(np.nanmax(table[[name for name in ("value", "high") if name in table]].to_numpy(np.float64)))
    ticks = [rank for rank in _TICK_RANKS if rank <= last]
    figure.update_xaxes(
        type="log",
        title_text="rank (answers looked at, log scale)",
        tickvals=ticks,
        ticktext=[str(rank) for rank in ticks],
        range=[np.log10(0.9), np.log10(1.1 * last)],
    )
    figure.update_yaxes(title_text="queries with a right answer (%)", tickformat=".0%", range=[0, min(1.03, 1.1 * top)])
    return figure


def camera_pairs(table: pd.DataFrame, subtitle: str = "", *, metric: str = "rank-1") -> go.Figure:
    """A heat map of accuracy by the query's camera (rows) and the camera that is searched (columns), with n in each cell.

    A cell without a query that has a match there shows –: under the junk rule that is each camera with itself.

    Args:
        table: columns `query_camera`, `gallery_camera` (text), `num_queries` and `metric` (fraction or NaN).
        subtitle: the protocol in words.
        metric: the column to show.

    Raises:
        ValueError: `table` is empty, a column is missing, or a pair stands twice.
    """
    need_columns(table, ("query_camera", "gallery_camera", "num_queries", metric), "table")
    cells = pd.DataFrame(
        {
            "row": table["query_camera"].astype("str"),
            "column": table["gallery_camera"].astype("str"),
            "value": table[metric].astype("float64"),
            "note": [f"n = {thousands(n)}" for n in table["num_queries"]],
        }
    )
    figure = _heat_map(cells, "searched: camera of the gallery", "asked: camera of the query", metric, 0.16)
    known = cells["value"].notna()
    notes = [subtitle]
    if known.any():
        worst = cells.iloc[int(np.nanargmin(cells["value"]))]
        best = cells.iloc[int(np.nanargmax(cells["value"]))]
        notes += [
            f"n = {span(table['num_queries'][known])} queries a pair",
            f"Best: {best['row']} in {best['column']}, {best['value']:.1%}; worst: {worst['row']} in {worst['column']}, "
            f"{worst['value']:.1%}",
        ]
    notes.append("–: no match to find there, as in the query's own camera where that is junk")
    finish(figure, f"{metric} by pair of cameras", notes, 150 + 52 * max(3, cells["row"].nunique()))
    return figure


def cross_matrix(table: pd.DataFrame, subtitle: str = "", *, metric: str = "mAP") -> go.Figure:
    """A heat map of embedders (rows: what they were trained on) against data sets (columns: what they are tested on).

    Args:
        table: columns `embedder`, `data`, `value`, `low`, `high` (fractions) and `n`; rows and columns in the order given.
        subtitle: the protocol in words.
        metric: what the values are.

    Raises:
        ValueError: `table` is empty, a column is missing, or a pair stands twice.
    """
    need_columns(table, ("embedder", "data", "value", "low", "high", "n"), "table")
    cells = pd.DataFrame(
        {
            "row": table["embedder"],
            "column": table["data"],
            "value": table["value"].astype("float64"),
            "note": [
                f"{100 * low:.1f} to {100 * high:.1f}" for low, high in zip(table["low"], table["high"], strict=True)
            ],
        }
    )
    figure = _heat_map(cells, "tested on (data set)", "embedder", metric, 0.3)
    counts = "; ".join(f"{data}: n = {span(part['n'])}" for data, part in table.groupby("data", sort=False))
    notes = [subtitle, f"{counts} queries", "Below each value: its 95 % interval"]
    finish(figure, f"{metric}: which embedder on which data", notes, 150 + 70 * max(2, cells["row"].nunique()))
    return figure


def _heat_map(cells: pd.DataFrame, x_title: str, y_title: str, metric: str, cell_share: float) -> go.Figure:
    """Columns of cells: row, column, value (fraction or NaN), note; the first row on top.

    A cell takes `cell_share` of the figure's width while there is room.
    """
    if cells.empty:
        raise ValueError("Wanted at least one cell, found none.")
    twice = cells[cells.duplicated(["row", "column"])]
    if len(twice):
        raise ValueError(
            f"Wanted each pair once, found {twice.iloc[0]['row']!r} with {twice.iloc[0]['column']!r} twice."
        )
    rows, columns = (list(dict.fromkeys(cells[name])) for name in ("row", "column"))
    place = [rows.index(name) for name in cells["row"]], [columns.index(name) for name in cells["column"]]
    value_RC, note_RC = np.full((len(rows), len(columns)), np.nan), np.full((len(rows), len(columns)), "", dtype=object)
    value_RC[place], note_RC[place] = cells["value"], cells["note"]
    width = min(1.0, cell_share * len(columns))
    top = float(np.nanmax(value_RC)) if np.isfinite(value_RC).any() else 1.0
    figure = go.Figure(
        go.Heatmap(
            z=value_RC,
            x=list(range(len(columns))),
            y=list(range(len(rows))),
            zmin=0,
            zmax=top or 1.0,
            colorscale=_SHADES,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            customdata=[
                [f"{escaped(r)}, {escaped(c)}<br>{note_RC[i][j]}" for j, c in enumerate(columns)]
                for i, r in enumerate(rows)
            ],
            hovertemplate=f"%{{customdata}}<br>{escaped(metric)} %{{z:.1%}}<extra></extra>",
            colorbar={
                "title": {"text": f"{escaped(metric)} (%)", "font": {"size": 12}},
                "tickformat": ".0%",
                "thickness": 12,
                "x": width + 0.02,
            },
        )
    )
    if len(columns) <= MAX_TEXT_COLUMNS:
        for (i, j), value in np.ndenumerate(value_RC):
            text = f"<b>{100 * value:.1f}</b><br>{note_RC[i][j]}" if np.isfinite(value) else "–"
            colour = "#ffffff" if value > 0.65 * top else "#1f2328"
            figure.add_annotation(x=j, y=i, text=text, showarrow=False, font={"size": 12, "color": colour})
    for update, names, title in ((figure.update_xaxes, columns, x_title), (figure.update_yaxes, rows, y_title)):
        update(
            title_text=f"{title} ({len(names)})",
            tickvals=list(range(len(names))),
            ticktext=[wrapped(name, 22) for name in names],
            showgrid=False,
            zeroline=False,
            ticks="",
        )
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5])
    figure.update_xaxes(range=[-0.5, len(columns) - 0.5], domain=[0, width])
    return figure
