"""Figures of a data set: how many images its classes have, and how its measures spread."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.report.style import (
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
        values: one number an image; NaN (not measured) is left out and counted.
        name: what was measured; unit: its unit, on the axis.
        threshold: drawn as a line, with the share of values below it.
        n: number of images that were looked at; `None` is the number of values.
        subtitle: how it was measured.

    Raises:
        ValueError: no finite value.
    """
    every = np.asarray(values, dtype=np.float64)
    finite = every[np.isfinite(every)]
    if finite.size == 0:
        raise ValueError(f"Wanted at least one measured value of {name}, found none among {every.size}.")
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
    looked_at = every.size if n is None else n
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
    figure.update_xaxes(title_text=f"{escaped(name)} ({escaped(unit)})" if unit else escaped(name))
    figure.update_yaxes(title_text="images (count)", range=[0, 1.15 * heights.max()])
    return figure
