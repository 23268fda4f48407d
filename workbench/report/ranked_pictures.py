"""Ranked lists as pictures: a query at the left, what it found beside it, each answer marked as the metric counted it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from IPython.display import HTML

from workbench.report.markup import Picture, as_text, block, thumbnail, title_line

Mark = Literal["right", "wrong", "junk"]
_SIGNS = {"right": "✓ right", "wrong": "✗ wrong", "junk": "○ junk"}
_LEGEND = (
    "✓ right: the same individual (solid line). ✗ wrong: another one, or a distractor (dashed). ○ junk: taken out of this "
    "query's ranking, neither right nor wrong (dotted, pale). Below the place: who it is, from which camera, how near."
)


@dataclass(frozen=True)
class RankedAnswer:
    """One row of a ranked list.

    Attributes:
        picture: what was found.
        mark: as the metric counted it.
        place: from 1; NaN where it was not counted.
        caption: who it is, from which camera, how near.
    """

    picture: Picture
    mark: Mark
    place: float
    caption: str


@dataclass(frozen=True)
class RankedPictures:
    """A query and its answers, nearest first."""

    query: Picture
    caption: str
    answers: Sequence[RankedAnswer]


def ranked_sheet(lists: Sequence[RankedPictures], *, thumb_px: int = 128, title: str = "") -> HTML:
    """Ranked lists below each other. No lists: a line that says so.

    Right, wrong and junk are told apart by sign, word and line (solid, dashed, dotted), colour comes only on top.

    Args:
        lists: one a query.
        thumb_px: longer side of a thumbnail; smaller pictures are not enlarged in the file.
        title: a line above the sheet.

    Raises:
        ValueError: a mark that there is not.
    """
    if not lists:
        return block(title_line(title), "<p>No ranked lists.</p>")
    # One shape for all frames of the sheet, that of its median picture, so that the rows are even.
    ratios = [_ratio(picture) for one in lists for picture in (one.query, *(answer.picture for answer in one.answers))]
    ratio = float(np.clip(np.median(ratios), 0.4, 2.0))
    # Ten upright pictures fit in a line of a report; wide ones would be too small to be told apart.
    shape = f"--wb-ratio:{ratio:.3f};--wb-cell:{4.3 if ratio < 0.8 else 5.6}rem"
    figures = "".join(_figure(one, thumb_px) for one in lists)
    legend = f"<p class='wb-legend'>{as_text(_LEGEND)}</p>"
    return block(title_line(title), legend, f'<div style="{shape}">{figures}</div>')


def _figure(one: RankedPictures, thumb_px: int) -> str:
    answers = "".join(_answer(answer, thumb_px) for answer in one.answers)
    query = f"<div>{thumbnail(one.query, f'Query: {one.caption}', thumb_px)}<b>Query</b></div>"
    return (
        f'<figure class="wb-ranked"><figcaption>{as_text(one.caption)}</figcaption>'
        f'<div>{query}<div class="wb-answers">{answers or "No answers."}</div></div></figure>'
    )


def _answer(answer: RankedAnswer, thumb_px: int) -> str:
    if answer.mark not in _SIGNS:
        raise ValueError(f"A mark is one of {', '.join(_SIGNS)}; found {answer.mark!r}.")
    word, place = _SIGNS[answer.mark], "no place" if np.isnan(answer.place) else f"place {answer.place:g}"
    picture = thumbnail(answer.picture, f"{word}, {place}: {answer.caption}", thumb_px)
    lines = f"<b>{word}</b><span>{place}</span><span>{as_text(answer.caption)}</span>"
    return f'<div class="wb-{answer.mark}">{picture}{lines}</div>'


def _ratio(picture: Picture) -> float:
    """Width over height; 1 where a reason stands in the picture's place."""
    if isinstance(picture, str):
        return 1.0
    if isinstance(picture, np.ndarray):
        return float(picture.shape[1] / picture.shape[0])
    return picture.width / picture.height
