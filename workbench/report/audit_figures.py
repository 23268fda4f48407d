"""Figures of a data set: how many images its classes have, how unevenly, and how its measures spread."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.report.style import (
    GREY,
    MAX_NAMED_ROWS,
    OKABE_ITO,
    SYMBOLS,
    as_sentence,
    escaped,
    finish,
    mark_line,
    name_rows,
    need_columns,
)


def class_balance(counts: pd.DataFrame, subtitle: str = "", *, guideline: tuple[int, int] | None = None) -> go.Figure:
    """Images per class and split, largest class first: a row with its name each, or a ranked curve above 120 classes.

    Args:
        counts: columns `label`, `split`, `images` (int); a class that a split lacks counts 0 there.
        subtitle: the data set and its protocol in words.
        guideline: lowest and highest wanted number of images per class, drawn as a band.

    Raises:
        ValueError: `counts` is empty, a column is missing, or a class stands twice in one split.
    """
    need_columns(counts, ("label", "split", "images"), "counts")
    if counts.empty:
        raise ValueError("Wanted the images of at least one class, found none.")
    twice = counts[counts.duplicated(["label", "split"])]
    if len(twice):
        raise ValueError(f"Wanted each class once per split, found {twice['label'].iloc[0]!r} twice.")
    splits = list(dict.fromkeys(counts["split"]))
    wide = (
        counts.pivot_table(index="label", columns="split", values="images", aggfunc="sum").fillna(0).astype(int)[splits]
    )
    order = wide.assign(total=wide.sum(axis=1), name=wide.index).sort_values(["total", "name"], ascending=[False, True])
    wide = wide.loc[order.index]
    named = len(wide) <= MAX_NAMED_ROWS
    rank = np.arange(1, len(wide) + 1)
    figure = go.Figure()
    for index, split in enumerate(splits):
        images = wide[split].to_numpy()
        figure.add_scatter(
            x=images if named else rank,
            y=rank if named else images,
            name=escaped(split),
            mode="markers",
            marker={"size": 9 if named else 4, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            cliponaxis=False,
            customdata=[[escaped(label), int(count)] for label, count in zip(wide.index, images, strict=True)],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]} images",
        )
    total = int(wide.to_numpy().sum())
    highest = max(int(wide.to_numpy().max()), 1)
    smallest, largest = wide.sum(axis=1).min(), wide.sum(axis=1).max()
    notes = [subtitle, f"{len(wide):,} classes, n = {total:,} images, {smallest:,} to {largest:,} per class."]
    if guideline is not None:
        low, high = guideline
        notes.append(f"Shaded: the {low} to {high} images per class that the published models ask for.")
        band = {"fillcolor": OKABE_ITO[2], "opacity": 0.14, "line_width": 0, "layer": "below"}
        figure.add_vrect(low, high, **band) if named else figure.add_hrect(low, high, **band)
    if named:
        name_rows(figure, wide.index, "images per class (count)", "class", "Images per class", notes)
        figure.update_xaxes(range=[-0.03 * highest, 1.04 * highest])
    else:
        finish(figure, "Images per class", notes, 460)
        figure.update_xaxes(title_text="class, by rank (largest first)", range=[0, len(wide) + 1])
        figure.update_yaxes(title_text="images per class (count)", rangemode="tozero")
    return figure


def measure_histogram(
    values: Sequence[float] | np.ndarray,
    name: str,
    unit: str,
    threshold: float | None = None,
    n: int | None = None,
    *,
    subtitle: str = "",
) -> go.Figure:
    """How a measure spreads over the images, with its threshold and the share below it.

    Args:
        values: one number an image; NaN (not measured) is left out and counted. Where all are NaN the chart is empty and says so.
        name: what was measured; unit: its unit, on the axis.
        threshold: drawn as a line, with the share of values below it.
        n: number of images that were looked at; `None` is the number of values.
        subtitle: how it was measured.
    """
    every = np.asarray(values, dtype=np.float64)
    finite = every[np.isfinite(every)]
    looked_at = every.size if n is None else n
    x_title = f"{escaped(name)} ({escaped(unit)})" if unit else escaped(name)
    if finite.size == 0:
        figure = go.Figure(layout={"xaxis": {"title": x_title}, "yaxis": {"title": "images (count)"}})
        finish(figure, as_sentence(name), [subtitle, f"None of the {looked_at:,} images could be measured."], 420)
        return figure
    heights, edges = np.histogram(finite, bins=min(60, max(8, round(2 * finite.size ** (1 / 3)))))
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=heights,
            width=np.diff(edges) * 0.94,
            customdata=np.column_stack([edges[:-1], edges[1:]]),
            hovertemplate="%{y} images from %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra></extra>",
            showlegend=False,
        )
    )
    notes = [subtitle, f"n = {looked_at:,} images, median {np.median(finite):.4g} {unit}."]
    if looked_at > finite.size:
        notes.append(f"{looked_at - finite.size:,} could not be measured.")
    if threshold is not None:
        below = int((finite < threshold).sum())
        mark_line(
            figure,
            threshold,
            f"threshold {threshold:g} {escaped(unit)}".rstrip(),
            horizontal=False,
            left=threshold > (edges[0] + edges[-1]) / 2,
        )
        notes.append(f"{below:,} ({below / finite.size:.1%}) lie below the threshold of {threshold:g} {unit}.")
    finish(figure, as_sentence(name), notes, 420)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text="images (count)", range=[0, 1.15 * heights.max()])
    return figure


def lorenz_curves(counts: pd.DataFrame, subtitle: str = "", *, top: float = 0.1) -> go.Figure:
    """What share of a split's images its classes have, largest first: the diagonal is an even split, a long tail bends upwards.

    Args:
        counts: columns `label`, `split`, `images` (int, above 0).
        subtitle: the data set and its protocol in words.
        top: share of the classes, 0..1, at which a line is drawn; the key says what share of the images they have.

    Raises:
        ValueError: `counts` is empty, or a column is missing.
    """
    need_columns(counts, ("label", "split", "images"), "counts")
    if counts.empty:
        raise ValueError("Wanted the images of at least one class, found none.")
    figure = go.Figure()
    for index, (split, part) in enumerate(counts.groupby("split", sort=False)):
        images = np.sort(part["images"].to_numpy(dtype=np.float64))[::-1]
        classes = np.arange(len(images) + 1) / len(images)
        share = np.concatenate([[0], np.cumsum(images) / images.sum()])
        head = float(np.interp(top, classes, share))
        every = max(1, len(classes) // 12)
        figure.add_scatter(
            x=classes,
            y=share,
            name=f"{escaped(split)}: the largest {top:.0%} have {head:.0%}",
            mode="lines+markers",
            line={"dash": ("solid", "dash", "dot", "dashdot")[index % 4], "width": 2},
            marker={
                "symbol": SYMBOLS[index % len(SYMBOLS)],
                "size": [7 if n % every == 0 else 0 for n in range(len(classes))],
            },
            hovertemplate="%{x:.0%} of the classes have %{y:.1%} of the images<extra></extra>",
        )
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1.5, "dash": "dot"}, name="all alike"
    )
    mark_line(figure, top, f"largest {top:.0%} of the classes", horizontal=False)
    total, num = int(counts["images"].sum()), counts["label"].nunique()
    finish(figure, "How long the tail is", [subtitle, f"n = {total:,} images of {num:,} classes."], 440)
    figure.update_layout(margin={"b": 96})
    figure.update_xaxes(title_text="share of the classes, largest first", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title_text="share of the images", tickformat=".0%", range=[-0.02, 1.04])
    return figure


def measure_panels(
    measures: pd.DataFrame, panels: Mapping[str, tuple[str, Sequence[float]]], subtitle: str = ""
) -> go.Figure:
    """How several measures spread over the images: a small histogram each, with the thresholds that they were held against.

    Args:
        measures: a column for each key of `panels`; NaN (not measured) is left out and counted.
        panels: by column, what its axis says (name and unit), and thresholds, drawn as lines.
        subtitle: the data set and how it was measured.

    Raises:
        ValueError: no panel, or a column is missing.
    """
    need_columns(measures, tuple(panels), "measures")
    if not panels:
        raise ValueError("Wanted at least one measure to show, found none.")
    num_rows = -(-len(panels) // 3)
    figure = make_subplots(
        rows=num_rows, cols=min(3, len(panels)), vertical_spacing=0.32 / num_rows, horizontal_spacing=0.07
    )
    unmeasured = []
    for place, (column, (name, thresholds)) in enumerate(panels.items()):
        row, col = place // 3 + 1, place % 3 + 1
        values = measures[column].to_numpy(dtype=np.float64)
        finite = values[np.isfinite(values)]
        if len(finite) < len(values):
            unmeasured.append(f"{column.replace('_', ' ')} {len(values) - len(finite):,}")
        heights, edges = np.histogram(finite, bins=min(40, max(8, round(2 * max(finite.size, 1) ** (1 / 3)))))
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=heights,
            width=np.diff(edges) * 0.94,
            marker={"color": OKABE_ITO[0]},
            customdata=np.column_stack([edges[:-1], edges[1:]]),
            hovertemplate="%{y} images from %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra></extra>",
            showlegend=False,
            row=row,
            col=col,
        )
        for threshold in thresholds:
            figure.add_vline(threshold, line={"color": OKABE_ITO[1], "width": 1.5, "dash": "dash"}, row=row, col=col)
        figure.update_xaxes(title_text=escaped(name), row=row, col=col)
        figure.update_yaxes(title_text="images (count)" if col == 1 else "", row=row, col=col)
    notes = [subtitle, f"n = {len(measures):,} images", "Dashed: the thresholds of the verdicts below"]
    if unmeasured:
        notes.append(f"Images that could not be measured: {', '.join(unmeasured)}")
    finish(figure, "What the pictures measure", notes, 120 + 190 * num_rows)
    return figure
