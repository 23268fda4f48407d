"""Figures of a benchmark: ratios to a base, memory, growth with the gallery, and whether intervals hold the truth."""

from collections.abc import Iterable

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
    need_columns,
    span,
    thousands,
)

_OURS, _OTHERS = OKABE_ITO[0], "#b6bdc6"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def ratio_bars(
    table: pd.DataFrame, title: str, base: str, subtitle: str = "", *, limits: dict[str, float] | None = None
) -> go.Figure:
    """Times as ratios to a base, on a logarithmic axis: ours dark, others light, a hatch where an answer differs from ours.

    Args:
        table: columns `contender`, `ours` (bool), `ratio`, `low`, `high` (of the rounds), `repetitions`, `agrees` (bool, or None where
            nothing can be compared), `difference`; from the top in the order given.
        title: the task.
        base: what the ratios are to, in words.
        subtitle: sizes and conditions.
        limits: contender: the ratio that it should stay below; drawn as a mark.

    Raises:
        ValueError: an empty table, a missing column, or a ratio that is not above 0.
    """
    need_columns(table, ("contender", "ours", "ratio", "low", "high", "repetitions", "agrees", "difference"), "table")
    if table.empty or not (table["low"] > 0).all():
        raise ValueError("Wanted at least one contender, and ratios above 0.")
    least = min(1.0, float(table["low"].min())) / 1.5
    most = float(table["high"].max())
    figure = go.Figure()
    for ours, name, colour in ((True, "the workbench", _OURS), (False, "others", _OTHERS)):
        part = table[table["ours"].astype(bool) == ours]
        if part.empty:
            continue
        differs = [agrees is not None and not bool(agrees) for agrees in part["agrees"]]
        figure.add_bar(
            y=[escaped(contender) for contender in part["contender"]],
            x=part["ratio"],
            orientation="h",
            name=name,
            marker={"color": colour, "pattern": {"shape": ["/" if wrong else "" for wrong in differs]}},
            error_x=interval_bars(*(part[column].to_numpy(np.float64) for column in ("ratio", "low", "high"))),
            customdata=[
                [low, high, count, _agreement(agrees, difference)]
                for low, high, count, agrees, difference in part[
                    ["low", "high", "repetitions", "agrees", "difference"]
                ].itertuples(index=False, name=None)
            ],
            hovertemplate="%{x:,.3~f} [%{customdata[0]:,.3~f}, %{customdata[1]:,.3~f}], %{customdata[2]} rounds<br>"
            "%{customdata[3]}",
        )
    for contender, limit in (limits or {}).items():
        figure.add_scatter(
            x=[limit],
            y=[escaped(contender)],
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 22, "color": OKABE_ITO[1], "line": {"width": 3}},
            name="wanted: below this",
            showlegend=contender == next(iter(limits or {})),
            hovertemplate="wanted: below %{x:g}<extra></extra>",
        )
    _write_values(figure, table["contender"], table["high"], [_short(ratio) for ratio in table["ratio"]], most)
    wrong = [str(name) for name, agrees in zip(table["contender"], table["agrees"], strict=True) if agrees is False]
    notes = [
        subtitle,
        f"Ratio of the least times of {span(table['repetitions'])} rounds in turn; lines: range over the rounds.",
        f"Hatched: its answer differs from ours ({', '.join(wrong)})." if wrong else "All answers that can be compared agree.",
    ]  # fmt: skip
    finish(figure, title, notes, 170 + 34 * len(table))
    _rows_from_top(figure, table["contender"])
    figure.update_xaxes(title_text=escaped(f"time, {base} = 1 (log scale)"), type="log", showgrid=True)
    figure.update_xaxes(range=[np.log10(least), np.log10(most * 4)], **_plain_ticks(least, most * 4))
    _mark(figure, 1, "")
    return figure


def memory_bars(table: pd.DataFrame, title: str, subtitle: str = "", *, limit_mib: float | None = None) -> go.Figure:
    """The most memory above the inputs, one run a process, on a logarithmic axis; ours dark, "did not fit" where it was killed.

    Args:
        table: columns `contender`, `ours` (bool), `above_mib` (NaN: killed); from the top in the order given.
        title: the task.
        subtitle: sizes.
        limit_mib: what ours should stay below; drawn as a line.

    Raises:
        ValueError: an empty table or a missing column.
    """
    need_columns(table, ("contender", "ours", "above_mib"), "table")
    if table.empty:
        raise ValueError("Wanted at least one contender, found none.")
    shown = table["above_mib"].clip(lower=1.0)
    most = float(np.nanmax([*shown, limit_mib or 1.0, 10.0]))
    figure = go.Figure()
    for ours, name, colour in ((True, "the workbench", _OURS), (False, "others", _OTHERS)):
        part = table["ours"].astype(bool) == ours
        if part.any():
            figure.add_bar(
                y=[escaped(contender) for contender in table.loc[part, "contender"]],
                x=shown[part],
                orientation="h",
                name=name,
                marker={"color": colour},
                hovertemplate="%{y}: %{x:,.0f} MiB<extra></extra>",
            )
    texts = ["did not fit" if np.isnan(mib) else f"{mib:,.0f}" for mib in table["above_mib"]]
    _write_values(figure, table["contender"], shown.fillna(1.0), texts, most)
    notes = [
        subtitle,
        "Peak of the resident memory less what was resident before, each in a process of its own, 1 run.",
    ]
    finish(figure, title, notes, 170 + 34 * len(table))
    _rows_from_top(figure, table["contender"])
    figure.update_xaxes(title_text="memory above the inputs (MiB, log scale)", type="log", showgrid=True)
    figure.update_xaxes(range=[0, np.log10(most * 3)], **_plain_ticks(1, most * 3))
    if limit_mib is not None:
        _mark(figure, limit_mib, f"wanted: below {limit_mib:,.0f}")
    return figure


def growth_lines(
    table: pd.DataFrame, title: str, subtitle: str = "", *, quantity: str = "seconds", rows: str = "gallery (rows)"
) -> go.Figure:
    """Times against the number of rows, both axes logarithmic: ours thick; a line ends where its contender was left out.

    Args:
        table: columns `contender`, `ours`, `num_rows` and `quantity`.
        title: the task.
        subtitle: sizes and what leaves a contender out.
        quantity: the column that is drawn: "seconds" or "ratio".
        rows: what num_rows counts.

    Raises:
        ValueError: an empty table or a missing column.
    """
    need_columns(table, ("contender", "ours", "num_rows", quantity), "table")
    if table.empty:
        raise ValueError("Wanted at least one measured point, found none.")
    figure = go.Figure()
    sizes = sorted(table["num_rows"].unique())
    others = 0
    for index, (name, part) in enumerate(table.groupby("contender", sort=False)):
        ours = bool(part["ours"].iloc[0])
        colour = _OURS if ours else [*OKABE_ITO[1:], GREY][others % len(OKABE_ITO)]
        others += not ours
        part = part.sort_values("num_rows")
        figure.add_scatter(
            x=part["num_rows"],
            y=part[quantity],
            name=escaped(name),
            mode="lines+markers",
            line={"width": 3.5 if ours else 1.5, "dash": _DASHES[index % len(_DASHES)], "color": colour},
            marker={"size": 9 if ours else 7, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
            hovertemplate="%{x:,} rows: %{y:.3g}",
        )
    finish(figure, title, [subtitle, f"n = {len(sizes)} {'size' if len(sizes) == 1 else 'sizes'}; ours thick."], 480)
    figure.update_xaxes(title_text=escaped(f"{rows}, log scale"), type="log", showgrid=True, tickvals=sizes)
    figure.update_xaxes(ticktext=[f"{count:,}" for count in sizes])
    unit = "time (s, log scale)" if quantity == "seconds" else "time as a ratio to the base (log scale)"
    figure.update_yaxes(title_text=unit, type="log", **_plain_ticks(table[quantity].min(), table[quantity].max()))
    return figure


def coverage_dots(
    table: pd.DataFrame, title: str, subtitle: str = "", *, band: tuple[float, float] = (0.93, 0.97)
) -> go.Figure:
    """The share of trials whose 95 % interval held the truth, one dot a world, by number of classes; the wanted band is shaded.

    Args:
        table: columns `num_classes`, `accuracy`, `class_sizes`, `draws`, `average`, `covered`, `low`, `high`, `n` (trials).
        title: what is drawn.
        subtitle: conditions.
        band: where the dots should lie.

    Raises:
        ValueError: an empty table or a missing column.
    """
    columns = ("num_classes", "accuracy", "class_sizes", "draws", "average", "covered", "low", "high", "n")
    need_columns(table, columns, "table")
    if table.empty:
        raise ValueError("Wanted at least one simulated world, found none.")
    figure = go.Figure()
    figure.add_hrect(*band, fillcolor="#e8f1f8", line_width=0, layer="below")
    counts = sorted(table["num_classes"].unique())
    for index, (name, part) in enumerate(table.groupby("class_sizes", sort=False)):
        place = part["num_classes"].map({count: place for place, count in enumerate(counts)})
        within = part.groupby("num_classes").cumcount()
        width = part.groupby("num_classes")["covered"].transform("size").clip(lower=1)
        kinds = table["class_sizes"].nunique()
        shift = (index + (within + 0.5) / width) / kinds - 0.5
        figure.add_scatter(
            x=place + 0.86 * shift,
            y=part["covered"],
            name=escaped(f"classes of {name} size"),
            mode="markers",
            marker={"size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": OKABE_ITO[index % len(OKABE_ITO)]},
            error_y=interval_bars(*(part[column].to_numpy(np.float64) for column in ("covered", "low", "high"))),
            customdata=part[["accuracy", "draws", "average"]].to_numpy(),
            hovertemplate="%{y:.1%}: accuracy %{customdata[0]:.0%}, %{customdata[1]} draws, %{customdata[2]}",
        )
    inside = int(table["covered"].between(*band).sum())
    notes = [
        subtitle,
        f"n = {span(table['n'])} trials a dot; {inside} of {len(table)} dots lie in the band of {band[0]:.0%} to {band[1]:.0%}.",
        "Within a group from left to right: accuracy, draws, average. Bars: exact 95 % intervals of the share itself.",
    ]
    finish(figure, title, notes, 430)
    mark_line(figure, 0.95, "95 %", horizontal=True)
    figure.update_xaxes(
        title_text="classes (count)", tickvals=list(range(len(counts))), ticktext=[f"{count:,}" for count in counts]
    )
    figure.update_xaxes(zeroline=False, range=[-0.5, len(counts) - 0.5])
    low = min(0.88, float(table["low"].min()) - 0.01)
    figure.update_yaxes(title_text="intervals that hold the truth (% of trials)", tickformat=".0%", range=[low, 1.0])
    return figure


def _agreement(agrees: object, difference: float) -> str:
    if agrees is None:
        return "nothing to compare"
    return f"{'agrees with ours' if agrees else 'DIFFERS from ours'}: by at most {difference:.1e}"


def _write_values(
    figure: go.Figure, names: Iterable[str], ends: Iterable[float], texts: Iterable[str], most: float
) -> None:
    figure.add_scatter(
        x=[min(end, most) * 1.06 for end in ends],
        y=[escaped(name) for name in names],
        mode="text",
        text=list(texts),
        textposition="middle right",
        textfont={"size": 12},
        showlegend=False,
        hoverinfo="skip",
    )


def _mark(figure: go.Figure, at: float, text: str) -> None:
    """A dotted line across a logarithmic axis; plotly would put a line's own annotation at ten to the power of its place."""
    figure.add_vline(at, line={"color": GREY, "width": 1.5, "dash": "dot"})
    if text:
        place = {"x": np.log10(at), "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(text=text, showarrow=False, font={"size": 11}, **place)


def _short(value: float) -> str:
    return thousands(round(value)) if value >= 1000 else f"{value:.3g}"


def _rows_from_top(figure: go.Figure, names: Iterable[str]) -> None:
    order = [escaped(name) for name in names]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], type="category", ticks="")
    figure.update_layout(bargap=0.35, barmode="overlay")


def _plain_ticks(low: float, high: float) -> dict[str, object]:
    """Ticks at 1, 2 and 5 times powers of ten (1 alone over a long range), written out."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    every = [step * 10.0**power for power in range(-6, 9) for step in steps]
    shown = [tick for tick in every if low <= tick <= high]
    return {"tickvals": shown, "ticktext": [f"{tick:,.6g}" for tick in shown]}
