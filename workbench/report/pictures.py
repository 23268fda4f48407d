"""Pictures and tables as HTML that reads the same in JupyterLab and in a report: nothing is loaded, all text escaped.

Every output carries its one style block. Colours come from JupyterLab's theme variables, with a fallback, so that a
dark theme needs nothing more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML

from workbench.report.markup import Picture, as_text, block, thumbnail, title_line

Format = str | Callable[[Any], str]


@dataclass(frozen=True)
class ConfusedPair:
    """One mistake: the query, a reference of the label it was taken for, and a reference of its right label."""

    query: Picture
    taken_for: Picture
    right: Picture
    query_name: str
    taken_for_label: str
    right_label: str
    caption: str = ""


def picture_sheet(
    images: Sequence[Picture],
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    thumb_px: int = 96,
    title: str = "",
) -> HTML:
    """A grid of thumbnails with captions; it becomes narrower with the window. No images: a line that says so.

    Args:
        images: PIL pictures, or uint8 arrays with axes height, width and 1, 3 or 4 channels (or none for grey). A text says
            why there is no picture, and stands in its place.
        captions: one text an image, shown below it and used as its alternative text; `None` numbers the pictures.
        columns: at most so many in a row; `None` fits as many as the width takes.
        thumb_px: longer side of a thumbnail; smaller pictures are not enlarged in the file.
        title: a line above the grid.

    Raises:
        ValueError: captions and images differ in number, or an array is not a picture.
    """
    texts = [f"picture {number}" for number in range(1, len(images) + 1)] if captions is None else list(captions)
    if len(texts) != len(images):
        raise ValueError(f"Wanted one caption an image, found {len(texts)} captions for {len(images)} images.")
    if columns is not None and columns < 1:
        raise ValueError(f"Wanted at least 1 column, found {columns}.")
    cells = "".join(
        f"<figure>{thumbnail(image, text, thumb_px)}<figcaption>{as_text(text)}</figcaption></figure>"
        for image, text in zip(images, texts, strict=True)
    )
    width = f"max-width:{columns * (thumb_px + 24)}px;" if columns else ""
    grid = f'<div class="wb-grid" style="{width}grid-template-columns:repeat(auto-fill,minmax({thumb_px}px,1fr))">'
    return block(title_line(title), f"{grid}{cells}</div>" if cells else "<p>No pictures.</p>")


def pair_sheet(pairs: Sequence[ConfusedPair], *, thumb_px: int = 160, title: str = "") -> HTML:
    """Confused pairs side by side: query, what it is taken for, right reference. No pairs: a line that says so.

    Right and wrong are told apart by sign, word and line (solid, dashed), colour comes only on top.
    """
    figures = []
    for pair in pairs:
        panels = (
            ("query", "Query", pair.query, pair.query_name),
            ("wrong", "✗ Taken for", pair.taken_for, pair.taken_for_label),
            ("right", "✓ Right answer", pair.right, pair.right_label),
        )
        body = "".join(
            f'<div class="wb-{kind}">{thumbnail(image, f"{word}: {label}", thumb_px)}<b>{word}</b>'
            f"<span>{as_text(label)}</span></div>"
            for kind, word, image, label in panels
        )
        caption = f"<figcaption>{as_text(pair.caption)}</figcaption>" if pair.caption else ""
        figures.append(f'<figure><div class="wb-three">{body}</div>{caption}</figure>')
    body = f'<div class="wb-pairs">{"".join(figures)}</div>' if figures else "<p>No confused pairs.</p>"
    return block(title_line(title), body)


def table(frame: pd.DataFrame, *, caption: str, formats: Mapping[str, Format] | None = None) -> HTML:
    """A table, its index left out: numbers to the right, the rest to the left, all escaped, missing values as "–".

    Long tables scroll under their header and are printed whole. An empty frame keeps its header.

    Args:
        frame: one row a row; column names are the header (underscores become blanks), so write units there
            ("latency (ms)").
        caption: says what is shown and of how many (n).
        formats: per column a format spec (".1%", ",d") or a function from value to text.

    Raises:
        ValueError: `formats` names a column that is not there.
    """
    formats = dict(formats or {})
    unknown = [name for name in formats if name not in frame.columns]
    if unknown:
        raise ValueError(f"formats names {unknown}, which the table has not; its columns are {list(frame.columns)}.")
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in frame.dtypes]
    align = [' class="wb-number"' if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th scope="col"{side}>{as_text(str(name).replace("_", " "))}</th>'
        for name, side in zip(frame.columns, align, strict=True)
    )
    styles = [formats.get(name, "" if number else str) for name, number in zip(frame.columns, numeric, strict=True)]
    rows = []
    for row in frame.itertuples(index=False, name=None):
        texts = [as_text(_formatted(value, style)) for value, style in zip(row, styles, strict=True)]
        first = f'<th scope="row"{align[0]}>{texts[0]}</th>' if texts else ""
        rest = "".join(f"<td{side}>{text}</td>" for text, side in zip(texts[1:], align[1:], strict=True))
        rows.append(f"<tr>{first}{rest}</tr>")
    label = as_text(caption)
    return block(
        f'<p class="wb-caption">{as_text(caption)}</p>',
        f'<div class="wb-scroll" role="region" tabindex="0" aria-label="{label}"><table class="wb-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    )


def summary_box(question: str, answer: str, protocol: str, details: Mapping[str, str] | None = None) -> HTML:
    """The answer of a report in a box: the question, the headline number with its interval, what it was measured by.

    Args:
        question: what the notebook asks.
        answer: the headline with value, interval and n.
        protocol: the conventions behind the number, in one line.
        details: further pairs of name and value, such as baselines and chance.
    """
    rows = "".join(f"<dt>{as_text(name)}</dt><dd>{as_text(value)}</dd>" for name, value in (details or {}).items())
    return block(
        f'<section class="wb-answer" aria-label="Answer"><p class="wb-question">{as_text(question)}</p>'
        f'<p class="wb-big">{as_text(answer)}</p><p class="wb-protocol">{as_text(protocol)}</p>',
        f"{f'<dl>{rows}</dl>' if rows else ''}</section>",
    )


def _formatted(value: Any, style: Format) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if callable(style):
        return style(value)
    if not style:
        style = ",d" if isinstance(value, int | np.integer) else ",.4g"
    return format(value, style)
