"""How a run ended, from every combination that a supervisor can see."""

from typing import Any

import pytest

from workbench.headless.verdict import cell_seconds, decide


def begin(number: int) -> dict[str, Any]:
    return {"event": "begin", "number": number, "of": 2, "first_line": f"line {number}"}


def end(number: int, ok: bool = True) -> dict[str, Any]:
    return {"event": "end", "number": number, "seconds": number / 2, "ok": ok}


def ended(how: str, **more: Any) -> dict[str, Any]:
    return {"event": "ended", "how": how, **more}


ALL = [begin(1), end(1), begin(2), end(2)]
ERROR = {"type": "ValueError", "message": "no", "traceback": ""}


@pytest.mark.parametrize(
    ("stopped", "exit_code", "events", "finished", "status", "message"),
    [
        (None, 0, [*ALL, ended("completed")], True, "ok", None),
        (None, 0, [*ALL, ended("completed")], False, "failed", "Every cell ran, but none called `run.finish()`."),
        (None, 1, [*ALL, ended("completed")], True, "failed", "Every cell ran, but the exit code was 1."),
        (None, 0, [*ALL[:2], ended("completed")], True, "failed", "Only 1 of 2 code cells were executed to their end."),
        (None, 0, [*ALL[:3], end(2, False), ended("completed")], True, "failed", "Only 1 of 2 code cells"),
        (None, 0, [*ALL[:3], end(2, False), ended("error", error=ERROR)], True, "failed", "no"),
        (None, 0, [*ALL[:3], ended("kernel_died")], True, "killed", "The kernel died while cell 2 of 2 ran"),
        (None, 0, [ended("kernel_died")], False, "killed", "The kernel died before its first cell ran"),
        (None, -9, ALL[:1], False, "killed", "was killed (SIGKILL) while cell 1 of 2 ran."),
        (None, 1, [], False, "failed", "ended with exit code 1 before its first cell ran; see stdout.log."),
        (None, 0, ALL, True, "failed", "ended with exit code 0"),
        (
            "timeout",
            0,
            [*ALL, ended("completed")],
            True,
            "timeout",
            "The deadline of 2.5 s passed while cell 2 of 2 ran.",
        ),
        ("timeout", -9, [], False, "timeout", "The deadline of 2.5 s passed before its first cell ran."),
        ("cancelled", -9, ALL[:1], False, "cancelled", "Cancelled while cell 1 of 2 ran."),
    ],
)
def test_only_what_was_seen_to_go_well_is_ok(
    stopped: str | None, exit_code: int, events: list[dict[str, Any]], finished: bool, status: str, message: str | None
) -> None:
    found, error = decide(stopped, exit_code, events, finished, 2.5)
    assert found == status
    assert error is None if message is None else error is not None and message in error["message"]


def test_an_error_names_the_cell() -> None:
    _, error = decide(None, 0, [*ALL[:3], end(2, False), ended("error", error=ERROR)], False, None)
    assert error == ERROR | {"cell": {"number": 2, "of": 2, "first_line": "line 2"}}
    assert cell_seconds([*ALL[:3], ended("kernel_died")]) == {"1": 0.5}
