"""The list of runs: truthful, readable, and harmless whatever the names in it are."""

import fnmatch
import math
import threading
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.headless import drawings
from workbench.headless.drawings import Bar, draw_bars, find_trends
from workbench.headless.index import duration, headline, write_index
from workbench.headless.listing import Headline, ListedRun, list_rows
from workbench.runs.files import write_json
from workbench.runs.folder import end_record, make_run_folder, write_record
from workbench.runs.metrics import add_metrics
from workbench.runs.record import new_record

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'{x}"


class Page(HTMLParser):
    """Tags with their attributes, and the text of each table cell without what is folded away."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.folded: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("td", "th", "details"):
            self._inside.append(tag)
        if tag == "details":
            self.folded.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "details"):
            assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "details" in self._inside:
            self.folded[-1] += data
        elif self._inside:
            self.rows[-1][-1] += data.strip("\n")

    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.tags if tag == "a"]


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


def one_metric(value: Any, low: Any = None, high: Any = None, n: Any = 9, protocol: str = "p") -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}


def listed(name: str = "r", started: str = "", **changes: Any) -> ListedRun:
    """A run of the list with a headline; `value`, `low`, `high`, `metric` and `protocol` are the headline's."""
    value, low, high = (changes.pop(part, None) for part in ("value", "low", "high"))
    metric, protocol = changes.pop("metric", "accuracy@1"), changes.pop("protocol", "p")
    given = {"status": "ok", "notebook": "03", "data": "tiny", "images": "abc", "seconds": None, "is_trial": False}
    text = dict.fromkeys(("trunk", "recipe", "source", "settings", "parameters", "error"), "")
    found = Headline(metric, value, low, high, "9", protocol)
    return ListedRun(**{"name": name, "started": started, "headline": found, "files": (), **text, **given, **changes})


def test_runs_are_listed_newest_first_with_what_is_true(outputs: Path) -> None:
    ok = make_run(outputs, "03_evaluate", "ok", "05", parameters={"data": "tiny", "shots": [1, 5]}, seconds=185.2)
    add_metrics(ok, {"accuracy@1": one_metric(0.63214, 0.6, None, 2485, "1 shot"), "accuracy@5": one_metric(0.9)})
    (ok / "report.html").write_text("r")
    make_run(outputs, "01_audit", "running", "07")
    gone = make_run(outputs, "02_train", "running", "06", process_ticks=1)
    (gone / "metrics.json").write_text("{")
    (outputs / "20260102T030404Z-09_speed-00000000").mkdir()
    text = write_index(outputs).read_text()
    page = Page(text)
    header, *rows = page.rows
    assert header == ["Status", "Notebook", "Data", "Trunk", "Recipe", "Headline", "Started (UTC)", "Took", "Files"]
    assert [(row[0], row[1]) for row in rows] == [
        ("running", "01_audit"),
        ("lost", "02_train"),
        ("ok", "03_evaluate"),
        ("lost", "09_speed"),
    ]
    assert "metrics.json cannot be read" in rows[1][5]
    assert "The process ended without saying how" in rows[1][5]
    assert "run.json cannot be read" in rows[3][5]
    assert rows[2][2:] == [
        "tiny",
        "",
        "",
        "0.6321 [0.6, undefined]accuracy@1, n = 2485",
        "2026-01-02 03:04:05",
        "3 min 05 s",
        "report metrics record",
    ]
    assert page.folded[2:4] == [f"Parametersrun: {ok.name}\ndata: tiny\nshots: [1, 5]", "Protocol1 shot"]
    assert "1 ok, 1 running" in text
    assert "2 lost" in text
    assert page.links().count(f"{ok.name}/report.html") == 2, (
        "the name is a link too: the last column may be out of sight"
    )
    assert all((outputs / link).is_file() for link in page.links())
    assert headline(ok) == "accuracy@1 = 0.6321 [0.6, undefined], n = 2485"
    assert "metrics.json cannot be read" in headline(gone)


def test_only_what_sets_runs_of_a_notebook_apart_is_in_sight(outputs: Path) -> None:
    for second, (seed, steps) in enumerate([(0, 5), (1, 5), (2, None)]):
        given = {"data": f"set{second}", "seed": seed, "num_steps": steps, "draws": 5, "smoke": second == 2}
        make_run(outputs, "02_train", "ok", f"0{second}", parameters=given)
    make_run(outputs, "03_evaluate", "ok", "00", parameters={"draws": 7})
    rows = {row.data: row for row in list_rows(outputs)}
    assert rows["set0"].settings == "seed=0, num_steps=5"
    assert rows["set2"].settings == "seed=2"
    assert rows[""].settings == ""
    assert [rows[name].is_trial for name in ("set0", "set2", "")] == [False, True, False]
    noted = make_run(outputs, "07_compare", "ok", "09", parameters={}, facts={"data": "set0, set1"})
    assert next(row.data for row in list_rows(outputs) if row.name == noted.name) == "set0, set1"
    assert rows["set2"].parameters == "data: set2\nseed: 2\nnum_steps: None\ndraws: 5\nsmoke: True"


def test_an_embedder_is_followed_to_the_run_that_made_it(outputs: Path) -> None:
    described = {"described": {"trunk": "timm:tiny", "head": "identity"}}
    base = make_run(
        outputs, "02_train", "ok", "01", parameters={"embedder": "timm:x", "recipe": "lora"}, facts=described
    )
    folder = f"/elsewhere/{base.name}/training/embedder"
    noted = {"embedding": {"trunk": "timm:noted"}}
    second = make_run(outputs, "06_export", "running", "02", parameters={"embedder": folder}, facts=noted)
    make_run(outputs, "03_evaluate", "ok", "03", parameters={"embedder": f"{second.name}/exported"})
    gone = "20250101T000000Z-02_train-12345678"
    make_run(outputs, "04_gone", "ok", "04", parameters={"embedder": f"a/{gone}/training/embedder"})
    make_run(outputs, "05_two", "ok", "05", facts={"described": {"tuned": {"trunk": "timm:a"}, "untuned": {}}})
    make_run(outputs, "07_own", "ok", "06", parameters={"embedder": "my/own folder", "recipe": None})
    found = {row.notebook: (row.trunk, row.recipe, row.source) for row in list_rows(outputs)}
    assert found == {
        "02_train": ("timm:tiny", "lora", ""),
        "06_export": ("timm:noted", "lora", base.name.partition("-")[2]),
        "03_evaluate": ("timm:noted", "lora", second.name.partition("-")[2]),
        "04_gone": ("", "", "02_train-12345678"),
        "05_two": ("timm:a", "", ""),
        "07_own": ("my/own folder", "", ""),
    }


def test_numbers_that_are_none_are_undefined_and_break_nothing(outputs: Path) -> None:
    texts = ["NaN", "Infinity", "null", "true", '"0.5"', f"1{'0' * 400}", "1e300"]
    for second, text in enumerate(texts):
        folder = make_run(outputs, f"{second}_run", "ok", f"0{second}", seconds="long")
        fields = f'"value": {text}, "low": {text}, "high": 0.5, "n": [1], "protocol": null'
        (folder / "metrics.json").write_text(f'{{"metrics": {{"m": {{{fields}}}}}}}')
    rows = {row.notebook: row for row in list_rows(outputs)}
    values = [rows[f"{second}_run"].headline for second in range(len(texts))]
    assert [(one.value, one.low) for one in values if one] == [(None, None)] * 6 + [(1e300, 1e300)]
    page = Page(write_index(outputs).read_text())
    assert [row[5] for row in page.rows[:0:-1]][:2] == ["undefined [undefined, 0.5]m, n = [1]"] * 2
    assert page.rows[1][5] == "1e+300 [1e+300, 0.5]m, n = [1]"
    assert [row[7] for row in page.rows[1:]] == [""] * 7


def test_bars_of_a_metric_share_a_scale() -> None:
    rows = [
        listed(value=0.25, low=0.125, high=0.5),
        listed(value=1.0),
        listed(value=2.0, low=0.0, high=4.0, metric="ratio"),
        listed(value=-4.0, low=None, high=3.0, metric="ratio"),
        listed(value=3.0, metric="ratio", notebook="09"),
        listed(value=None, low=0.1),
        listed(headline=None),
        listed(value=1e200, metric="large"),
        listed(value=0.0, metric="zero"),
    ]
    assert draw_bars(rows) == [
        Bar(24.0, 12.0, 48.0),
        Bar(96.0, None, None),
        Bar(72.0, 48.0, 96.0),
        Bar(0.0, None, 84.0),
        *(None, None, None, None),
        Bar(0.0, None, None),
    ]


def test_points_of_a_trend_stand_where_they_should() -> None:
    # Four days from the left edge (48) to the right (310); 0 at the bottom (108), 1 at the top (10).
    rows = [
        listed("c", "2026-01-05T00:00:00+00:00", value=0.6, low=0.5, high=0.9, files=(("report", "c/report.html"),)),
        listed("x", "2026-01-03T00:00:00+00:00", value=0.1, status="failed"),
        listed("y", "2026-01-03T00:00:00+00:00", value=None, low=0.2),
        listed("z", "no time", value=0.5),
        listed("b", "2026-01-02T02:00:00+02:00", value=0.4, low=0.3, trunk="timm:a", recipe="lora", settings="seed=1"),
        listed("a", "2026-01-01T00:00:00", value=0.2, low=0.1, high=0.3),
    ]
    (trend,) = find_trends(rows)
    assert [(point.run.name, point.index) for point in trend.points] == [("a", 5), ("b", 4), ("c", 0)]
    assert [(point.x, point.y, point.y_low, point.y_high) for point in trend.points] == [
        (48.0, 88.4, 98.2, 78.6),
        (113.5, 68.8, 78.6, None),
        (310.0, 49.2, 59.0, 19.8),
    ]
    assert trend.path == "M48.0 88.4L113.5 68.8L310.0 49.2"
    assert trend.ticks == ((108.0, "0"), (59.0, "0.5"), (10.0, "1"))
    assert (trend.metric, trend.latest, trend.first, trend.last) == (
        "accuracy@1",
        "0.6 [0.5, 0.9]",
        "2026-01-01",
        "2026-01-05",
    )
    assert trend.points[1].words == ("2026-01-02 00:00 UTC: 0.4 [0.3, undefined], n = 9. timm:a, lora, seed=1")
    assert [point.run.link for point in trend.points] == ["a", "b", "c/report.html"]


def test_runs_at_one_time_with_one_number_are_in_the_middle() -> None:
    rows = [listed(name, "2026-01-01T10:20:00+00:00", value=0.0) for name in "ba"]
    (trend,) = find_trends(rows)
    assert [(point.run.name, point.x, point.y) for point in trend.points] == [("a", 179.0, 59.0), ("b", 179.0, 59.0)]
    assert (trend.first, trend.last) == ("2026-01-01 10:20", "2026-01-01 10:20")


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "5 shots"},
        {"metric": "mAP"},
        {"images": "def"},
        {"data": "other"},
        {"notebook": "04"},
        {"is_trial": True},
    ],
)
def test_what_is_not_comparable_is_never_in_one_trend(change: dict[str, Any]) -> None:
    rows = [
        listed("d", "2026-01-04T00:00:00", value=0.4, **change),
        listed("c", "2026-01-03T00:00:00", value=0.3),
        listed("b", "2026-01-02T00:00:00", value=0.2, **change),
        listed("a", "2026-01-01T00:00:00", value=0.1),
        listed("alone", "2026-01-01T00:00:00", value=0.1, metric="rank-1"),
    ]
    assert [[point.run.name for point in trend.points] for trend in find_trends(rows)] == [["b", "d"], ["a", "c"]]


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1) | st.none()


@given(st.lists(st.tuples(numbers, numbers, numbers), max_size=6))
def test_drawings_stay_within_their_edges(parts: list[tuple[float | None, float | None, float | None]]) -> None:
    rows = [
        listed(str(day), f"2026-01-{28 - day}T00:00:00", value=value, low=low, high=high)
        for day, (value, low, high) in enumerate(parts)
    ]
    for bar in draw_bars(rows):
        places = [] if bar is None else [x for x in (bar.x, bar.x_low, bar.x_high) if x is not None]
        assert all(0 <= x <= drawings.BAR_WIDTH for x in places)
    for trend in find_trends(rows):
        assert 2 <= len(trend.ticks) <= 5
        heights = [y for point in trend.points for y in (point.y, point.y_low, point.y_high) if y is not None]
        assert all(drawings.TOP <= y <= drawings.BOTTOM for y in heights + [y for y, _ in trend.ticks])
        assert all(math.isfinite(point.x) for point in trend.points)
        by_value = sorted(trend.points, key=lambda point: parts[int(point.run.name)][0] or 0.0)
        assert [point.y for point in by_value] == sorted((point.y for point in trend.points), reverse=True)


def test_hostile_names_are_only_text(outputs: Path) -> None:
    error = {"type": HOSTILE, "message": HOSTILE}
    given = {"data": HOSTILE, "embedder": HOSTILE, "recipe": HOSTILE, HOSTILE: 1}
    for second in ("01", "02"):
        folder = make_run(outputs, "x", "ok", second, notebook=HOSTILE, parameters=given, error=error)
        add_metrics(folder, {HOSTILE: one_metric(1, 1, 1, HOSTILE, HOSTILE)})
    folder.rename(outputs / '20260102T030402Z-x" onclick="alert(1)-00000000')
    make_run(outputs, "y", 'ok" onclick="alert(1)', "03")
    text = write_index(outputs).read_text()
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "iframe", "link", "base", "object"})
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)
    assert page.rows[2][1] == HOSTILE
    assert page.rows[2][2:5] == [HOSTILE, HOSTILE, HOSTILE]
    assert page.rows[2][5].startswith(f"1 [1, 1]{HOSTILE}, n = {HOSTILE}")
    assert all((outputs / unquote(link)).is_file() for link in page.links())
    options = [attributes.get("value") for tag, attributes in page.tags if tag == "option"]
    assert options.count(HOSTILE) == 4


def test_policy_lets_this_script_alone_run(outputs: Path) -> None:
    make_run(outputs, "x", "ok", "01")
    nonces = []
    for _ in range(2):
        page = Page(write_index(outputs).read_text())
        policy = next(str(attributes["content"]) for tag, attributes in page.tags if "http-equiv" in attributes)
        (script,) = [attributes for tag, attributes in page.tags if tag == "script"]
        assert script["nonce"]
        assert set(policy.split("; ")) == {
            "default-src 'none'",
            f"script-src 'nonce-{script['nonce']}'",
            f"style-src 'nonce-{script['nonce']}'",
            "base-uri 'none'",
            "form-action 'none'",
        }
        nonces.append(script["nonce"])
    assert nonces[0] != nonces[1]


def test_what_the_page_is_made_of_is_shipped() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    there = [path.name for path in (ROOT / "workbench" / "headless").iterdir() if path.suffix in (".j2", ".css", ".js")]
    assert sorted(there) == ["index.css", "index.html.j2", "index.js"]
    assert all(any(fnmatch.fnmatch(name, form) for form in shipped["workbench.headless"]) for name in there)


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
