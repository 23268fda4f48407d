"""Two pictures side by side that are said to be the same, or one that is said to be misnamed and what it resembles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from IPython.display import HTML

from workbench.data.catalog import Catalog
from workbench.data.images import load_or_reason
from workbench.report.markup import Picture, as_text, block, thumbnail, title_line


@dataclass(frozen=True)
class TwinPictures:
    """Two pictures and what is said of them: a line in bold above each, a line below it, and what both have to do with each other."""

    first: Picture
    second: Picture
    first_role: str
    second_role: str
    first_caption: str
    second_caption: str
    caption: str
    is_alarm: bool


def load_twins(
    catalog: Catalog, pairs: pd.DataFrame, describe: Callable[[Any], str], *, target_px: int = 192
) -> list[TwinPictures]:
    """Returns the pictures of each pair with their splits as roles and their labels below. Across splits or with two labels is an alarm.

    Args:
        catalog: whose rows the pairs name.
        pairs: columns row, other_row, label, other_label, split, other_split, same_label, across_splits.
        describe: what is written below a pair, from its row (a named tuple).
        target_px: shorter side at which a picture may be decoded.
    """
    pictures = catalog.pictures()
    rows: list[Any] = list(pairs.itertuples())
    return [
        TwinPictures(
            load_or_reason(pictures[pair.row], target_px),
            load_or_reason(pictures[pair.other_row], target_px),
            pair.split,
            pair.other_split,
            pair.label,
            pair.other_label,
            describe(pair),
            pair.across_splits or not pair.same_label,
        )
        for pair in rows
    ]


def twin_sheet(pairs: Sequence[TwinPictures], *, thumb_px: int = 160, title: str = "", none: str = "No pairs.") -> HTML:
    """Pairs of pictures side by side, in the order given. No pairs: the line `none`.

    An alarm has a dashed frame and a sign in its caption, the others a solid one; colour comes only on top.

    Args:
        pairs: what is shown.
        thumb_px: longer side of a thumbnail; smaller pictures are not enlarged in the file.
        title: a line above the sheet.
        none: what is written in place of an empty sheet.
    """
    body = "".join(_figure(pair, thumb_px) for pair in pairs)
    sheet = f'<div class="wb-pairs">{body}</div>' if body else f"<p>{as_text(none)}</p>"
    return block(title_line(title), sheet)


def _figure(pair: TwinPictures, thumb_px: int) -> str:
    kind, sign = ("wrong", "⚠ ") if pair.is_alarm else ("right", "")
    panels = (
        (pair.first, pair.first_role, pair.first_caption),
        (pair.second, pair.second_role, pair.second_caption),
    )
    body = "".join(
        f'<div class="wb-{kind}">{thumbnail(picture, f"{role}: {text}", thumb_px)}<b>{as_text(role)}</b>'
        f"<span>{as_text(text)}</span></div>"
        for picture, role, text in panels
    )
    return (
        f'<figure><div class="wb-three" style="grid-template-columns:repeat(2,1fr)">{body}</div>'
        f"<figcaption>{sign}{as_text(pair.caption)}</figcaption></figure>"
    )
