"""Figures of a gallery: which index pays, how many references are enough, what an added product broke."""

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
    name_rows,
    need_columns,
    shortened,
    span,
    wrapped,
)

_DASHES = ("solid", "dash", "dot", "dashdot")
_RATIOS = tuple(step * 10.0**power for power in range(-4, 3) for step in (1, 2, 5))
_KINDS = {"ivf": "IVF", "hnsw": "HNSW", "ivf_pq": "IVF-PQ", "exact": "exact"}
_METHODS = {"medoids": "medoids", "kmeans": "k-means centres", "k_centre": "k-centre", "random": "by chance"}


def index_trade_off(table: pd.DataFrame, subtitle: str = "", recall: str = "recall@1") -> go.Figure:
    """Recall against time of a query as a multiple of the exact search's, a line a kind of index; up and left is better.

    Args:
        table: `setting`, `kind`, `time_ratio`, `memory_mib`, and the columns `recall`, `recall_low`, `recall_high` under the name
            that `recall` gives; rows without a time (a kind that could not be built) are told in the subtitle.
        subtitle: the protocol in words.
        recall: "recall@1" or "recall@10".

    Raises:
        ValueError: no row with a time, or a column is missing.
    """
    columns = (recall, f"{recall}_low", f"{recall}_high")
    need_columns(table, ("setting", "kind", "time_ratio", "memory_mib", *columns), "table")
    built = table[table["time_ratio"].notna()]
    if built.empty:
        raise ValueError("Wanted at least one setting with a time, found none.")
    figure = go.Figure()
    for place, kind in enumerate(dict.fromkeys(built["kind"])):
        rows = built[built["kind"] == kind].sort_values("time_ratio")
        value, low, high = (rows[column].to_numpy(np.float64) for column in columns)
        is_exact = kind == "exact"
        colour = GREY if is_exact else OKABE_ITO[(place - 1) % len(OKABE_ITO)]
        figure.add_scatter(
            x=rows["time_ratio"],
            y=value,
            name=escaped(_KINDS.get(str(kind), kind)),
            mode="markers" if is_exact else "lines+markers",
            line={"color": colour, "width": 2, "dash": _DASHES[place % len(_DASHES)]},
            marker={"size": 13 if is_exact else 9, "symbol": "star" if is_exact else SYMBOLS[place % len(SYMBOLS)]},
            error_y=interval_bars(value, low, high),
            customdata=[
                f"{wrapped(setting, 60)}<br>[{lo:.1%}, {hi:.1%}], {mib:,.1f} MiB"
                for setting, lo, hi, mib in zip(rows["setting"], low, high, rows["memory_mib"], strict=True)
            ],
            hovertemplate="%{customdata}<br>" + recall + " %{y:.1%}, %{x:.2f} times the time<extra></extra>",
        )
    mark_line(figure, 1.0, "", horizontal=False)
    left_out = [
        f"{row.setting} is left out: {getattr(row, 'note', '')}"
        for row in table[table["time_ratio"].isna()].itertuples()
    ]
    notes = [subtitle, "Bars: 95 % intervals. Points of a line: more effort to the right", *left_out]
    finish(figure, "What an index gains in time and loses in answers", notes, 470)
    figure.update_xaxes(title_text="Time of a query, multiple of the exact search's (log)", type="log", showgrid=True)
    figure.update_xaxes(tickvals=_RATIOS, ticktext=[f"{ratio:g}" for ratio in _RATIOS])
    figure.update_yaxes(title_text=f"{recall}, share of the exact answers", tickformat=".0%")
    return figure


def condensation_curves(table: pd.DataFrame, subtitle: str = "") -> go.Figure:
    """Accuracy against references kept per label, a line a method, the random choice grey, all references as a line across.

    Args:
        table: `method`, `size` (missing for "all"), `num_references`, `accuracy`, `low`, `high`, `n`: see
            `condensation.accuracy_against_size`.
        subtitle: the protocol in words.

    Raises:
        ValueError: no row with a size, or a column is missing.
    """
    need_columns(table, ("method", "size", "num_references", "accuracy", "low", "high", "n"), "table")
    sized = table[table["size"].notna()]
    if sized.empty:
        raise ValueError("Wanted at least one number of references per label, found none.")
    figure = go.Figure()
    sizes = sorted({int(size) for size in sized["size"]})
    methods = list(dict.fromkeys(sized["method"]))
    for place, method in enumerate(methods):
        rows = sized[sized["method"] == method].sort_values("size")
        value, low, high = (rows[column].to_numpy(np.float64) for column in ("accuracy", "low", "high"))
        # Side by side by two percent of the position, so that the bars of one size do not cover each other.
        beside = 1.02 ** (place - (len(methods) - 1) / 2)
        figure.add_scatter(
            x=rows["size"].to_numpy(np.float64) * beside,
            y=value,
            name=escaped(_METHODS.get(str(method), method)),
            mode="lines+markers",
            line={
                "color": GREY if method == "random" else OKABE_ITO[place % len(OKABE_ITO)],
                "width": 2.25,
                "dash": _DASHES[place % len(_DASHES)],
            },
            marker={"size": 9, "symbol": SYMBOLS[place % len(SYMBOLS)]},
            error_y=interval_bars(value, low, high),
            customdata=[
                f"{size} per label, {count:,} in all: {v:.1%} [{lo:.1%}, {hi:.1%}]"
                for size, count, v, lo, hi in zip(rows["size"], rows["num_references"], value, low, high, strict=True)
            ],
            hovertemplate="%{customdata}",
        )
    whole = table[table["size"].isna()]
    columns = [whole["num_references"], *(whole[name].astype("float64") for name in ("accuracy", "low", "high"))]
    for count, accuracy, lower, upper in zip(*columns, strict=True):
        name = f"all {count:,} references: {accuracy:.1%} [{lower:.1%}, {upper:.1%}]"
        figure.add_scatter(
            x=[sizes[0] / 1.1, sizes[-1] * 1.1],
            y=[accuracy, accuracy],
            name=name,
            mode="lines",
            line={"color": "#1f2328", "width": 1.5, "dash": "longdash"},
            hovertemplate=f"{name}<extra></extra>",
        )
    notes = [subtitle, f"n = {span(table['n'])} queries. Bars: 95 % intervals over labels (and draws, by chance)"]
    finish(figure, "How many references are enough", notes, 480)
    figure.update_xaxes(
        title_text="References kept per label (log)", type="log", tickvals=sizes, ticktext=list(map(str, sizes))
    )
    figure.update_yaxes(title_text="Accuracy@1", tickformat=".0%")
    return figure


def what_broke(by_label: pd.DataFrame, subtitle: str = "", max_labels: int = 25) -> go.Figure:
    """Queries that became wrong (to the left) and right (to the right), a row a label, the largest loss at the top.

    Args:
        by_label: `label`, `num_queries`, `broke`, `mended`, `most_taken_by` (missing where nothing broke), in the order to
            show: see `gallery_change.GalleryChange.by_label`. Labels where nothing changed are only counted.
        subtitle: what was changed, and the difference with its interval.
        max_labels: rows at most; the subtitle counts the rest.

    Raises:
        ValueError: no label, or a column is missing.
    """
    need_columns(by_label, ("label", "num_queries", "broke", "mended", "most_taken_by"), "by_label")
    if by_label.empty or max_labels < 1:
        raise ValueError(f"Wanted at least one label and one row, found {len(by_label)} and {max_labels}.")
    changed = by_label[(by_label["broke"] > 0) | (by_label["mended"] > 0)]
    shown = changed.head(max_labels)
    rows = np.arange(1, len(shown) + 1)
    takers = ["" if pd.isna(taker) else f"to {escaped(shortened(taker))}" for taker in shown["most_taken_by"]]
    figure = go.Figure()
    for name, counts, sign, colour, shape, texts in (
        ("right, now wrong (most went to ...)", shown["broke"], -1, OKABE_ITO[1], "/", takers),
        ("wrong, now right", shown["mended"], 1, OKABE_ITO[0], "", [""] * len(shown)),
    ):
        figure.add_bar(
            x=sign * counts.to_numpy(np.int64),
            y=rows,
            orientation="h",
            name=name,
            marker={
                "color": colour,
                "pattern": {"shape": shape, "bgcolor": colour, "fgcolor": "#ffffff", "solidity": 0.15},
            },
            text=texts,
            textposition="outside",
            cliponaxis=False,
            customdata=[
                f"{escaped(label)}: {count:,} of {asked:,} queries"
                for label, count, asked in zip(shown["label"], counts, shown["num_queries"], strict=True)
            ],
            hovertemplate="%{customdata}",
        )
    rest = len(changed) - len(shown)
    notes = [
        subtitle,
        f"n = {int(by_label['num_queries'].sum()):,} queries of {len(by_label):,} labels, {len(changed):,} of them with a change"
        + (f"; {rest:,} with smaller losses are not shown" if rest else ""),
    ]
    name_rows(figure, shown["label"], "Queries", "Label", "What the change of the gallery broke", notes, row_px=24)
    most = int(max(shown["broke"].max(), shown["mended"].max())) if len(shown) else 1
    step = max(1, -(-most // 4))
    ticks = np.arange(-step * (-(-most // step)), most + step, step)
    figure.update_layout(barmode="overlay", bargap=0.25, height=figure.layout.height + 30)
    figure.update_layout(legend={"xref": "container", "yref": "container", "y": 0, "yanchor": "bottom"})
    figure.update_xaxes(
        tickvals=ticks,
        ticktext=[f"{abs(tick):,}" for tick in ticks],
        range=[-1.9 * most, 1.1 * most],
        zeroline=True,
        zerolinewidth=1.5,
    )
    return figure
