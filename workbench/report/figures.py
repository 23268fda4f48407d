"""Figures of the workbench, one function a figure: tables and arrays in, plotly figures out.

Importing this module registers the template and sets plotly's defaults (`use_workbench_style`): notebooks then keep a
figure as plotly's mimetype alone, which JupyterLab draws and a report embeds, and no figure offers to upload its data.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.report.audit_figures import class_balance, lorenz_curves, measure_histogram, measure_panels
from workbench.report.reid_figures import camera_pairs, cmc_curves, cross_matrix
from workbench.report.style import (
    GREY,
    MAX_NAMED_ROWS,
    SYMBOLS,
    as_sentence,
    escaped,
    finish,
    interval_bars,
    interval_markers,
    mark_line,
    name_rows,
    need_columns,
    span,
    thousands,
    use_workbench_style,
    wrapped,
)

__all__ = [
    "ALL_SHOTS",
    "accuracy_against_shots",
    "camera_pairs",
    "class_balance",
    "cmc_curves",
    "cross_matrix",
    "interval_dots",
    "lorenz_curves",
    "measure_histogram",
    "measure_panels",
    "per_class_accuracy",
    "use_workbench_style",
]

ALL_SHOTS = "all"
_TICK_SHOTS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)

use_workbench_style()


def accuracy_against_shots(
    ours: pd.DataFrame,
    published: pd.DataFrame | None = None,
    chance: float | None = None,
    subtitle: str = "",
    *,
    metric: str = "accuracy@1",
) -> go.Figure:
    """Accuracy over references per class: ours with intervals, published points dashed, the chance level dotted.

    Shots lie on a logarithmic axis; "all" stands apart to the right of it and is not joined to the curve.

    Args:
        ours: columns `shots` (int, or the text "all"), `series`, `value`, `low`, `high` (fractions), `n` (queries).
        published: columns `system`, `shots`, `value`, `condition`; the conditions are printed under the title.
        chance: accuracy of a guess, a fraction.
        subtitle: the protocol of `ours` in words.
        metric: what the values are, named on the axis.

    Raises:
        ValueError: `ours` is empty, or a column is missing.
    """
    need_columns(ours, ("shots", "series", "value", "low", "high", "n"), "ours")
    if ours.empty:
        raise ValueError("Wanted at least one measured point in `ours`, found none.")
    published = pd.DataFrame(columns=["system", "shots", "value", "condition"]) if published is None else published
    need_columns(published, ("system", "shots", "value", "condition"), "published")
    counts = {int(shots) for shots in [*ours["shots"], *published["shots"]] if shots != ALL_SHOTS}
    all_position = 1.8 * max(counts, default=1)
    figure = go.Figure()
    names = list(dict.fromkeys(ours["series"]))
    for index, name in enumerate(names):
        part = ours[ours["series"] == name]
        counted = part[part["shots"] != ALL_SHOTS].sort_values("shots", key=lambda column: column.astype(int))
        whole = part[part["shots"] == ALL_SHOTS]
        gap = pd.DataFrame([{"shots": None, "value": None, "low": None, "high": None, "n": None}])
        rows = pd.concat([frame for frame in (counted, gap, whole) if len(frame)], ignore_index=True)
        # Series are moved apart a little, so that their intervals do not cover each other.
        shift = 1.025 ** (2 * index - len(names) + 1)
        x = [None if pd.isna(s) else shift * (all_position if s == ALL_SHOTS else int(s)) for s in rows["shots"]]
        values, lows, highs = (rows[column].astype("float64") for column in ("value", "low", "high"))
        figure.add_scatter(
            x=x,
            y=values,
            name=wrapped(name, 42),
            mode="lines+markers",
            marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            line={"width": 2.5},
            error_y={
                "type": "data",
                "array": highs - values,
                "arrayminus": values - lows,
                "width": 4,
                "thickness": 1.5,
            },
            customdata=[
                [str(s), lo, hi, thousands(n)]
                for s, lo, hi, n in zip(rows["shots"], lows, highs, rows["n"], strict=True)
            ],
            hovertemplate="%{y:.1%}  [%{customdata[1]:.1%}, %{customdata[2]:.1%}]<br>%{customdata[0]} references per "
            "class, n = %{customdata[3]}",
        )
    for index, (name, part) in enumerate(published.groupby("system", sort=False), start=len(names)):
        part = part.sort_values("shots")
        figure.add_scatter(
            x=part["shots"].astype(int),
            y=part["value"],
            name=wrapped(str(name) + " (published)", 42),
            mode="lines+markers" if part["shots"].nunique() == len(part) > 1 else "markers",
            marker={"size": 7, "symbol": f"{SYMBOLS[index % len(SYMBOLS)]}-open"},
            line={"width": 1.5, "dash": "dash"},
            customdata=[[wrapped(text, 60)] for text in part["condition"].astype(str)],
            hovertemplate="%{y:.1%} with %{x} references per class<br>%{customdata[0]}",
        )
    if chance is not None:
        mark_line(figure, chance, f"chance {chance:.1%}", horizontal=True)
    notes = [subtitle, f"n = {span(ours['n'])} queries. Bars: 95 % intervals."]
    if len(published):
        notes.append("Dashed or open: published, on other data, so compare the shapes and not the heights.")
        notes.append(f"{_conditions(published)}.")
    finish(figure, f"{as_sentence(metric)} against references per class", notes, 560)
    ticks = [shots for shots in _TICK_SHOTS if min(counts, default=1) <= shots <= max(counts, default=1)]
    ticks = ticks if counts else []
    has_all = bool((ours["shots"] == ALL_SHOTS).any())
    right = all_position if has_all else max(counts, default=1)
    figure.update_xaxes(
        type="log",
        title_text="references per class (shots, log scale)",
        tickvals=[*ticks, *([all_position] if has_all else [])],
        ticktext=[*map(str, ticks), *([ALL_SHOTS] if has_all else [])],
        range=[np.log10(0.8 * min(counts, default=1)), np.log10(1.25 * right)],
    )
    top = max(float(ours["high"].max()), float(published["value"].max()) if len(published) else 0.0)
    figure.update_yaxes(
        title_text=f"{escaped(metric)} (% of queries)", tickformat=".0%", range=[0, min(1.02, 1.06 * top)]
    )
    return figure


def interval_dots(
    table: pd.DataFrame,
    title: str,
    subtitle: str = "",
    *,
    quantity: str = "accuracy@1 (% of queries)",
    chance: float | None = None,
) -> go.Figure:
    """Values with their intervals below each other, as in a forest plot, to compare galleries or embedders.

    Args:
        table: columns `label`, `value`, `low`, `high` (fractions) and `n`, drawn from the top in the order given;
            `low` and `high` may be missing. A column `baseline` (bool) draws its rows grey and hollow.
        title: what is compared.
        subtitle: the protocol in words.
        quantity: name and unit of the value, on the axis.
        chance: accuracy of a guess, a fraction, drawn as a dotted line.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("label", "value", "low", "high", "n"), "table")
    if table.empty:
        raise ValueError("Wanted at least one row to compare, found none.")
    rank = np.arange(1, len(table) + 1)
    grey = table["baseline"].to_numpy(bool) if "baseline" in table else np.zeros(len(table), bool)
    values, lows, highs = (table[column].astype("float64").to_numpy() for column in ("value", "low", "high"))
    figure = go.Figure()
    for name, rows, marker in (
        ("result", ~grey, {"symbol": "circle", "size": 12}),
        ("baseline", grey, {"symbol": "diamond-open", "size": 11, "color": GREY, "line": {"width": 2}}),
    ):
        if rows.any():
            figure.add_scatter(
                **interval_markers(values[rows], lows[rows], highs[rows], [f"{value:.1%}" for value in values[rows]]),
                y=rank[rows],
                name=name,
                marker=marker,
                customdata=[
                    [escaped(label), f"[{low:.1%}, {high:.1%}]" if np.isfinite(low) else "no interval", thousands(n)]
                    for label, low, high, n in zip(
                        table["label"][rows], lows[rows], highs[rows], table["n"][rows], strict=True
                    )
                ],
                hovertemplate="<b>%{customdata[0]}</b><br>%{x:.1%}  %{customdata[1]}<br>n = %{customdata[2]}<extra></extra>",
            )
    notes = [subtitle, f"n = {span(table['n'])}. Bars: 95 % intervals."]
    if chance is not None:
        mark_line(figure, chance, f"chance {chance:.1%}", horizontal=False)
    name_rows(figure, table["label"], quantity, "", title, notes, row_px=58)
    figure.update_layout(showlegend=bool(grey.any() and not grey.all()))
    figure.update_xaxes(tickformat=".0%", range=[0, 1.08 * np.nanmax([*values, *highs])])
    return figure


def per_class_accuracy(
    table: pd.DataFrame, subtitle: str = "", *, quantity: str = "accuracy@1 (% of queries)"
) -> go.Figure:
    """Accuracy of each class with its interval, the worst on top: named rows, or a ranked curve above 120 classes.

    The dotted line is the mean over classes (macro).

    Args:
        table: columns `label`, `value`, `low`, `high` (fractions), `n` (queries of the class).
        subtitle: the protocol in words.
        quantity: name and unit of the value, on the axis.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("label", "value", "low", "high", "n"), "table")
    if table.empty:
        raise ValueError("Wanted at least one class, found none.")
    rows = table.sort_values(["value", "label"], ignore_index=True)
    values, lows, highs = (rows[column].astype("float64").to_numpy() for column in ("value", "low", "high"))
    named = len(rows) <= MAX_NAMED_ROWS
    rank = np.arange(1, len(rows) + 1)
    bars = {**interval_bars(values, lows, highs), "color": GREY}
    figure = go.Figure(
        go.Scatter(
            x=values if named else rank,
            y=rank if named else values,
            mode="markers",
            marker={"size": 8 if named else 4},
            cliponaxis=False,
            customdata=[
                [escaped(row.label), f"{row.value:.1%}  [{row.low:.1%}, {row.high:.1%}]", thousands(row.n)]
                for row in rows.itertuples()
            ],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>n = %{customdata[2]} queries<extra></extra>",
            showlegend=False,
            **({"error_x": bars} if named else {"error_y": bars | {"thickness": 0.5}}),
        )
    )
    notes = [
        subtitle,
        f"{len(rows):,} classes, n = {int(rows['n'].sum()):,} queries ({span(rows['n'])} per class). Bars: 95 % intervals.",
    ]
    mark_line(
        figure,
        float(values.mean()),
        f"mean over classes {values.mean():.1%}",
        horizontal=not named,
        left=named and values.mean() > 0.5,
    )
    if named:
        name_rows(figure, rows["label"], quantity, "class", "Accuracy of each class", notes)
        figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
    else:
        finish(figure, "Accuracy of each class", notes, 460)
        figure.update_xaxes(title_text="class, by rank (worst first)", range=[0, len(rows) + 1])
        figure.update_yaxes(title_text=escaped(quantity), tickformat=".0%", range=[-0.02, 1.02])
    return figure


def _conditions(published: pd.DataFrame) -> str:
    """The conditions of the published points, each said once: systems that share one, data sets of one system."""
    stated: dict[str, list[str]] = {}
    for system, conditions in published.groupby("system", sort=False)["condition"].unique().items():
        parts = [str(condition).split(", ") for condition in conditions]
        shared = 0
        while shared < min(map(len, parts)) - 1 and len({part[-1 - shared] for part in parts}) == 1:
            shared += 1
        heads = [", ".join(part[: len(part) - shared]) for part in parts]
        told = ", ".join([" / ".join(heads), *parts[0][len(parts[0]) - shared :]]) if len(parts) > 1 else conditions[0]
        stated.setdefault(told, []).append(str(system))
    return "; ".join(f"{' and '.join(systems)}: {told}" for told, systems in stated.items())
