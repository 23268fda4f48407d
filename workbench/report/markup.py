"""What every picture sheet and table of a report is made of: the one style block, escaped text, thumbnails."""

import base64
import html
import io

import numpy as np
from IPython.display import HTML
from PIL import Image

# A picture to be shown, or in words why there is none.
Picture = Image.Image | np.ndarray | str

STYLE = """<style>
.wb {color: var(--jp-ui-font-color1, #1f2328); margin: .5rem 0 1.25rem; font-size: .9rem; line-height: 1.4;
  --wb-line: var(--jp-border-color2, #d0d7de); --wb-quiet: var(--jp-ui-font-color2, #59636e);
  --wb-ground: var(--jp-layout-color2, #f6f8fa)}
.wb figure {margin: 0; min-width: 0}
.wb figcaption, .wb caption {overflow-wrap: anywhere}
.wb-title {font-weight: 600; margin: 0 0 .5rem; font-size: 1rem}
.wb-grid {display: grid; gap: .75rem .6rem; align-items: start}
.wb-grid img {display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--wb-ground);
  border-radius: 4px}
.wb-missing {aspect-ratio: 1; overflow: auto; box-sizing: border-box; padding: .4rem; border: 1px dashed var(--wb-quiet);
  border-radius: 4px; font-size: .7rem; color: var(--wb-quiet); overflow-wrap: anywhere}
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
.wb-ranked {border: 1px solid var(--wb-line); border-radius: 8px; padding: .75rem; margin: 0 0 .75rem !important;
  break-inside: avoid}
.wb-ranked > figcaption {margin-bottom: .6rem; font-weight: 600; font-size: .85rem}
.wb-ranked > div {display: grid; grid-template-columns: 6.5rem 1fr; gap: .6rem .8rem}
.wb-answers {display: grid; gap: .6rem .45rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(var(--wb-cell, 5.6rem), 1fr));
  border-left: 1px solid var(--wb-line); padding-left: .8rem}
.wb-ranked img {display: block; width: 100%; height: auto; aspect-ratio: var(--wb-ratio, 1); object-fit: contain;
  background: var(--wb-ground); border-radius: 4px; border: 3px solid #0072b2; box-sizing: border-box}
.wb-ranked .wb-right img {border: 3px solid #009e73}
.wb-ranked .wb-wrong img {border: 3px dashed #d55e00}
.wb-ranked .wb-junk img {border: 3px dotted var(--wb-quiet); opacity: .55}
.wb-ranked b {display: block; font-size: .75rem; margin-top: .3rem}
.wb-ranked span {display: block; font-size: .7rem; color: var(--wb-quiet); overflow-wrap: anywhere}
.wb-legend {margin: 0 0 .6rem; font-size: .8rem; color: var(--wb-quiet)}
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


def block(*parts: str) -> HTML:
    """An output of the notebook: the style and the parts, which are markup already."""
    return HTML(f'{STYLE}<div class="wb">{"".join(parts)}</div>')


def title_line(title: str) -> str:
    """A line above a sheet; nothing for an empty title."""
    return f'<p class="wb-title">{as_text(title)}</p>' if title else ""


def as_text(value: object) -> str:
    """The value as text in which a browser finds no tag, in an attribute too."""
    return html.escape(str(value))


def thumbnail(image: Picture, alternative: str, thumb_px: int) -> str:
    """The picture as an `img` with a WEBP data address, its longer side at most `thumb_px`, and an alternative text.

    Raises:
        ValueError: an array that is not a picture.
    """
    if isinstance(image, str):
        return f'<div class="wb-missing">{as_text(f"No picture: {image}")}</div>'
    address, (width, height) = webp_address(image, thumb_px)
    return f'<img src="{address}" width="{width}" height="{height}" alt="{as_text(alternative)}">'


def webp_address(image: Image.Image | np.ndarray, longest_px: int) -> tuple[str, tuple[int, int]]:
    """The picture as a WEBP data address, its longer side at most `longest_px`, and its width and height, px.

    Raises:
        ValueError: an array that is not a picture.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise ValueError(f"Wanted a uint8 picture, height x width x 1, 3 or 4, found {image.dtype} {image.shape}.")
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=82, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", small.size
