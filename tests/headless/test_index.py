"""The list of runs: truthful, readable, and harmless whatever the names in it are."""

import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from workbench.headless.index import duration, write_index
from workbench.runs.files import write_json
from workbench.runs.folder import end_record, make_run_folder, write_record
from workbench.runs.metrics import add_metrics
from workbench.runs.record import new_record

HOSTILE = "<img src=x onerror=alert(1)>&\"'{x}"


class Page(HTMLParser):
    """Tags with their attributes, and the text of each table cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data_cards").mkdir()
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return tmp_path / "outputs"


def make_run(outputs: Path, name: str, status: str, started: str, **changes: Any) -> Path:
    folder = make_run_folder(outputs, name)
    record = new_record(Path(f"{name}.ipynb")) | {"started": f"2026-01-02T03:04:{started}+00:00"}
    write_record(folder, (record if status == "running" else end_record(record, status, None)) | changes)
    return folder


def test_runs_are_listed_newest_first_with_what_is_true(outputs: Path) -> None:
    ok = make_run(outputs, "03_evaluate", "ok", "05", parameters={"data": "tiny", "shots": [1, 5]}, seconds=185.2)
    add_metrics(ok, {"accuracy@1": {"value": 0.63214, "low": 0.6, "high": None, "n": 2485, "protocol": "p"}})
    (ok / "report.html").write_text("r")
    make_run(outputs, "01_audit", "running", "07")
    gone = make_run(outputs, "02_train", "running", "06", process_started=1.0)
    (gone / "metrics.json").write_text("{")
    page = Page(write_index(outputs).read_text())
    header, *rows = page.rows
    assert header[0] == "Status"
    assert [(row[0], row[1][:8]) for row in rows] == [
        ("running", "01_audit"),
        ("lost", "02_train"),
        ("ok", "03_evalu"),
    ]
    assert "metrics.json cannot be read" in rows[1][3]
    assert "The process ended without saying how" in rows[1][3]
    assert [text.strip() for text in rows[2][1:]] == [
        "03_evaluateshots=[1, 5]",
        "tiny",
        "accuracy@1 = 0.6321 [0.6, undefined], n = 2485",
        "2026-01-02 03:04:05",
        "3 min 05 s",
        "report · metrics · record",
    ]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert f"{ok.name}/report.html" in links
    assert all((outputs / str(link)).is_file() for link in links)


def test_hostile_names_are_only_text(outputs: Path) -> None:
    error = {"type": HOSTILE, "message": HOSTILE}
    folder = make_run(
        outputs, "x", "failed", "01", notebook=HOSTILE, parameters={"data": HOSTILE, HOSTILE: 1}, error=error
    )
    add_metrics(folder, {HOSTILE: {"value": 1, "low": 1, "high": 1, "n": HOSTILE, "protocol": ""}})
    make_run(outputs, "y", 'ok" onclick="alert(1)', "02")
    page = Page(write_index(outputs).read_text())
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "script"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.rows[2][1].startswith(HOSTILE)
    assert page.rows[2][2] == HOSTILE
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_writers_at_once_leave_a_whole_page_with_every_run(outputs: Path) -> None:
    def work(number: int) -> None:
        make_run(outputs, f"{number:02}_run", "ok", "00")
        write_index(outputs)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (outputs / "index.html").read_text()
    assert text.endswith("</html>\n")
    assert sorted(row[1] for row in Page(text).rows[1:]) == [f"{number:02}_run" for number in range(8)]


def test_an_empty_folder_has_a_page_too(outputs: Path) -> None:
    write_json(outputs / "cache" / "run.json", {"status": "ok"})
    assert "No run yet" in write_index(outputs).read_text()


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (None, 8.21, 59.94, 185.2, 7620)] == [
        "",
        "8.2 s",
        "59.9 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
