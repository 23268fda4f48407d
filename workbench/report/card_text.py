"""What a model card is made of: text from outside made harmless, tables, numbers that bring interval, n and protocol along."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_BLOCK_STARTS = re.compile(r"^(?=[-+=:#](?!\d))|(?<=^)(\d+)(?=[.)](?:\s|$))")
_ADDRESSES = re.compile(r"(?i)\b(https?|ftp|www|mailto)(?=[:.])")
_NUMBER = re.compile(r"[-+<>=≤≥\[ ]*\d|$")
NOT_STATED = "not stated"


@dataclass
class Protocols:
    """The protocol lines that a card's numbers refer to as P1, P2, ..., in the order of their first use."""

    lines: dict[str, str] = field(default_factory=dict)

    def cite(self, line: str) -> str:
        """The short name of a protocol line.

        Raises:
            ValueError: an empty line: a number without its protocol is no result.
        """
        if not line.strip():
            raise ValueError("A number of the card has no protocol line; log it with the protocol it was measured by.")
        return self.lines.setdefault(line, f"P{len(self.lines) + 1}")


def plain(text: object) -> str:
    """Text from outside in one line in which neither Markdown nor HTML finds a mark."""
    line = _MARKS.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))
    line = _BLOCK_STARTS.sub(lambda found: f"{found[1] or ''}\\", line, count=1)
    return _ADDRESSES.sub(r"\1&#8203;", line)  # a renderer that makes links of bare addresses makes none of these


def paragraphs(text: str) -> str:
    """Prose from outside as paragraphs of plain text; `NOT_STATED` where there is none."""
    found = [plain(part) for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "\n\n".join(found) or NOT_STATED


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already; columns in which every cell starts as a number stand right."""
    rows = list(rows)
    columns = list(zip(*(row for row in rows if len(row) == len(header)), strict=True)) or [()] * len(header)
    rules = ["---:" if column and all(map(_NUMBER.match, column)) else "---" for column in columns]
    lines = [header, rules, *rows]
    wrong = [line for line in lines if len(line) != len(header)]
    if wrong:
        raise ValueError(f"Every row of a table has {len(header)} cells, found {wrong[0]}.")
    return "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |" for line in lines)


def facts(rows: Mapping[str, object]) -> str:
    """A table of two columns, what and found; the values are text from outside."""
    lines = [
        "| what | found |\n| --- | --- |",
        *(f"| {plain(name)} | {plain(value)} |" for name, value in rows.items()),
    ]
    return "\n".join(lines)


def share_cells(metric: Mapping[str, Any], protocols: Protocols) -> list[str]:
    """Value and 95 % interval of a share in percent, n and protocol: four cells.

    Raises:
        ValueError: the metric lacks a field, n is below 1, or its protocol is empty.
    """
    missing = [name for name in ("value", "low", "high", "n", "protocol") if name not in metric]
    if missing:
        raise ValueError(f"A number of the card lacks {', '.join(missing)}: found {dict(metric)}.")
    if not isinstance(metric["n"], int) or metric["n"] < 1:
        raise ValueError(f"A number of the card rests on n of at least 1, found n = {metric['n']!r}.")
    value, low, high = metric["value"], metric["low"], metric["high"]
    interval = "not defined" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
    if metric.get("doubt"):
        interval += f" (not to be relied on: {metric['doubt']})"
    found = "not defined" if value is None else f"{100 * value:.1f} %"
    return [
        found,
        interval.replace("[", "\\[").replace("]", "\\]"),
        f"{metric['n']:,}",
        protocols.cite(metric["protocol"]),
    ]


def not_measured(command: str) -> str:
    """What a section without a measurement says: so, and the command that measures it."""
    return f"Not measured. This measures it:\n\n    {command}"
