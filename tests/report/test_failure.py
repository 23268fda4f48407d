from pathlib import Path
from typing import Any

import pytest

from workbench.report.cells import Page
from workbench.report.failure import explain_failure
from workbench.report.terminal import log_end, plain_terminal


def _explained(page: Page, record: dict[str, Any], status: str, folder: Path) -> dict[str, Any]:
    found = explain_failure(page, record, status, folder / "stdout.log")
    assert found is not None
    return found


def test_a_cell_that_failed(tmp_path: Path) -> None:
    page = Page(num_code_cells=22, num_begun=5, failing_cell=5, error_name="MemoryError", error_message="")
    (tmp_path / "stdout.log").write_text("one\ntwo\n")
    found = _explained(page, {}, "failed", tmp_path)
    assert found["headline"] == "This run failed in code cell 5. Its numbers are not complete."
    assert found["how_far"] == "4 of 22 code cells ran to their end."
    assert found["message"] == "MemoryError"
    assert found["plain"] == "The machine's memory was full: fewer images at once, or a larger machine."
    assert (found["log"], found["log_title"]) == ("one\ntwo", "The log, 2 lines")
    assert found["link"] == "Go to the cell that failed"


def test_a_run_ended_from_outside_names_the_cell_it_stood_at(tmp_path: Path) -> None:
    page = Page(num_code_cells=22, num_begun=7)  # the seventh had printed something
    cell = {"number": 7, "of": 22, "first_line": "train(model)"}
    error = {"type": "Timeout", "message": "The deadline of 9 s passed while cell 7 of 22 ran.", "cell": cell}
    found = _explained(page, {"error": error}, "timeout", tmp_path)
    assert found["headline"] == "This run was stopped at its deadline. Its numbers are not complete."
    assert found["how_far"] == "6 of 22 code cells ran to their end."
    assert found["first_line"] == "train(model)"
    assert found["message"] == "Timeout: The deadline of 9 s passed while cell 7 of 22 ran."
    assert (found["plain"], found["log"], found["link"]) == ("", "", "")
    page.stopped_cell = 7
    found = _explained(page, {"error": error}, "timeout", tmp_path)
    assert found["headline"] == "This run was stopped at its deadline in code cell 7. Its numbers are not complete."
    assert (found["how_far"], found["link"]) == (
        "6 of 22 code cells ran to their end.",
        "Go to the cell that ran when it was ended",
    )
    assert _explained(Page(num_code_cells=22, num_begun=6), {"error": error}, "timeout", tmp_path)["how_far"] == (
        "6 of 22 code cells ran to their end."
    )


@pytest.mark.parametrize("status", ["ok", "running", "unexecuted"])
def test_nothing_is_said_where_nothing_went_wrong(tmp_path: Path, status: str) -> None:
    assert explain_failure(Page(num_code_cells=2, num_begun=1), {}, status, tmp_path / "stdout.log") is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("1 %\r50 %\r100 %\ndone\r\n", "100 %\ndone\n"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[38;5;241mgrey\x1b[39m \x1b[1;48;2;1;2;3mblue", "grey\x1b[39m blue"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("bell\x07 nul\x00 \x1b(Btab\t\x1bMend", "bell nul tab\tMend"),
        ("<b>", "<b>"),
    ],
)
def test_text_as_a_terminal_shows_it(raw: str, shown: str) -> None:
    assert plain_terminal(raw) == shown


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "stdout.log"
    assert log_end(log) == ([], True)
    log.write_text("\n\n")
    assert log_end(log) == ([], True)
    log.write_text("".join(f"{number}\n" for number in range(40)))
    assert log_end(log) == ([str(number) for number in range(40)], True)
    log.write_text("".join(f"{number}\n" for number in range(41)))
    assert log_end(log) == ([str(number) for number in range(1, 41)], False)
    log.write_bytes(b"\xff\xfe bytes\n")
    assert log_end(log) == (["\ufffd\ufffd bytes"], True)


def test_a_huge_log_is_read_from_its_end_alone(tmp_path: Path) -> None:
    log = tmp_path / "stdout.log"
    with log.open("wb") as file:
        file.truncate(10**9)  # a hole: reading all of it would take a gigabyte of memory
        file.seek(0, 2)
        file.write(b"\n" + b"".join(b"%05d %s\n" % (number, b"x" * 3000) for number in range(30)))
    lines, is_whole = log_end(log)
    assert not is_whole
    assert len(lines) == 21  # 64 KiB hold 21 whole lines of 3,007 bytes and a part of one, which is left out
    assert [line[:5] for line in lines] == [f"{number:05d}" for number in range(9, 30)]
