"""Figures of a training: what fell, with which rates, on how many images, and what validation said."""

from collections.abc import Sequence

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

_MAX_POINTS = 2000
_DASHES = ("solid", "dash", "dot", "dashdot")


def training_curve(history: pd.DataFrame, column: str, title: str, unit: str, subtitle: str = "") -> go.Figure:
    """A column of the history over the optimiser steps: every step faint, its moving average strong.

    Args:
        history: columns `step` and `column`, one row a step.
        column: such as `loss` or `gradient_norm`.
        title: what is drawn; unit: its unit, on the axis.
        subtitle: the recipe in words.

    Raises:
        ValueError: `history` is empty, or a column is missing.
    """
    need_columns(history, ("step", column), "history")
    if history.empty:
        raise ValueError("Wanted at least one step of training, found none.")
    window = max(1, len(history) // 20)
    smooth = history[column].rolling(window, min_periods=1).mean()
    every = history.iloc[:: max(1, len(history) // _MAX_POINTS)]
    figure = go.Figure()
    figure.add_scatter(
        x=every["step"], y=every[column], name="each step", mode="lines", line={"width": 1, "color": "#b6bdc6"}
    )
    figure.add_scatter(
        x=every["step"],
        y=smooth.loc[every.index],
        name=f"mean of the last {window} steps",
        mode="lines",
        line={"width": 2.5, "color": OKABE_ITO[0]},
    )
    notes = [subtitle, f"n = {len(history):,} steps, last mean {smooth.iloc[-1]:.3g}."]
    finish(figure, title, notes, 360)
    figure.update_xaxes(title_text="optimiser step")
    figure.update_yaxes(title_text=escaped(f"{column.replace('_', ' ')} ({unit})"), rangemode="tozero")
    return figure


def learning_rates(history: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """The rate of every block over the steps, as it stood in the optimiser, on a logarithmic axis.

    Blocks go from the stem (light) to the top (dark); head and loss have colours of their own. Blocks with one rate at
    all steps share a line.

    Args:
        history: columns `step` and `learning_rate/<block>`, the stem first.
        subtitle: the recipe in words.

    Raises:
        ValueError: no step or no rate.
    """
    names = [name for name in history.columns if str(name).startswith("learning_rate/")]
    need_columns(history, ("step",), "history")
    if not names or history.empty:
        raise ValueError("Wanted a history with columns learning_rate/<block> and at least one step, found none.")
    rows = history.iloc[:: max(1, len(history) // 400)]
    groups: dict[bytes, list[str]] = {}
    for name in names:
        groups.setdefault(rows[name].to_numpy(np.float64).tobytes(), []).append(
            str(name).removeprefix("learning_rate/")
        )
    figure = go.Figure()
    for index, blocks in enumerate(groups.values()):
        shade = 0.25 + 0.75 * (index + 1) / len(groups)
        figure.add_scatter(
            x=rows["step"],
            y=rows[f"learning_rate/{blocks[0]}"].where(rows[f"learning_rate/{blocks[0]}"] > 0),
            name=escaped(blocks[0] if len(blocks) == 1 else f"{blocks[0]} to {blocks[-1]} ({len(blocks)})"),
            mode="lines",
            line={"width": 2, "color": f"rgba(0, 114, 178, {shade:.2f})"},
        )
    notes = [subtitle, f"n = {len(names)} groups of weights, {len(history):,} steps; read from the optimiser."]
    finish(figure, "Learning rate of each block", notes, 400)
    figure.update_xaxes(title_text="optimiser step")
    figure.update_yaxes(title_text="learning rate (log scale)", type="log", exponentformat="power")
    return figure


def validation_curve(
    table: pd.DataFrame, subtitle: str = "", *, chosen_step: int | None = None, chance: float | None = None
) -> go.Figure:
    """Validation accuracy with its interval over the optimiser steps, and the step that was kept.

    Args:
        table: columns `step`, `value`, `low`, `high` (fractions), `n` (images).
        subtitle: the protocol in words.
        chosen_step: whose weights were kept; marked.
        chance: accuracy of a guess, a fraction.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("step", "value", "low", "high", "n"), "table")
    if table.empty:
        raise ValueError("Wanted at least one validation, found none.")
    values, lows, highs = (table[column].astype("float64").to_numpy() for column in ("value", "low", "high"))
    figure = go.Figure(
        go.Scatter(
            x=table["step"],
            y=values,
            mode="lines+markers",
            marker={"size": 8},
            line={"width": 2.5},
            error_y={**interval_bars(values, lows, highs), "width": 4},
            hovertemplate="step %{x}: %{y:.1%}<extra></extra>",
            showlegend=False,
        )
    )
    if chosen_step is not None:
        figure.add_vline(
            chosen_step, line={"width": 1, "dash": "dash"}, annotation_text="kept", annotation_font_size=11
        )
    if chance is not None:
        mark_line(figure, chance, f"chance {chance:.1%}", horizontal=True)
    finish(figure, "Validation accuracy", [subtitle, f"n = {span(table['n'])} images. Bars: 95 % intervals."], 380)
    figure.update_xaxes(title_text="optimiser step")
    figure.update_yaxes(title_text="mean accuracy over classes (%)", tickformat=".0%", rangemode="tozero")
    return figure


def images_before_after(
    counts: pd.DataFrame, subtitle: str = "", *, names: Sequence[str] = ("before", "after")
) -> go.Figure:
    """Images per class before and after balancing, classes by rank: how steep the tail was and what became of it.

    Args:
        counts: columns `label` and those of `names` (images there are; samples an epoch).
        subtitle: how it was balanced.
        names: the two columns.

    Raises:
        ValueError: `counts` is empty, or a column is missing.
    """
    need_columns(counts, ("label", *names), "counts")
    if counts.empty:
        raise ValueError("Wanted the images of at least one class, found none.")
    rows = counts.sort_values([names[0], "label"], ascending=[False, True], ignore_index=True)
    figure = go.Figure()
    for index, name in enumerate(names):
        figure.add_scatter(
            x=np.arange(1, len(rows) + 1),
            y=rows[name],
            name=f"{name} ({int(rows[name].sum()):,} in all)",
            mode="markers",
            marker={"size": 7 if len(rows) <= 200 else 4, "symbol": SYMBOLS[index], "color": OKABE_ITO[index]},
            customdata=[[escaped(label)] for label in rows["label"]],
            hovertemplate="%{customdata[0]}: %{y}",
        )
    notes = [
        subtitle,
        f"n = {len(rows):,} classes; {span(rows[names[0]])} images before, {span(rows[names[1]])} after.",
    ]
    finish(figure, "Images per class, before and after balancing", notes, 380)
    figure.update_xaxes(title_text="class, by rank (largest first)")
    figure.update_yaxes(title_text="images per class and epoch (count)", rangemode="tozero")
    return figure


def interpolation_curve(
    table: pd.DataFrame, subtitle: str = "", *, value_title: str = "share of right answers (%)"
) -> go.Figure:
    """A line for each question over the share of the trained weights, with intervals: 0 is before, 1 is after training.

    Args:
        table: columns `share` (0 to 1), `question`, `value`, `low`, `high` (fractions), `n` (queries).
        subtitle: the protocol in words.
        value_title: what the values are.

    Raises:
        ValueError: `table` is empty, or a column is missing.
    """
    need_columns(table, ("share", "question", "value", "low", "high", "n"), "table")
    if table.empty:
        raise ValueError("Wanted the values of at least one share, found none.")
    figure = go.Figure()
    groups = list(table.groupby("question", sort=False))
    for index, (question, rows) in enumerate(groups):
        values, lows, highs = (rows[column].astype("float64").to_numpy() for column in ("value", "low", "high"))
        figure.add_scatter(
            x=rows["share"] + 0.006 * (index - (len(groups) - 1) / 2),  # so that intervals do not cover each other
            y=values,
            name=escaped(question),
            mode="lines+markers",
            marker={"size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            line={"width": 2.5, "color": OKABE_ITO[index % len(OKABE_ITO)], "dash": _DASHES[index % len(_DASHES)]},
            error_y=interval_bars(values, lows, highs),
            customdata=rows[["share", "low", "high"]],
            hovertemplate="share %{customdata[0]}: %{y:.1%} [%{customdata[1]:.1%}, %{customdata[2]:.1%}]",
        )
    notes = [
        subtitle,
        f"n = {span(table['n'])} queries. Bars: 95 % intervals. A share chosen on these queries promises more than it keeps",
    ]
    finish(figure, "Between the weights before and after training", notes, 380 + 20 * len(groups))
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="share of the trained weights (0 = before, 1 = after)", tickformat=".1f")
    figure.update_yaxes(title_text=escaped(value_title), tickformat=".0%", rangemode="tozero")
    return figure
