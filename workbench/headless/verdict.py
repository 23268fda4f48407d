"""How a run ended, decided from what its supervisor saw."""

import signal
from collections.abc import Sequence
from typing import Any


def decide(
    stopped: str | None, exit_code: int, events: Sequence[dict[str, Any]], finished: bool, deadline_s: float | None
) -> tuple[str, dict[str, Any] | None]:
    """The status of a headless run and its error (None for `ok`): ok only if everything was seen to have gone well.

    Args:
        stopped: why the supervisor ended the run, `timeout` or `cancelled`; None when it ended by itself.
        exit_code: of the child process; negative when a signal killed it.
        events: what the child told, in order: `begin` and `end` of each cell, `ended` at last.
        finished: whether the notebook called `run.finish()`.
        deadline_s: the run's deadline in seconds, for the message.
    """
    cell = _last_cell(events)
    place = f"while cell {cell['number']} of {cell['of']} ran" if cell else "before its first cell ran"
    if stopped == "cancelled":
        return "cancelled", _error("Cancelled", f"Cancelled {place}.", cell)
    if stopped == "timeout":
        return "timeout", _error("Timeout", f"The deadline of {deadline_s:g} s passed {place}.", cell)
    last = events[-1] if events and events[-1]["event"] == "ended" else None
    if last is None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return "killed", _error("Killed", f"The process that executes the notebook was killed ({name}) {place}.", cell)
    if last is None:
        message = f"The process that executes the notebook ended with exit code {exit_code} {place}; see stdout.log."
        return "failed", _error("ExecutionFailed", message, cell)
    if last["how"] == "kernel_died":
        message = f"The kernel died {place}: killed from outside, out of memory, or crashed in native code."
        return "killed", _error("KernelDied", message, cell)
    if last["how"] == "error":
        return "failed", {**last["error"], "cell": cell}
    begun = [event for event in events if event["event"] == "begin"]
    num_cells = begun[-1]["of"] if begun else 0
    num_executed = sum(event["event"] == "end" and event["ok"] for event in events)
    if num_executed < num_cells:
        message = f"Only {num_executed} of {num_cells} code cells were executed to their end."
        return "failed", _error("NotExecuted", message, cell)
    if not finished:
        return "failed", _error("NotFinished", "Every cell ran, but none called `run.finish()`.", None)
    if exit_code != 0:
        return "failed", _error("ExecutionFailed", f"Every cell ran, but the exit code was {exit_code}.", None)
    return "ok", None


def cell_seconds(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How long each cell took that came to an end, by its number."""
    return {str(event["number"]): event["seconds"] for event in events if event["event"] == "end"}


def _last_cell(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    begun = [event for event in events if event["event"] == "begin"]
    return {key: begun[-1][key] for key in ("number", "of", "first_line")} if begun else None


def _error(name: str, message: str, cell: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": name, "message": message, "cell": cell}
