"""Figures of the references' quality: hubs, wrong answers, gain from one more reference, and one number under every convention."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.special import bdtr

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
    thousands,
)

__all__ = ["compare_conventions", "gain_per_class", "occurrence_histogram", "wrong_win_share"]

_MAX_BARS = 60


def occurrence_histogram(table: pd.DataFrame, k: int, num_queries: int, subtitle: str = "") -> go.Figure:
    """How many references are among the k nearest of how many queries, beside what chance would give (dotted).

    The count of references is logarithmic, so that the few hubs at the far right are seen beside the many.

    Args:
        table: columns `occurrences` and `label`, a row a reference.
        k: neighbours that were counted for each query.
        num_queries: queries that were asked.
        subtitle: the protocol in words.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("occurrences", "label"), "table")
    if table.empty:
        raise ValueError("Wanted at least one reference, found none.")
    value_N, num = table["occurrences"].to_numpy(np.float64), len(table)
    top = int(np.ceil(value_N.max()))
    width = -(-(top + 1) // _MAX_BARS)
    first = np.arange(0, top + 1, width)
    count = np.histogram(value_N, np.append(first, first[-1] + width) - 0.5)[0]
    below = np.minimum(np.append(first, first[-1] + width) - 1, num_queries)
    chance = num * np.diff(np.where(below < 0, 0.0, bdtr(np.maximum(below, 0), num_queries, min(1.0, k / num))))
    centre = first + (width - 1) / 2
    spans = [f"{low:,}" if width == 1 else f"{low:,} to {low + width - 1:,}" for low in first]
    figure = go.Figure(
        go.Bar(
            x=centre,
            y=count,
            width=0.9 * width,
            name="references",
            customdata=spans,
            hovertemplate="%{y:,} references are found by %{customdata} queries<extra></extra>",
        )
    )
    figure.add_scatter(
        x=centre,
        y=chance,
        name="without hubs: each query names k at random",
        mode="lines+markers",
        line={"dash": "dot", "width": 2},
        marker={"symbol": "diamond-open", "size": 6},
        customdata=spans,
        hovertemplate="by chance %{y:,.1f} references by %{customdata} queries<extra></extra>",
    )
    hub = int(value_N.argmax())
    notes = [
        subtitle,
        f"n = {num:,} references, {num_queries:,} queries, k = {k}; on average a reference is found by {value_N.mean():,.1f} queries, the "
        f"greatest hub ({table['label'].iloc[hub]}) by {value_N.max():,.0f}; {int((value_N == 0).sum()):,} references by none",
    ]
    finish(figure, "Hubs: references that are found too often", notes, 440)
    figure.update_xaxes(title_text=f"queries that have the reference among their {k} nearest", rangemode="tozero")
    highest = max(float(count.max()), float(chance.max()), 1.0)
    figure.update_yaxes(
        type="log", title_text="references (count, log scale)", range=[np.log10(0.5), np.log10(1.4 * highest)], dtick=1
    )
    return figure


def wrong_win_share(table: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The share of all wrong answers that the worst references give, worst first (a Lorenz curve), against an equal share.

    Args:
        table: columns `wrong_wins` (queries won wrongly, fractions where references tie) and `label`, a row a reference.
        subtitle: the protocol in words.

    Raises:
        ValueError: a column is missing, or nothing was won wrongly.
    """
    need_columns(table, ("wrong_wins", "label"), "table")
    rows = table.sort_values("wrong_wins", ascending=False, kind="stable", ignore_index=True)
    wrong_N = rows["wrong_wins"].to_numpy(np.float64)
    if not len(rows) or wrong_N.sum() <= 0:
        raise ValueError("Wanted at least one wrong answer, found none: there is nothing to share out.")
    share_N = np.cumsum(wrong_N) / wrong_N.sum()
    used = int((wrong_N > 0).sum())
    half = int(np.searchsorted(share_N, 0.5 - 1e-12)) + 1
    rank = np.arange(1, used + 1)
    figure = go.Figure(
        go.Scatter(
            x=np.append(0, rank) / len(rows),
            y=np.append(0, share_N[:used]),
            name="worst references first",
            mode="lines+markers" if used <= 200 else "lines",
            marker={"size": 5},
            line={"width": 2.5},
            customdata=[
                ["", "", ""],
                *zip(rank.tolist(), rows["label"][:used].map(escaped), wrong_N[:used].tolist(), strict=True),
            ],
            hovertemplate="the %{customdata[0]} worst: %{y:.1%} of the wrong answers<br>the last of them (label "
            "%{customdata[1]}) gives %{customdata[2]:.1f}<extra></extra>",
        )
    )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        name="an equal share",
        mode="lines",
        line={"dash": "dot", "width": 1.5, "color": GREY},
        hoverinfo="skip",
    )
    mark_line(figure, 0.5, f"half: {half:,} of {len(rows):,} references", horizontal=True)
    notes = [
        subtitle,
        f"n = {wrong_N.sum():,.0f} wrong answers by {used:,} of {len(rows):,} references",
        f"{len(rows) - used:,} references answer nothing wrongly",
    ]
    finish(figure, "Which references give the wrong answers", notes, 440)
    figure.update_xaxes(title_text="share of the references, worst first (%)", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="share of the wrong answers (%)", tickformat=".0%", range=[0, 1.03])
    return figure


def gain_per_class(table: pd.DataFrame, subtitle: str = "", *, top: int = 15) -> go.Figure:
    """The gain of each class from one more reference with its interval, the greatest on top; hollow: it has none to add.

    Args:
        table: columns `label`, `gain`, `low`, `high` (fractions, -1 to 1), `n` (queries) and `has_another` (bool, may be missing).
        subtitle: the step and the protocol in words.
        top: rows shown.

    Raises:
        ValueError: `table` is empty, a column is missing, or top is below 1.
    """
    need_columns(table, ("label", "gain", "low", "high", "n", "has_another"), "table")
    if table.empty or top < 1:
        raise ValueError(f"Wanted at least one class and top of at least 1, found {len(table)} and {top}.")
    rows = table.sort_values(["gain", "label"], ascending=[False, True]).head(top)
    gains, lows, highs = (100 * rows[column].astype("float64").to_numpy() for column in ("gain", "low", "high"))
    rank = np.arange(1, len(rows) + 1)
    without = (rows["has_another"] == False).fillna(False).to_numpy(bool)  # noqa: E712 (missing is not False)
    figure = go.Figure()
    for name, chosen, marker in (
        ("has another reference", ~without, {"symbol": "circle", "color": OKABE_ITO[0]}),
        (
            "has none to add: the effect of the others' alone",
            without,
            {"symbol": "diamond-open", "color": GREY, "line": {"width": 2}},
        ),
    ):
        if chosen.any():
            figure.add_scatter(
                x=gains[chosen],
                y=rank[chosen],
                name=name,
                mode="markers",
                marker={"size": 10, **marker},
                error_x=interval_bars(gains[chosen], lows[chosen], highs[chosen]),
                customdata=[
                    [escaped(row.label), f"{gain:+.1f} points  [{low:+.1f}, {high:+.1f}]", thousands(row.n)]
                    for row, gain, low, high in zip(
                        rows[chosen].itertuples(), gains[chosen], lows[chosen], highs[chosen], strict=True
                    )
                ],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>n = %{customdata[2]} queries<extra></extra>",
            )
    notes = [
        subtitle,
        f"The {len(rows)} greatest of {len(table):,} classes, n = {span(rows['n'])} queries a class. Bars: 95 % intervals, each for "
        "its class alone; the greatest of many are partly luck",
    ]
    title = "Which class gains most from one more reference"
    name_rows(figure, rows["label"], "gain in accuracy@1 (percentage points)", "class", title, notes, row_px=24)
    mark_line(figure, 0.0, "no change", horizontal=False)
    figure.update_layout(showlegend=bool(without.any()))
    return figure


def compare_conventions(table: pd.DataFrame, title: str, subtitle: str = "") -> go.Figure:
    """The same embeddings under every convention: a panel a metric, dots with intervals, the headline marked.

    The axes show the range of the values, not 0 to 100 %, because the differences are the subject.

    Args:
        table: columns `convention`, `metric`, `value`, `low`, `high` (fractions; NaN: no number), `n`, `difference_points`,
            `is_headline` (bool) and `note`, as the conventions' tables have them.
        title: what is compared.
        subtitle: the headline's protocol in words.

    Raises:
        ValueError: `table` has no number, or a column is missing.
    """
    wanted = ("convention", "metric", "value", "low", "high", "n", "difference_points", "is_headline", "note")
    need_columns(table, wanted, "table")
    if table.empty or not table["value"].notna().any():
        raise ValueError("Wanted at least one convention with a number, found none.")
    names, metrics = (list(dict.fromkeys(table[column])) for column in ("convention", "metric"))
    figure = make_subplots(
        cols=len(metrics), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=[escaped(m) for m in metrics]
    )
    for column, metric in enumerate(metrics, start=1):
        rows = table[(table["metric"] == metric) & table["value"].notna()]
        for is_headline, colour in ((True, OKABE_ITO[1]), (False, OKABE_ITO[0])):
            part = rows[rows["is_headline"] == is_headline]
            value, low, high = (part[name].astype("float64").to_numpy() for name in ("value", "low", "high"))
            figure.add_scatter(
                x=value,
                y=[names.index(name) + 1 for name in part["convention"]],
                mode="markers+text",
                name="headline" if is_headline else "one convention changed",
                legendgroup=str(is_headline),
                showlegend=column == 1,
                marker={"size": 11, "symbol": SYMBOLS[1 if is_headline else 0], "color": colour},
                error_x=interval_bars(value, low, high),
                text=[
                    f"{value:.1%}"
                    if is_headline or np.isnan(points)
                    else f"{round(points, 1) or 0:+.1f}".replace("+0.0", "0.0")
                    for value, points in zip(value, part["difference_points"].astype("float64"), strict=True)
                ],
                textposition="top center",
                textfont={"size": 11},
                cliponaxis=False,
                customdata=[
                    [escaped(row.convention), f"[{row.low:.1%}, {row.high:.1%}]", thousands(row.n)]
                    for row in part.itertuples()
                ],
                hovertemplate="<b>%{customdata[0]}</b><br>%{x:.2%}  %{customdata[1]}<br>n = %{customdata[2]}<extra></extra>",
                row=1,
                col=column,
            )
            if is_headline and len(part):
                figure.add_vline(value[0], line={"color": GREY, "width": 1.5, "dash": "dot"}, row=1, col=column)
        for name in table.loc[(table["metric"] == metric) & table["value"].isna(), "convention"]:
            where = {"x": 0.02, "y": names.index(name) + 1, "xref": "x domain", "row": 1, "col": column}
            figure.add_annotation(text="no number", showarrow=False, xanchor="left", **where)
        ends = rows[["value", "low", "high"]].to_numpy(np.float64)
        room = max(0.02, 0.15 * float(np.nanmax(ends) - np.nanmin(ends))) if len(rows) else 0.5
        reach = [float(np.nanmin(ends)) - room, float(np.nanmax(ends)) + room] if len(rows) else [0, 1]
        figure.update_xaxes(range=reach, tickformat=".0%", row=1, col=column)
    known = table[table["value"].notna()]
    failed = table[table["value"].isna()].drop_duplicates("convention")
    notes = [
        subtitle,
        f"n = {span(known['n'])} queries. Bars: 95 % intervals; signed: change in percentage points; the axes do not "
        "begin at 0",
    ]
    notes += [f"{name}: {note}" for name, note in zip(failed["convention"], failed["note"], strict=True)]
    name_rows(figure, names, "% of queries", "", title, notes, row_px=46)
    figure.update_layout(
        margin={"t": figure.layout.margin.t + 30},
        legend={"xref": "container", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    figure.update_yaxes(title_text="convention", col=1)
    return figure
