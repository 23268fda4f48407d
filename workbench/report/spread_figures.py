"""Figure of the embeddings' spread: alignment against uniformity, before and after training."""

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

__all__ = ["spread_before_after"]

_COLUMNS = (
    "series",
    "stage",
    "n",
    *(f"{m}{end}" for m in ("alignment", "uniformity") for end in ("", "_low", "_high")),
)


def spread_before_after(table: pd.DataFrame, subtitle: str = "", *, least_uniformity: float | None = None) -> go.Figure:
    """Alignment over uniformity, both better when smaller: an arrow for each series from before (hollow) to after (filled).

    Args:
        table: columns `series`, `stage` ("before" or "after"), `n` (images), and `alignment`, `uniformity` with `_low` and
            `_high` each.
        subtitle: which images, in words.
        least_uniformity: of evenly spread points of this width; dotted.

    Raises:
        ValueError: `table` is empty, a column is missing, or a stage is another word.

    Source: Wang and Isola 2020, figure 4 (the plane of both).
    """
    need_columns(table, _COLUMNS, "table")
    if table.empty or not set(table["stage"]) <= {"before", "after"}:
        raise ValueError(f"Wanted rows with the stage before or after, found {sorted(set(table['stage']))}.")
    figure = go.Figure()
    for index, (name, rows) in enumerate(table.groupby("series", sort=False)):
        colour, symbol = OKABE_ITO[index % len(OKABE_ITO)], SYMBOLS[index % len(SYMBOLS)]
        for stage, marker in (("before", f"{symbol}-open"), ("after", symbol)):
            part = rows[rows["stage"] == stage]
            if part.empty:
                continue
            x, y = (
                [part[f"{measure}{end}"].to_numpy(float) for end in ("", "_low", "_high")]
                for measure in ("uniformity", "alignment")
            )
            figure.add_scatter(
                x=x[0],
                y=y[0],
                name=escaped(f"{name}, {stage}"),
                mode="markers",
                marker={"size": 13, "symbol": marker, "color": colour, "line": {"width": 2, "color": colour}},
                error_x=interval_bars(*x),
                error_y=interval_bars(*y),
                hovertemplate="uniformity %{x:.2f}, alignment %{y:.3f}",
            )
        ends = [rows[rows["stage"] == stage] for stage in ("before", "after")]
        if all(len(end) for end in ends):
            (x0, y0), (x1, y1) = (end[["uniformity", "alignment"]].iloc[0] for end in ends)
            figure.add_annotation(
                x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True,
                arrowhead=3, arrowwidth=1.5, arrowcolor=colour, standoff=9, startstandoff=9,
            )  # fmt: skip
    if least_uniformity is not None:
        mark_line(figure, least_uniformity, f"spread evenly {least_uniformity:.2f}", horizontal=False)
    notes = [
        subtitle,
        f"n = {span(table['n'])} images. Bars: 95 % intervals. Better is left and down; either alone is easy.",
    ]
    finish(figure, "Spread of the embeddings", notes, 430)
    figure.update_xaxes(title_text="uniformity (log of the mean of exp(-2 d²); smaller: more even)", showgrid=True)
    figure.update_yaxes(title_text="alignment (mean d² within a class)", rangemode="tozero")
    return figure
