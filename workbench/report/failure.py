"""A run that did not come to its end: how far it came, what went wrong in plain words, and the end of its log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.report.cells import Page
from workbench.report.terminal import log_end

_ENDINGS = {
    "timeout": "was stopped at its deadline",
    "killed": "was killed",
    "cancelled": "was cancelled",
    "lost": "was lost",
}
# Errors whose own words say little to somebody who does not program.
_PLAIN = {
    "AssertionError": "A check in the code did not hold: this is a fault of the code, not of the data.",
    "FileNotFoundError": "A file that is needed is not there.",
    "ImportError": "A Python package that is needed is missing or does not fit; install the requirements anew.",
    "KeyboardInterrupt": "Somebody stopped it.",
    "KeyError": "A name was looked up that is not there.",
    "MemoryError": "The machine's memory was full: fewer images at once, or a larger machine.",
    "ModuleNotFoundError": "A Python package that is needed is not installed; install the requirements anew.",
    "OutOfMemoryError": "The GPU's memory was full: a smaller batch, smaller images or a smaller trunk.",
    "PermissionError": "A file may not be read or written by this user.",
    "ZeroDivisionError": "Something was divided by nothing, most often because a set is empty.",
}


def explain_failure(page: Page, record: Mapping[str, Any], status: str, log: Path) -> dict[str, Any] | None:
    """What the top of the page says of a run that went wrong; `None` when nothing did.

    Keys: headline, how_far, message (the error as it was raised), plain (what that means; empty where the message is all
    there is to say), first_line (of the cell that it stood in), link (words of a link to that cell, empty where the page does
    not know it), log (the end of the log, empty when there is none) and log_title.

    Args:
        page: of the notebook, after `prepare_cells`.
        record: the run's record, all of it optional.
        status: of the run.
        log: what the run printed; need not exist.
    """
    stated = record.get("error")
    if not stated and page.failing_cell is None and status in ("ok", "running", "unexecuted"):
        return None
    name, message = page.error_name, page.error_message
    cell: Mapping[str, Any] = {}
    if isinstance(stated, Mapping):
        name = str(stated.get("type") or name)
        message = str(stated.get("message") or message)
        cell = stated["cell"] if isinstance(stated.get("cell"), Mapping) else {}
    elif stated:
        name, message = "", str(stated)
    number = page.failing_cell or page.stopped_cell
    place = f" in code cell {number}" if number else ""
    done = page.num_begun - (page.failing_cell is not None)
    if page.failing_cell is None and cell.get("number"):
        done = min(done, int(cell["number"]) - 1)  # it had printed something before it was ended
    link = "Go to the cell that failed" if page.failing_cell else "Go to the cell that ran when it was ended"
    lines, is_whole = log_end(log)
    return {
        "headline": f"This run {_ENDINGS.get(status, 'failed')}{place}. Its numbers are not complete.",
        "how_far": f"{done} of {page.num_code_cells} code cells ran to their end." if page.num_code_cells else "",
        "message": f"{name}: {message}" if name and message else name or message,
        "plain": _PLAIN.get(name, ""),
        "first_line": str(cell.get("first_line") or ""),
        "link": link if number else "",
        "log": "\n".join(lines),
        "log_title": f"The log, {len(lines)} lines" if is_whole else f"The last {len(lines)} lines of the log",
    }
