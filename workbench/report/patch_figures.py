"""Which parts of a query and a reference match: pairs as lines, and for every part how well it is found, as heat."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from workbench.report.markup import webp_address
from workbench.report.style import OKABE_ITO, finish

_GAP = 0.06  # of the wider picture, between the pictures


def patch_matches(
    match: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    pictures: tuple[np.ndarray, np.ndarray],
    words: str,
    subtitle: str = "",
    max_pairs: int = 12,
) -> go.Figure:
    """Two pictures side by side: above, lines between parts that are each other's nearest; below, how well each part is found.

    Args:
        match: heat of the query [h, w] and of the reference [y, x] (largest cosine of each cell), pairs [M, 4] (row and column in
            the query, row and column in the reference), the most similar first, and their similarities [M].
        pictures: query and reference as the trunk saw them, uint8 [H, W, 3], cut into cells of equal size.
        words: what the cells are.
        subtitle: which pictures, in words.
        max_pairs: lines at most; the subtitle counts the rest.

    Raises:
        ValueError: a heat without a cell, or fewer than one line wanted.
    """
    heat_hw, heat_yx, pair_M4, similarity_M = match
    if 0 in heat_hw.shape or 0 in heat_yx.shape or max_pairs < 1:
        raise ValueError(f"Wanted cells and at least one line; found {heat_hw.shape}, {heat_yx.shape}, {max_pairs}.")
    (height, width), (other_height, other_width) = (picture.shape[:2] for picture in pictures)
    gap = _GAP * max(width, other_width)
    left, below = width + gap, max(height, other_height) + gap
    figure = go.Figure()
    for picture, x, heat in ((pictures[0], 0.0, heat_hw), (pictures[1], left, heat_yx)):
        _add_picture(figure, picture, x, 0.0)
        _add_picture(figure, picture, x, below)
        _add_heat(figure, heat, picture.shape, x, below)
    cells = (height / heat_hw.shape[0], width / heat_hw.shape[1])
    other_cells = (other_height / heat_yx.shape[0], other_width / heat_yx.shape[1])
    for number, ((row, column, other_row, other_column), similarity) in enumerate(
        zip(pair_M4[:max_pairs].tolist(), similarity_M[:max_pairs].tolist(), strict=True), start=1
    ):
        colour = OKABE_ITO[(number - 1) % len(OKABE_ITO)]
        figure.add_scatter(
            x=[(column + 0.5) * cells[1], left + (other_column + 0.5) * other_cells[1]],
            y=[(row + 0.5) * cells[0], (other_row + 0.5) * other_cells[0]],
            mode="lines+markers+text",
            text=[str(number)] * 2,
            textposition="top center",
            textfont={"size": 12, "color": colour, "shadow": "auto"},
            line={"color": colour, "width": 1.5, "dash": ("solid", "dash", "dot")[(number - 1) // 2 % 3]},
            marker={"size": 7, "color": colour, "line": {"color": "#ffffff", "width": 1}},
            showlegend=False,
            hovertemplate=f"pair {number}: cosine {similarity:.3f}<extra></extra>",
        )
    rest = len(pair_M4) - max_pairs
    cosines = _say_cosines(similarity_M)
    notes = [
        subtitle,
        f"{words}. n = {len(pair_M4):,} pairs of mutual nearest neighbours{cosines}"
        + (f", the {max_pairs} most similar drawn" if rest > 0 else ""),
        "Heat: the largest cosine of a part to any part of the other picture",
    ]
    finish(figure, "Which parts of query (left) and reference (right) match", notes, 720)
    hidden = {"visible": False, "fixedrange": True}
    figure.update_xaxes(range=[-gap / 2, left + other_width + gap / 2], constrain="domain", **hidden)
    figure.update_yaxes(range=[2 * below - gap / 2, -gap], scaleanchor="x", constrain="domain", **hidden)
    figure.update_layout(margin={"b": 60})
    low, high = (float(pick([pick(heat_hw), pick(heat_yx)])) for pick in (np.min, np.max))
    figure.update_layout(
        coloraxis={
            "colorscale": "Cividis",
            "cmin": low,
            "cmax": max(high, low + 1e-6),
            "colorbar": {
                "title": {"text": "largest cosine", "side": "top"},
                **{"orientation": "h", "len": 0.4, "x": 0.5, "y": -0.02, "yanchor": "top", "thickness": 12},
            },
        }
    )
    return figure


def _add_picture(figure: go.Figure, picture: np.ndarray, x: float, y: float) -> None:
    height, width = picture.shape[:2]
    figure.add_layout_image(
        source=webp_address(picture, 320)[0],
        **{"xref": "x", "yref": "y", "x": x, "y": y, "sizex": width, "sizey": height, "sizing": "stretch"},
        layer="below",
    )


def _add_heat(figure: go.Figure, heat: np.ndarray, shape: Sequence[int], x: float, y: float) -> None:
    rows, columns = heat.shape
    figure.add_heatmap(
        z=heat,
        x=x + (np.arange(columns) + 0.5) * shape[1] / columns,
        y=y + (np.arange(rows) + 0.5) * shape[0] / rows,
        coloraxis="coloraxis",
        opacity=0.6,
        hovertemplate="largest cosine %{z:.3f}<extra></extra>",
    )


def _say_cosines(similarity_M: np.ndarray) -> str:
    if not len(similarity_M):
        return ""
    return f", cosine {float(similarity_M.min()):.2f} to {float(similarity_M.max()):.2f}"
