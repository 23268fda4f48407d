"""Figures of serving: images a second and latency by batch, each runtime beside the arithmetic limit and published speeds."""

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
)

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def for_reading(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The columns of `benchmarks.serving.measure_serving` that a reader compares, and the format of each."""
    milliseconds = ("mean_ms", "p50_ms", "p90_ms", "p99_ms")
    formats = dict.fromkeys(milliseconds, ".2f") | {"images_per_s": ",.0f", "speedup": ".2f", "share_of_limit": ".1%"}
    columns = ["runtime", "precision", "batch", "num_calls", *formats, "min_cosine", "note"]
    need_columns(table, columns, "table")
    return table[columns], formats | {"min_cosine": ".6f"}


def throughput_by_batch(table: pd.DataFrame, subtitle: str = "", *, published: pd.DataFrame | None = None) -> go.Figure:
    """Images a second against the batch, both axes logarithmic; the dotted line is what a matrix product's rate would allow.

    A runtime of lower precision than the product may stand above the line. A hollow marker gives other answers than the base.

    Args:
        table: of `benchmarks.serving.measure_serving`.
        subtitle: model and conditions in words.
        published: of `report.published_speed.published_speed`; drawn grey, with device and precision, whatever was measured.

    Raises:
        ValueError: a missing column, or no row with a number.
    """
    wanted = ("runtime", "transfers", "device", "batch", "num_calls", "images_per_s", "limit_images_per_s")
    need_columns(table, (*wanted, "speedup", "share_of_limit", "agrees", "note"), "table")
    shown = _available(table, "images_per_s")
    figure = go.Figure()
    for index, (name, part) in enumerate(shown.groupby(_names(shown), sort=False)):
        part = part.sort_values("batch")
        symbol = SYMBOLS[index % len(SYMBOLS)]
        figure.add_scatter(
            x=part["batch"],
            y=part["images_per_s"],
            name=escaped(name),
            mode="lines+markers",
            line={"dash": _DASHES[index % len(_DASHES)], "color": OKABE_ITO[index % len(OKABE_ITO)]},
            marker={"size": 9, "symbol": [f"{symbol}-open" if one is False else symbol for one in part["agrees"]]},
            customdata=part[["num_calls", "speedup", "share_of_limit"]].to_numpy(dtype=object),
            hovertemplate="batch %{x}: %{y:,.4~g} images/s, %{customdata[1]:.2f} times the base, "
            "%{customdata[2]:.0%} of the limit, n = %{customdata[0]} calls",
        )
    limit = shown.groupby("batch")["limit_images_per_s"].median()
    figure.add_scatter(
        x=limit.index,
        y=limit,
        name="limit: the matrix product's rate",
        mode="lines+markers" if len(limit) == 1 else "lines",
        line={"color": GREY, "dash": "dot", "width": 2},
        marker={"symbol": "line-ew-open", "size": 26, "color": GREY, "line": {"width": 2}},
        hovertemplate="%{y:,.4~g} images/s",
    )
    notes = [subtitle, *_notes(table, shown)]
    batches = set(shown["batch"])
    if published is not None and len(published):
        _draw_published(figure, published)
        batches |= set(published["batch"])
        notes.append("Grey marks: published for other devices or settings as named, not measured here")
    if any(one is False for one in shown["agrees"]):
        notes.append("Hollow markers: other answers than the base")
    finish(figure, "Images a second by batch", notes, 520)
    _batch_axis(figure, batches)
    figure.update_yaxes(title_text="images/s (log scale)", **_log_ticks(figure))
    return figure


def latency_by_batch(table: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """Latency of a call against the batch, both axes logarithmic: a marker at p50, a line up to p99 with a tick at p90.

    Runtimes stand side by side around their batch so that their lines can be told apart.

    Args:
        table: of `benchmarks.serving.measure_serving`.
        subtitle: model and conditions in words.

    Raises:
        ValueError: a missing column, or no row with a number.
    """
    wanted = ("runtime", "transfers", "device", "batch", "num_calls", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "note")
    need_columns(table, wanted, "table")
    shown = _available(table, "p50_ms")
    names = _names(shown)
    figure, num_names = go.Figure(), names.nunique()
    for index, (name, part) in enumerate(shown.groupby(names, sort=False)):
        part = part.sort_values("batch")
        colour = OKABE_ITO[index % len(OKABE_ITO)]
        beside = part["batch"] * 2 ** (0.6 * ((index + 0.5) / num_names - 0.5))
        p50, p90, p99 = (part[column].to_numpy(np.float64) for column in ("p50_ms", "p90_ms", "p99_ms"))
        figure.add_scatter(
            x=beside,
            y=p50,
            name=escaped(name),
            legendgroup=str(index),
            mode="markers",
            marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
            error_y=interval_bars(p50, p50, p99),
            customdata=np.column_stack([part["batch"], part["mean_ms"], p90, p99, part["num_calls"]]),
            hovertemplate="batch %{customdata[0]}: p50 %{y:,.4~g}, mean %{customdata[1]:,.4~g}, p90 %{customdata[2]:,.4~g}, "
            "p99 %{customdata[3]:,.4~g} ms, n = %{customdata[4]} calls",
        )
        figure.add_scatter(
            x=beside,
            y=p90,
            legendgroup=str(index),
            showlegend=False,
            mode="markers",
            marker={"size": 9, "symbol": "line-ew-open", "color": colour, "line": {"width": 2}},
            hoverinfo="skip",
        )
    notes = [subtitle, *_notes(table, shown), "Marker: p50; tick: p90; end of the line: p99, by nearest rank"]
    if int(shown["num_calls"].min()) < 100:
        notes.append("With fewer than 100 calls p99 is the slowest call")
    finish(figure, "Latency of a call by batch", notes, 520)
    _batch_axis(figure, set(shown["batch"]))
    figure.update_yaxes(title_text="latency (ms, log scale)", **_log_ticks(figure))
    return figure


def _draw_published(figure: go.Figure, published: pd.DataFrame) -> None:
    need_columns(published, ("trunk", "device", "batch", "precision", "images_per_s"), "published")
    for index, ((device, precision), part) in enumerate(published.groupby(["device", "precision"], sort=False)):
        figure.add_scatter(
            x=part["batch"],
            y=part["images_per_s"],
            name=escaped(f"published: {device}, {precision}"),
            mode="markers",
            marker={"size": 8, "symbol": f"{SYMBOLS[index % len(SYMBOLS)]}-open", "color": GREY},
            customdata=part[["trunk"]].to_numpy(dtype=object),
            hovertemplate="%{customdata[0]}, batch %{x}: %{y:,.4~g} images/s",
        )


def _available(table: pd.DataFrame, column: str) -> pd.DataFrame:
    shown = table[table[column].notna()]
    if shown.empty:
        raise ValueError("Wanted at least one runtime that was measured, found none; the column note says why.")
    return shown


def _names(shown: pd.DataFrame) -> pd.Series:
    transfers = shown["transfers"].fillna("")
    return shown["runtime"].where(transfers == "", shown["runtime"] + ", " + transfers + " transfers")


def _notes(table: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    notes = [", ".join(dict.fromkeys(map(str, shown["device"]))), f"n = {span(shown['num_calls'])} calls a point"]
    missing = table[table["note"].fillna("") != ""]
    return [*notes, *dict.fromkeys(f"{row.runtime}: {row.note}" for row in missing.itertuples())]


def _batch_axis(figure: go.Figure, batches: set[int]) -> None:
    ticks = sorted(map(int, batches))
    around = [np.log10(ticks[0]) - 0.18, np.log10(ticks[-1]) + 0.18]
    figure.update_xaxes(title_text="batch (images a call, log scale)", type="log", range=around, showgrid=True)
    figure.update_xaxes(tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])


def _log_ticks(figure: go.Figure) -> dict[str, object]:
    values = np.concatenate([np.asarray(trace.y, dtype=np.float64) for trace in figure.data])
    for trace in figure.data:
        if trace.error_y.array is not None:
            values = np.append(values, np.asarray(trace.y) + np.asarray(trace.error_y.array))
    low, high = np.log10(values.min()), np.log10(values.max())
    pad = 0.06 * (high - low) + 0.03
    steps = [1, 2, 3, 5, 7] if high - low < 1 else [1, 2, 5] if high - low < 2.2 else [1]
    ticks = [step * 10.0**power for power in range(-3, 8) for step in steps]
    return {
        "type": "log",
        "range": [low - pad, high + pad],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.6g}" for tick in ticks],
    }
