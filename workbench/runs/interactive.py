"""A run in JupyterLab: no supervisor watches it, so this kernel writes how it goes."""

import re
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from workbench.runs.folder import drop_reserve, end_record, load_record, write_last_record
from workbench.runs.owner import hold

_TRACEBACK_CHARACTERS = 8000
# The one run of this kernel that has not ended, with its lock and its hook in IPython, which end with it.
_open_run: dict[Path, ExitStack] = {}


def open_run(folder: Path) -> None:
    """Makes the folder's run this kernel's: a cell's error is written into its record until `close_run`.

    The run before, if it is still open, is closed; it is cancelled when no cell had failed. Outside of IPython there are
    no cells and only the first half holds.
    """
    for earlier in list(_open_run):
        if not earlier.is_dir():
            _open_run.pop(earlier).close()
            continue
        record = load_record(earlier)
        message = "Started anew in the same kernel before it was finished."
        cancelled = end_record(record, "cancelled", {"type": "Cancelled", "message": message})
        close_run(earlier, cancelled if record["status"] == "running" else record)
    held = _open_run[folder] = ExitStack()
    held.enter_context(hold(folder))
    shell = _find_shell()
    if shell is None:
        return

    def record_error(result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        if error is not None:
            write_last_record(
                folder, _with_error(load_record(folder), error, result.info.raw_cell, shell.execution_count)
            )

    shell.events.register("post_run_cell", record_error)
    held.callback(shell.events.unregister, "post_run_cell", record_error)


def is_open(folder: Path) -> bool:
    """Whether the folder's run is this kernel's and not ended, rather than a supervisor's."""
    return folder in _open_run


def close_run(folder: Path, record: dict[str, Any]) -> None:
    """Writes the run's last record and stops watching its cells."""
    write_last_record(folder, record)
    drop_reserve(folder)
    _open_run.pop(folder).close()


def plain_text(text: str) -> str:
    """The text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _with_error(record: dict[str, Any], error: BaseException, source: str, number: int) -> dict[str, Any]:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    description = {
        "type": type(error).__name__,
        "message": plain_text(str(error)),
        "traceback": plain_text("".join(lines))[-_TRACEBACK_CHARACTERS:],
        "cell": {"number": number, "first_line": first_line(source)},
    }
    return end_record(record, "cancelled" if isinstance(error, KeyboardInterrupt) else "failed", description)


def first_line(source: str) -> str:
    """The first line of a cell that is not empty, cut at 120 characters."""
    return next((line.strip() for line in source.splitlines() if line.strip()), "")[:120]


def _find_shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None
