"""What a process printed, as a page can show it: the text that a terminal would show, and the end of a log."""

import re
from pathlib import Path

_NUM_LOG_LINES = 40
_LOG_BYTES = 64 * 1024
_WINDOW_TITLE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_FINE_COLOUR = re.compile(r"\x1b\[[0-9;]*[34]8;[25];[0-9;]*m")
_OTHER_ESCAPE = re.compile(r"\x1b[()][0-9A-Z]|\x1b(?!\[)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")


def plain_terminal(text: str) -> str:
    """What a terminal shows of `text`: overwritten lines in their last state, no bells, no window titles.

    The sixteen colours and bold stay as escape sequences, for a page has its own for light and dark; finer colours go, because
    they were chosen for one ground.
    """
    for pattern in (_WINDOW_TITLE, _FINE_COLOUR, _OTHER_ESCAPE):
        text = pattern.sub("", text)
    lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return _CONTROL.sub("", "\n".join(lines))


def log_end(log: Path) -> tuple[list[str], bool]:
    """The last 40 lines of a log, and whether they are all of it; no line where it is empty or cannot be read.

    Only its last 64 KiB are read. Bytes that are no UTF-8 become the sign that stands for them.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start = file.seek(max(0, size - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return [], True
    lines = plain_terminal(text).rstrip().split("\n")
    if lines == [""]:
        return [], True
    if start and len(lines) > 1:
        lines = lines[1:]  # reading began within it
    return lines[-_NUM_LOG_LINES:], not start and len(lines) <= _NUM_LOG_LINES
