"""Figures of runs side by side: values with seeds, paired differences (in a line of words too), cost against accuracy."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.report.figures import interval_dots
from workbench.report.style import (
    GREY,
    OKABE_ITO,
    SYMBOLS,
    escaped,
    finish,
    interval_bars,
    interval_markers,
    name_rows,
    need_columns,
    span,
    wrapped,
)

__all__ = [
    "beside_published",
    "cost_against_accuracy",
    "paired_differences",
    "paired_matrix",
    "pareto_front",
    "told_apart",
    "variants_with_seeds",
]

ALPHA = 0.05
# Below these widths a report on a phone scrolls a figure sideways, because it could not be read.
_LONG_NAMES_PX = 560  # lines of 44 small letters, and as much room for the values
_NAMES_PX = 220  # a variant's name, in lines of 30 letters
_CELL_PX = 70  # an interval such as [-11.0, 12.3], in small letters
_COSTS = (
    ("seconds", "training time (minutes)", 1 / 60, False),
    ("images_per_s", "training speed (images/s)", 1.0, True),
    ("peak_memory_mib", "peak memory (GiB)", 1 / 1024, False),
)


def variants_with_seeds(
    grouped: pd.DataFrame, runs: pd.DataFrame, metric: str, protocol: str = "", *, chance: float | None = None
) -> go.Figure:
    """One metric of each variant: the mean over seeds with its interval, each seed's value as a small open mark.

    Args:
        grouped: columns `variant`, `num_seeds`, `value`, `low`, `high` (fractions), `n`.
        runs: columns `variant`, `seed`, `value`: a row a run.
        metric: its name; protocol: in words, the same for all rows.
        chance: value of a guess, a fraction.

    Raises:
        ValueError: `grouped` is empty, or a column is missing.
    """
    need_columns(grouped, ("variant", "num_seeds", "value", "low", "high", "n"), "grouped")
    need_columns(runs, ("variant", "seed", "value"), "runs")
    names = grouped["variant"] + np.where(
        grouped["num_seeds"] > 1, ", " + grouped["num_seeds"].astype(str) + " seeds", ""
    )
    notes = f"{protocol}. Points: mean over the seeds said beside them; open marks: each seed"
    figure = interval_dots(grouped.assign(label=names), metric, notes, quantity=f"{metric} (%)", chance=chance)
    _with_long_names(figure, names)
    place = {name: rank for rank, name in enumerate(grouped["variant"], start=1)}
    several = set(grouped["variant"][grouped["num_seeds"] > 1])
    rows = runs[runs["variant"].isin(several)]
    figure.add_scatter(
        x=rows["value"],
        y=[place[name] + 0.18 for name in rows["variant"]],
        name="each seed",
        mode="markers",
        marker={"symbol": "circle-open", "size": 7, "color": GREY},
        customdata=[[escaped(seed)] for seed in rows["seed"]],
        hovertemplate="seed %{customdata[0]}: %{x:.1%}<extra></extra>",
        showlegend=False,
    )
    return figure


def paired_differences(pairs: pd.DataFrame, metric: str, protocol: str = "") -> go.Figure:
    """The difference of each pair with its interval, around 0: filled where Holm's p value is below 0.05, else hollow.

    Args:
        pairs: columns `first`, `second`, `difference`, `low`, `high` (fractions), `n`, `p_holm`.
        metric: its name; protocol: in words.

    Raises:
        ValueError: `pairs` has no pair with a difference, or a column is missing.
    """
    pairs = _comparable(pairs)
    rank = np.arange(1, len(pairs) + 1)
    sure = pairs["p_holm"].to_numpy(np.float64) < ALPHA
    values, lows, highs = (100 * pairs[name].to_numpy(np.float64) for name in ("difference", "low", "high"))
    figure = go.Figure()
    for name, rows, marker in (
        (f"differs (Holm p < {ALPHA})", sure, {"symbol": "circle", "size": 12, "color": OKABE_ITO[0]}),
        ("not told apart", ~sure, {"symbol": "diamond-open", "size": 11, "color": GREY, "line": {"width": 2}}),
    ):
        if rows.any():
            figure.add_scatter(
                **interval_markers(values[rows], lows[rows], highs[rows], [f"{value:+.1f}" for value in values[rows]]),
                y=rank[rows],
                name=name,
                marker=marker,
                customdata=[[f"{p:.3g}"] for p in pairs["p_holm"][rows]],
                hovertemplate="%{x:+.1f} points, Holm p = %{customdata[0]}",
            )
    labels = (pairs["first"] + " less " + pairs["second"]).tolist()
    notes = [
        protocol,
        f"n = {span(pairs['n'])} queries, {len(pairs)} pairs. Bars: 95 % intervals, each pair by itself.",
    ]
    name_rows(
        figure, labels, f"difference in {metric} (percentage points)", "", "Pairs, on the same queries", notes, 62
    )
    _with_long_names(figure, labels)
    figure.add_vline(0, line={"color": GREY, "width": 1.5, "dash": "dot"})
    return figure


def paired_matrix(pairs: pd.DataFrame, metric: str, protocol: str = "") -> go.Figure:
    """The differences of many pairs: row less column, each with its interval; bold and starred where Holm's p value is below 0.05.

    Variants stand in the order of their mean difference to the others, the best first, so that only one half is drawn.

    Args:
        pairs: as `paired_differences` takes them.
        metric: its name; protocol: in words.

    Raises:
        ValueError: `pairs` has no pair with a difference, or a column is missing.
    """
    pairs = _comparable(pairs)
    both = _both_ways(pairs)
    names = both.groupby("first", sort=False)["difference"].mean().sort_values(ascending=False, kind="stable").index
    rank = {name: place for place, name in enumerate(names, start=1)}
    shown = both[both["first"].map(rank) < both["second"].map(rank)]
    sure = shown["p_holm"] < ALPHA
    values, lows, highs = (100 * shown[name].to_numpy(np.float64) for name in ("difference", "low", "high"))
    texts = [
        (f"<b>{value:+.1f} *</b>" if is_sure else f"{value:+.1f}") + f"<br>[{low:.1f}, {high:.1f}]"
        for value, low, high, is_sure in zip(values, lows, highs, sure, strict=True)
    ]
    most = max(np.abs(values).max(), 1e-9)
    figure = go.Figure(
        go.Heatmap(
            x=shown["second"].map(rank),
            y=shown["first"].map(rank),
            z=values,
            text=texts,
            texttemplate="%{text}",
            textfont={"size": 10, "color": "#1f2328"},
            colorscale=[[0, "#f3c9a5"], [0.5, "#ffffff"], [1, "#9fcbea"]],
            zmin=-most,
            zmax=most,
            xgap=2,
            ygap=2,
            showscale=False,
            customdata=np.stack([shown["first"].map(escaped), shown["second"].map(escaped), shown["p_holm"]], axis=-1),
            hovertemplate="%{customdata[0]}<br>less %{customdata[1]}<br>%{z:+.1f} points, Holm p = %{customdata[2]:.3g}"
            "<extra></extra>",
        )
    )
    labels = [f"{place}  {name}" for name, place in rank.items()]
    notes = [
        protocol,
        f"n = {span(pairs['n'])} queries, {len(pairs)} pairs: the row's variant less the column's, with each pair's own 95 % interval",
        f"Bold with a star: told apart (Holm p < {ALPHA})",
    ]
    name_rows(
        figure, labels, f"less the variant of that number; {metric}, percentage points", "", "Pair by pair", notes, 34
    )
    places = list(rank.values())
    figure.update_xaxes(tickvals=places[1:], range=[1.4, len(places) + 0.6], showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure.update_layout(meta={"min_width": _NAMES_PX + _CELL_PX * (len(places) - 1)})


def told_apart(pairs: pd.DataFrame, variant: str) -> str:
    """Which others a variant is told apart from, by the p value that is corrected for the number of pairs, and by how much.

    Args:
        pairs: columns `first`, `second`, `difference` (first less second), `low`, `high` (shares) and `p_holm`; a pair without
            a query in common has no difference, and is counted apart.
        variant: a name in `first` or `second`; its pairs count.

    Returns:
        One line, the largest difference first, in percentage points; positive where `variant` is larger.
    """
    both = _both_ways(pairs)
    own = both[both["first"] == variant]
    if own.empty:
        return "nothing to hold it against"
    known = own.dropna(subset="difference")
    sure = known[known["p_holm"] < ALPHA].sort_values("difference", ascending=False, kind="stable")
    said = f"told apart from {len(sure)} of {len(known)} others (Holm p < {ALPHA})"
    if len(sure):
        points = (
            f"{row['second']} {100 * row['difference']:+.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
            for row in sure.to_dict("records")
        )
        said += f", percentage points: {'; '.join(points)}"
    unknown = len(own) - len(known)
    return said + (f". Without a query in common: {unknown}" if unknown else "")


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Each pair twice: as it is, and the second less the first."""
    turned = pairs.rename(columns={"first": "second", "second": "first", "low": "high", "high": "low"})
    turned[["difference", "low", "high"]] *= -1
    return pd.concat([pairs, turned], ignore_index=True)


def _comparable(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with queries in common; refuses a table without any."""
    need_columns(pairs, ("first", "second", "difference", "low", "high", "n", "p_holm"), "pairs")
    pairs = pairs.dropna(subset="difference")
    if pairs.empty:
        raise ValueError("Wanted at least one pair with queries in common, found none.")
    return pairs


def beside_published(ours: pd.DataFrame, published: pd.DataFrame, metric: str) -> go.Figure:
    """Our variants and, grey and hollow, what others published under the conditions said below the title.

    Args:
        ours: columns `variant`, `value`, `low`, `high`, `n`.
        published: columns `system`, `data`, `value`, as `published.published_like` gives them.
        metric: what both are.

    Raises:
        ValueError: a table is empty, or a column is missing.
    """
    need_columns(ours, ("variant", "value", "low", "high", "n"), "ours")
    need_columns(published, ("system", "data", "value"), "published")
    if published.empty or ours.empty:
        raise ValueError(f"Wanted one result of ours and one published, found {len(ours)} and {len(published)}.")
    rows = [(*row, False) for row in ours[["variant", "value", "low", "high", "n"]].itertuples(index=False, name=None)]
    rows += [
        (f"{row['system']}: {row['data']}", row["value"], np.nan, np.nan, np.nan, True)
        for row in published.to_dict("records")
    ]
    shown = pd.DataFrame(rows, columns=["label", "value", "low", "high", "n", "baseline"])
    notes = (
        "Hollow: published, on other pictures and under other conventions (the table says which), no ranking. n is ours"
    )
    figure = interval_dots(shown, f"{metric}, beside published results", notes, quantity=f"{metric} (%)")
    for trace, name in zip(figure.data, ("this comparison", "published"), strict=True):
        trace.name = name
    return _with_long_names(figure, shown["label"])


def pareto_front(cost_N: np.ndarray, value_N: np.ndarray) -> np.ndarray:
    """Which points no other one beats, bool [N]: none is as cheap and as good, and cheaper or better.

    Equal points are both on the front. A cost or value that is NaN is never on it.
    """
    cost_N, value_N = np.asarray(cost_N, np.float64), np.asarray(value_N, np.float64)
    no_worse = (cost_N[None] <= cost_N[:, None]) & (value_N[None] >= value_N[:, None])
    better = (cost_N[None] < cost_N[:, None]) | (value_N[None] > value_N[:, None])
    known = np.isfinite(cost_N) & np.isfinite(value_N)
    return known & ~(no_worse & better & known[None]).any(axis=1)


def cost_against_accuracy(table: pd.DataFrame, metric: str, subtitle: str = "") -> go.Figure:
    """Accuracy against training time, speed and peak memory, a panel each; the line joins what nothing else beats.

    Args:
        table: a row a variant: `variant`, `value`, `low`, `high` (fractions), `n`, and means over seeds of `seconds`,
            `images_per_s`, `peak_memory_mib`; a cost that is missing everywhere has no panel.
        metric: its name; subtitle: device and protocol in words.

    Raises:
        ValueError: no row, no known cost, or a column is missing.
    """
    need_columns(table, ("variant", "value", "low", "high", "n", *(name for name, *_ in _COSTS)), "table")
    panels = [panel for panel in _COSTS if table[panel[0]].notna().any()]
    if table.empty or not panels:
        raise ValueError("Wanted at least one variant with a known cost, found none.")
    figure = make_subplots(cols=len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    values, lows, highs = (table[name].to_numpy(np.float64) for name in ("value", "low", "high"))
    for column, (name, title, factor, more_is_better) in enumerate(panels, start=1):
        cost = factor * table[name].to_numpy(np.float64)
        front = np.flatnonzero(pareto_front(-cost if more_is_better else cost, values))
        front = front[np.argsort(cost[front])]
        figure.add_scatter(
            x=cost[front], y=values[front], name="not beaten", legendgroup="front", showlegend=column == 1, mode="lines",
            line={"color": GREY, "dash": "dot", "width": 2}, hoverinfo="skip", row=1, col=column,
        )  # fmt: skip
        for index, variant in enumerate(table["variant"]):
            figure.add_scatter(
                x=cost[[index]],
                y=values[[index]],
                name=wrapped(variant, 42),
                legendgroup=str(variant),
                showlegend=column == 1,
                mode="markers",
                marker={
                    "size": 12,
                    "symbol": SYMBOLS[index % len(SYMBOLS)],
                    "color": OKABE_ITO[index % len(OKABE_ITO)],
                },
                error_y={**interval_bars(values[[index]], lows[[index]], highs[[index]]), "width": 4},
                hovertemplate=f"%{{x:.3g}} {title}<br>%{{y:.1%}}",
                row=1,
                col=column,
            )
        width = float(np.nanmax(cost))
        figure.update_xaxes(title_text=title, range=[0, 1.15 * width or 1], col=column)
    notes = [subtitle, f"n = {span(table['n'])} queries. Bars: 95 % intervals. Dotted: variants that no other beats."]
    finish(figure, "What accuracy costs", notes, 430)
    figure.update_yaxes(title_text=f"{escaped(metric)} (%)", tickformat=".0%", col=1)
    figure.update_yaxes(rangemode="tozero", showgrid=True)
    return figure


def _with_long_names(figure: go.Figure, labels: Iterable[str]) -> go.Figure:
    """The figure with names of its rows in lines that hold a variant's parameters."""
    figure.update_yaxes(ticktext=[wrapped(label, 44) for label in labels], tickfont={"size": 11})
    return figure.update_layout(meta={"min_width": _LONG_NAMES_PX})
