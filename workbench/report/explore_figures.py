"""Figures of an exploration: what each threshold accepts and refuses, and the embeddings as a map."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.report.style import GREY, OKABE_ITO, escaped, finish, need_columns

CURVES = {
    "right": ("accepted and right", OKABE_ITO[0], "solid"),
    "wrong": ("accepted and wrong", OKABE_ITO[1], "dash"),
    "refused": ("refused", GREY, "dot"),
    "false_accepts": ("unknown, but accepted", OKABE_ITO[3], "dashdot"),
}
KINDS = {
    "reference": ("references", GREY, "circle", 6),
    "right": ("queries, right", OKABE_ITO[0], "triangle-up", 8),
    "wrong": ("queries, wrong", OKABE_ITO[1], "x", 8),
    "absent": ("queries without a reference", OKABE_ITO[3], "diamond", 8),
}
_SVG_POINTS = 2000  # beyond, WebGL draws faster; below, every browser draws, and points are elements of the page


def counts_against_threshold(curve: pd.DataFrame, threshold: float, subtitle: str = "") -> go.Figure:
    """Queries accepted and right, accepted and wrong, refused, and accepted although unknown, against the threshold.

    Args:
        curve: columns `threshold` (ascending), `right`, `wrong`, `refused`, `false_accepts` (queries).
        threshold: the one in use; a line is drawn there.
        subtitle: whose queries, in words.

    Raises:
        ValueError: no row, or a column is missing.
    """
    need_columns(curve, ("threshold", *CURVES), "curve")
    if curve.empty:
        raise ValueError("Wanted at least one threshold, found none.")
    figure = go.Figure()
    for column, (name, colour, dash) in CURVES.items():
        figure.add_scatter(
            x=curve["threshold"],
            y=curve[column],
            mode="lines",
            name=name,
            line={"color": colour, "dash": dash, "width": 2.5, "shape": "hv"},
            hovertemplate=f"above %{{x:.4f}}: %{{y:,}} {name}",
        )
    first = curve.iloc[0]
    num_known = int(first["right"] + first["wrong"] + first["refused"])
    notes = [
        subtitle,
        f"n = {num_known:,} queries whose label has a reference. Counts; shares with intervals stand apart",
    ]
    finish(figure, "What a threshold accepts, refuses and gets wrong", notes, 420)
    figure.update_xaxes(title_text="threshold (cosine similarity of the nearest reference)")
    figure.update_yaxes(title_text="queries", rangemode="tozero")
    figure.add_shape(
        type="line", x0=threshold, x1=threshold, y0=0, y1=1, yref="paper", line={"color": "#1f2328", "width": 1.5}
    )
    figure.add_annotation(
        x=threshold, y=1, yref="paper", yanchor="bottom", text=f"{threshold:.4f}", showarrow=False, font={"size": 11}
    )
    return figure


def embedding_map(points: pd.DataFrame, words: str, subtitle: str = "") -> go.Figure:
    """References and queries where a projection puts them; wrong answers have a sign of their own.

    Args:
        points: a row a point: `x`, `y`, `kind` (reference, right, wrong, absent), `label`, `domain`, `answer` (of queries; "" else).
            A row's place in the table is its customdata.
        words: what the axes are and what they are not.
        subtitle: whose embeddings, in words.

    Raises:
        ValueError: no point, a kind that there is not, or a column is missing.
    """
    need_columns(points, ("x", "y", "kind", "label", "domain", "answer"), "points")
    strange = sorted(set(points["kind"]) - set(KINDS))
    if points.empty or strange:
        raise ValueError(f"Wanted points of the kinds {', '.join(KINDS)}; found {strange or 'none'}.")
    draw = go.Scatter if len(points) <= _SVG_POINTS else go.Scattergl
    figure = go.Figure()
    for kind, (name, colour, symbol, size) in KINDS.items():
        rows = np.flatnonzero(points["kind"] == kind)
        figure.add_trace(
            draw(
                **point_arrays(points, rows),
                mode="markers",
                name=name,
                meta=kind,
                visible=bool((points["kind"] == kind).any()),
                marker={"color": colour, "symbol": symbol, "size": size, "opacity": 0.75, "line": {"width": 0}},
                hovertemplate="%{text}<extra></extra>",
            )
        )
    counts = points["kind"].value_counts()
    found = [f"{counts[kind]:,} {KINDS[kind][0]}" for kind in KINDS if kind in counts]
    finish(figure, "The embeddings as a map", [subtitle, f"n = {', '.join(found)}", words], 560)
    figure.update_xaxes(title_text="first axis of the map (no unit)", zeroline=False)
    figure.update_yaxes(title_text="second axis (no unit)", zeroline=False, showgrid=False)
    return figure


def point_arrays(points: pd.DataFrame, rows: np.ndarray) -> dict[str, object]:
    """What a trace of the map shows of these rows of `points`: x, y, text and, as customdata, the rows themselves."""
    shown = points.iloc[rows]
    said = [
        escaped(f"{label} ({domain})" + (f", taken for {answer}" if kind == "wrong" else ""))
        for label, domain, answer, kind in zip(
            shown["label"], shown["domain"], shown["answer"], shown["kind"], strict=True
        )
    ]
    return {"x": shown["x"].to_numpy(), "y": shown["y"].to_numpy(), "text": said, "customdata": rows}
