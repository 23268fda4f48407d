"""Pictures and tables as HTML that reads the same in JupyterLab and in a report: nothing is loaded, all text escaped.

Every output carries its one style block. Colours come from JupyterLab's theme variables, with a fallback, so that a
dark theme needs nothing more.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image

_STYLE = """<style>
.wb {color: var(--jp-ui-font-color1, #1f2328); margin: .5rem 0 1.25rem; font-size: .9rem; line-height: 1.4;
  --wb-line: var(--jp-border-color2, #d0d7de); --wb-quiet: var(--jp-ui-font-color2, #59636e);
  --wb-ground: var(--jp-layout-color2, #f6f8fa)}
.wb figure {margin: 0; min-width: 0}
.wb figcaption, .wb caption {overflow-wrap: anywhere}
.wb-title {font-weight: 600; margin: 0 0 .5rem; font-size: 1rem}
.wb-grid {display: grid; gap: .75rem .6rem; align-items: start}
.wb-grid img {display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--wb-ground);
  border-radius: 4px}
.wb-grid figcaption {font-size: .75rem; color: var(--wb-quiet); margin-top: .25rem}
.wb-pairs {display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr))}
.wb-pairs > figure {border: 1px solid var(--wb-line); border-radius: 8px; padding: .75rem; break-inside: avoid}
.wb-pairs > figure > figcaption {margin-top: .6rem; color: var(--wb-quiet); font-size: .8rem}
.wb-three {display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem}
.wb-three img {display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--wb-ground);
  border-radius: 4px; border: 2px solid transparent; box-sizing: border-box}
.wb-three .wb-wrong img {border: 3px dashed #d55e00}
.wb-three .wb-right img {border: 3px solid #009e73}
.wb-three b {display: block; font-size: .75rem; margin-top: .3rem}
.wb-three span {display: block; font-size: .75rem; overflow-wrap: anywhere}
.wb-scroll {overflow: auto; max-height: 32rem; border: 1px solid var(--wb-line); border-radius: 8px}
.wb table.wb-table {border-collapse: separate; border-spacing: 0; width: 100%; margin: 0; font-size: .85rem;
  color: inherit; border: 0}
.wb-table th, .wb-table td {padding: .35rem .75rem !important; text-align: left !important; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--wb-line); font-weight: 400; background: none; max-width: 26rem;
  overflow-wrap: break-word; white-space: normal}
.wb-table thead th {position: sticky; top: 0; background: var(--wb-ground); font-weight: 600; vertical-align: bottom;
  z-index: 1}
.wb-table tr:last-child > * {border-bottom: 0}
.wb-table .wb-number {text-align: right !important; font-variant-numeric: tabular-nums; white-space: nowrap}
.wb-caption {margin: 0 0 .5rem; font-weight: 600; font-size: 1rem}
.wb-answer {border: 1px solid var(--wb-line); border-left: 5px solid #0072b2; border-radius: 8px; padding: 1rem 1.25rem;
  background: var(--wb-ground); break-inside: avoid}
.wb-answer .wb-question {margin: 0; color: var(--wb-quiet)}
.wb-answer .wb-big {margin: .25rem 0 .5rem; font-size: 1.45rem; line-height: 1.25; font-weight: 650}
.wb-answer .wb-protocol {margin: 0; font-size: .85rem; color: var(--wb-quiet); overflow-wrap: anywhere}
.wb-answer dl {display: grid; grid-template-columns: fit-content(45%) 1fr; gap: .2rem 1rem; margin: .75rem 0 0;
  padding-top: .75rem; border-top: 1px solid var(--wb-line)}
.wb-answer dt {font-weight: 400; color: var(--wb-quiet); margin: 0}
.wb-answer dd {margin: 0; font-variant-numeric: tabular-nums}
@media print {.wb-scroll {max-height: none; overflow: visible} .wb-grid figure, .wb-table tr {break-inside: avoid}}
</style>"""

Picture = Image.Image | np.ndarray
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
        images: PIL pictures, or uint8 arrays with axes height, width and 1, 3 or 4 channels (or none for grey).
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
        f"<figure>{_thumbnail(image, text, thumb_px)}<figcaption>{_text(text)}</figcaption></figure>"
        for image, text in zip(images, texts, strict=True)
    )
    width = f"max-width:{columns * (thumb_px + 24)}px;" if columns else ""
    grid = f'<div class="wb-grid" style="{width}grid-template-columns:repeat(auto-fill,minmax({thumb_px}px,1fr))">'
    return _block(_title(title), f"{grid}{cells}</div>" if cells else "<p>No pictures.</p>")


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
            f'<div class="wb-{kind}">{_thumbnail(image, f"{word}: {label}", thumb_px)}<b>{word}</b>'
            f"<span>{_text(label)}</span></div>"
            for kind, word, image, label in panels
        )
        caption = f"<figcaption>{_text(pair.caption)}</figcaption>" if pair.caption else ""
        figures.append(f'<figure><div class="wb-three">{body}</div>{caption}</figure>')
    body = f'<div class="wb-pairs">{"".join(figures)}</div>' if figures else "<p>No confused pairs.</p>"
    return _block(_title(title), body)


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
        f'<th scope="col"{side}>{_text(str(name).replace("_", " "))}</th>'
        for name, side in zip(frame.columns, align, strict=True)
    )
    styles = [formats.get(name, "" if number else str) for name, number in zip(frame.columns, numeric, strict=True)]
    rows = []
    for row in frame.itertuples(index=False, name=None):
        texts = [_text(_formatted(value, style)) for value, style in zip(row, styles, strict=True)]
        first = f'<th scope="row"{align[0]}>{texts[0]}</th>' if texts else ""
        rest = "".join(f"<td{side}>{text}</td>" for text, side in zip(texts[1:], align[1:], strict=True))
        rows.append(f"<tr>{first}{rest}</tr>")
    label = html.escape(caption)
    return _block(
        f'<p class="wb-caption">{_text(caption)}</p>',
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
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in (details or {}).items())
    return _block(
        f'<section class="wb-answer" aria-label="Answer"><p class="wb-question">{_text(question)}</p>'
        f'<p class="wb-big">{_text(answer)}</p><p class="wb-protocol">{_text(protocol)}</p>',
        f"{f'<dl>{rows}</dl>' if rows else ''}</section>",
    )


def _block(*parts: str) -> HTML:
    return HTML(f'{_STYLE}<div class="wb">{"".join(parts)}</div>')


def _title(title: str) -> str:
    return f'<p class="wb-title">{_text(title)}</p>' if title else ""


def _text(value: object) -> str:
    return html.escape(str(value))


def _formatted(value: Any, style: Format) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if callable(style):
        return style(value)
    if not style:
        style = ",d" if isinstance(value, int | np.integer) else ",.4g"
    return format(value, style)


def _thumbnail(image: Picture, text: str, thumb_px: int) -> str:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise ValueError(f"Wanted a uint8 picture, height x width x 1, 3 or 4, found {image.dtype} {image.shape}.")
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((thumb_px, thumb_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82, method=2)
    address = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/webp;base64,{address}" width="{small.width}" height="{small.height}" '
        f'alt="{html.escape(text)}">'
    )
