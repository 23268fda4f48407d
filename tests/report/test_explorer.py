"""The explorer without a kernel: values are set, messages handed in and points clicked as a browser would do it."""

import html
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from IPython.display import HTML
from PIL import Image

from workbench.data.images import ImageError
from workbench.report.explorer import Explorer
from workbench.report.picture_grid import PictureGrid, Thumbnails, Tile
from workbench.report.query_panel import answer_parts, answer_sheet
from workbench.report.threshold_panel import ThresholdPanel, counts_table
from workbench.retrieval.explore import ThresholdCounts
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_change import GalleryChange, compare_galleries

HOSTILE = "<img src=x onerror=window.hacked=1>"


@dataclass
class FourReferences:
    """A trial of hand-made embeddings in the plane: a at 0 and 10 degrees, b at 90, the hostile one at 180."""

    labels: list[str] = field(default_factory=lambda: ["a", "a", "b", HOSTILE])
    degrees: list[float] = field(default_factory=lambda: [0.0, 10.0, 90.0, 180.0])
    asked_degrees: tuple[float, ...] = (3.0, 80.0, 120.0, 20.0)
    asked_labels: tuple[str, ...] = ("a", "b", HOSTILE, "not there")
    saved: list[str] = field(default_factory=list)
    thresholds: list[tuple[str, float]] = field(default_factory=lambda: [("1 %", 0.65)])

    def __post_init__(self) -> None:
        self.query_QD = _plane(self.asked_degrees)
        self.before, self.gallery = (Gallery.build(_plane(self.degrees), self.labels) for _ in range(2))

    def find(self, query_D: np.ndarray, k: int) -> pd.DataFrame:
        matches = self.gallery.search(query_D[None], k)
        columns = {"reference": matches.reference_QK[0], "label": matches.label_QK[0].astype(str), "name": ""}
        return pd.DataFrame(columns).assign(similarity=matches.similarity_QK[0].astype(np.float64))

    def embed(self, path: Path) -> np.ndarray:
        if path.suffix != ".png":
            raise ImageError(path.name, "no image: a text")
        return np.array(_plane([175.0])[0])

    def query_embedding(self, row: int) -> np.ndarray:
        return np.array(self.query_QD[row])

    def answers(self) -> pd.DataFrame:
        matches = self.gallery.search(self.query_QD, 1)
        table = pd.DataFrame({"label": self.asked_labels, "domain": ["real", "real", "drawn", "drawn"]})
        table = table.assign(name=[f"q{row}.png" for row in range(4)], answer=matches.label_QK[:, 0].astype(str))
        table["reference"], table["similarity"] = matches.reference_QK[:, 0], matches.similarity_QK[:, 0]
        return table.assign(
            is_known=table["label"].isin(self.gallery.labels), is_right=table["label"] == table["answer"]
        )

    def points(self) -> tuple[pd.DataFrame, str]:
        answers, references = self.answers(), self.gallery.references
        kind = np.where(answers["is_right"], "right", np.where(answers["is_known"], "wrong", "absent"))
        columns = {
            "kind": ["reference"] * len(references) + kind.tolist(),
            "number": [*references["reference"], *range(4)],
            "label": [*references["label"], *answers["label"]],
            "domain": ["shelf"] * len(references) + answers["domain"].tolist(),
            "answer": [""] * len(references) + answers["answer"].tolist(),
        }
        xy = np.concatenate([self.gallery.embedding_ND, self.query_QD])
        return pd.DataFrame(columns).assign(x=xy[:, 0], y=xy[:, 1]), "Two axes hold all."

    def measured(self) -> list[tuple[str, float]]:
        return self.thresholds

    def reference_picture(self, reference: int) -> Image.Image:
        if reference == 3:
            raise ImageError("reference 3", "nothing says where its picture lies")
        return Image.new("RGB", (300, 200), (10 * reference, 90, 20))

    def query_picture(self, row: int) -> Image.Image:
        return Image.new("RGB", (40, 80), (0, 0, 20 * row))

    def match(self, query: Image.Image, reference: Image.Image) -> tuple[Any, np.ndarray, np.ndarray, str]:
        seen = np.zeros((32, 32, 3), np.uint8)
        found = ThreeParts(np.array([[0.5, 1.0]]), np.array([[1.0], [0.25]]), np.array([[0, 1, 0, 0]]), np.array([1.0]))
        return found, seen, seen, "1 x 2 parts"

    def mark_bad(self, references: Sequence[int]) -> None:
        self.gallery.remove_references(references)

    def add_folder(self, folder: str, label: str) -> list[str]:
        if not label:
            raise ValueError("Give the label of the new product.")
        self.gallery.add(label, _plane([20.0]))
        return ["one file is no picture"]

    def undo(self) -> None:
        self.gallery = Gallery.build(_plane(self.degrees), self.labels)

    def change(self) -> GalleryChange:
        return compare_galleries(self.before, self.gallery, self.query_QD, self.asked_labels)

    def save(self, folder: Path | None = None) -> str:
        self.saved.append(f"version {self.gallery.version}")
        return f"Saved {HOSTILE}."


@dataclass
class ThreeParts:
    heat_hw: np.ndarray
    heat_yx: np.ndarray
    pair_M4: np.ndarray
    similarity_M: np.ndarray


def _plane(degrees: Any) -> np.ndarray:
    angle = np.radians(np.asarray(degrees, dtype=np.float64))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _counts() -> ThresholdCounts:
    return ThresholdCounts(np.array([0.5, 0.8, 0.9]), np.array([0.6]), np.array([0.55, 0.7]))


@pytest.fixture
def explorer(tmp_path: Path) -> Explorer:
    return Explorer(FourReferences(), _counts, 0.7, dropped=tmp_path / "dropped", subtitle="four queries")


def _trace(explorer: Explorer, kind: str) -> Any:
    return next(trace for trace in explorer.map.figure.data if trace.meta == kind)


def _pick(explorer: Explorer, inds: dict[str, list[int]]) -> None:
    """What the page sends after a click or a lasso."""
    rows = [int(_trace(explorer, kind).customdata[ind]) for kind, several in inds.items() for ind in several]
    explorer.map.figure._handle_custom_msg({"kind": "pick", "picked": rows}, [])


def test_the_slider_moves_the_counts_by_hand_worked_numbers(explorer: Explorer) -> None:
    panel = explorer.threshold
    assert _numbers(panel) == {
        "right": 2,
        "wrong": 0,
        "refused": 2,
        "refused_right": 1,
        "false_accepts": 0,
        "refused_unknown": 2,
    }
    panel.slider.value = 0.58
    assert _numbers(panel) == {
        "right": 2,
        "wrong": 1,
        "refused": 1,
        "refused_right": 1,
        "false_accepts": 1,
        "refused_unknown": 1,
    }
    assert panel.figure.layout.shapes[0].x0 == panel.figure.layout.shapes[0].x1 == 0.58
    assert panel.figure.layout.annotations[0].text == "0.5800"
    panel.measured.value = 0.65
    assert panel.threshold == 0.65
    assert _numbers(panel)["wrong"] == 0


def test_a_changed_gallery_has_its_own_n_and_its_own_measured_thresholds(explorer: Explorer) -> None:
    panel, trial = explorer.threshold, explorer._trial
    assert "four queries. n = 4 queries" in panel.figure.layout.title.subtitle.text
    panel.measured.value = 0.65
    explorer._count = lambda: ThresholdCounts(np.array([0.5, 0.8]), np.array([0.6]), np.array([0.55, 0.7, 0.75, 0.9]))
    trial.thresholds = []  # type: ignore[attr-defined]
    explorer.refresh()
    assert "four queries. n = 3 queries" in panel.figure.layout.title.subtitle.text
    assert max(panel.figure.data[-1].y) == 4
    assert panel.measured.options == (("no measured threshold", None),), "what was measured before is not offered"
    assert panel.threshold == 0.65, "the threshold in use stays"
    trial.thresholds = [("1 %", 0.55), ("5 %", 0.5)]  # type: ignore[attr-defined]
    explorer.refresh()
    assert [value for _, value in panel.measured.options] == [None, 0.55, 0.5]
    panel.measured.value = 0.55
    assert _numbers(panel)["wrong"] == 1
    assert panel.threshold == 0.55


def test_what_is_said_about_the_map_follows_the_gallery(explorer: Explorer) -> None:
    trial = explorer._trial
    points = trial.points()[0]
    trial.points = lambda: (points.iloc[1:], "Two axes hold all. 7 of 8 points are shown")  # type: ignore[method-assign]
    explorer.refresh()
    said = explorer.map.figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "n = 3 references" in said
    assert "7 of 8 points are shown" in said


def _numbers(panel: ThresholdPanel) -> dict[str, int]:
    cells = panel.text.value.split('data-count="')[1:]
    return {cell.split('"')[0]: int(cell.split(">")[1].split("<")[0]) for cell in cells}


def test_shares_of_no_query_are_no_number() -> None:
    text = counts_table(ThresholdCounts(*(np.empty(0) for _ in range(3))).at(0.5), 0.5)
    assert "n = 0" in text
    assert "nan" not in text
    assert "–" in text


def test_a_query_shows_its_nearest_references_and_the_decision_follows_the_threshold(explorer: Explorer) -> None:
    panel = explorer.query
    panel.text.value = "q1.png"  # 80 degrees: b at 90, a at 10, a at 0, then 180
    assert [tile.mark for tile in panel.grid.tiles] == ["query", "right", "wrong", "wrong", "wrong"]
    assert [tile.key[1] for tile in panel.grid.tiles[1:]] == [2, 1, 0, 3], "more wanted than there are: all of them"
    near = np.cos(np.radians(10))
    assert panel.grid.note == f"Accepted as b: nearest b at {near:.4f}, above the threshold 0.7000. It shows b."
    explorer.threshold.slider.value = 0.9
    assert panel.grid.note.startswith("Accepted as b")
    panel.next_query.click()  # 120 degrees shows the hostile class, nearest is b at 30 degrees away: 0.866
    assert panel.grid.note == f"Unknown: nearest b at 0.8660, not above the threshold 0.9000. It shows {HOSTILE}."
    panel.next_wrong.click()
    assert panel.grid.tiles[0].caption == "not there"
    panel.next_wrong.click()
    assert panel.grid.tiles[0].caption == HOSTILE, "round and round"


def test_a_picture_is_asked_by_path_or_dropped_and_a_bad_one_gets_a_clear_line(
    explorer: Explorer, tmp_path: Path
) -> None:
    panel = explorer.query
    Image.new("RGB", (9, 9)).save(tmp_path / "mine.png")
    panel.text.value = str(tmp_path / "mine.png")  # 175 degrees: the hostile one at 5 degrees
    assert panel.grid.note.startswith(f"Accepted as {HOSTILE}: nearest {HOSTILE} at 0.9962")
    assert [tile.mark for tile in panel.grid.tiles] == ["query", *["plain"] * 4], "nobody knows what it shows"
    content = (tmp_path / "mine.png").read_bytes()
    panel.grid._handle_custom_msg({"kind": "picture", "name": "../../evil/dropped.png"}, [memoryview(content)])
    assert (tmp_path / "dropped" / "dropped.png").read_bytes() == content
    assert panel.grid.tiles[0] == Tile(("file", 1), "dropped.png", "query")
    panel.grid._handle_custom_msg({"kind": "picture", "name": "notes.txt"}, [memoryview(b"hello")])
    assert panel.grid.note == f"{tmp_path / 'dropped' / 'notes.txt'} cannot be asked: no image: a text."
    assert panel.grid.items == []
    panel.grid._handle_custom_msg({"kind": "too large", "name": "big.tif", "num_bytes": 9_500_000}, [])
    assert panel.grid.note == "big.tif has 9.5 MB, more than a browser may send (8 MB): type its path instead."


def test_the_browser_offers_every_kind_of_picture_that_is_read(explorer: Explorer) -> None:
    offered = explorer.query.grid.accept.split(",")
    assert offered[0] == "image/*"
    assert {".jfif", ".jpe", ".avif", ".jp2", ".ppm", ".webp", ".tif"} <= set(offered)


@pytest.mark.parametrize("name", ["..", "x" * 300 + ".png", "a\0b.png"])
def test_a_dropped_name_that_is_no_file_name_gets_a_line(explorer: Explorer, tmp_path: Path, name: str) -> None:
    panel = explorer.query
    panel.ask_query(0)
    panel.grid._handle_custom_msg({"kind": "picture", "name": name}, [memoryview(b"hello")])
    assert panel.grid.note.startswith(f"{name[:80]} cannot be kept: ")
    assert panel.grid.items == []
    assert panel.compare.disabled
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "nothing is left behind"


def test_still_sheets_say_why_there_is_no_picture() -> None:
    trial = FourReferences()
    sheet = answer_sheet(trial, 2, 0.5).data  # reference 3, of the hostile class, has no picture
    assert sheet.count("<img src=") == 4
    assert '<div class="wb-missing">No picture: reference 3: nothing says where its picture lies</div>' in sheet
    assert f"✓ right. {html.escape(HOSTILE)}" in sheet
    assert "reference 2" not in sheet
    trial.asked_labels, trial.asked_degrees = ("a",) * 4, (3.0, 175.0, 0.0, 0.0)
    trial.__post_init__()
    drawn, missing = answer_parts(trial, 0), answer_parts(trial, 1)
    assert isinstance(drawn, go.Figure)
    assert isinstance(missing, HTML)
    assert "query a, its nearest reference a" in drawn.layout.title.subtitle.text
    assert "Which parts match cannot be drawn: reference 3: nothing says where" in missing.data
    assert missing.data.count("<img src=") == 1


def test_thumbnails_are_small_pictures_with_alternatives_and_nothing_is_markup(explorer: Explorer) -> None:
    explorer.query.ask_query(2)
    for item, tile in zip(explorer.query.grid.items, explorer.query.grid.tiles, strict=True):
        if tile.key == ("reference", 3):
            assert item["src"] == ""
            assert item["alt"] == "No picture: reference 3: nothing says where its picture lies"
        else:
            assert item["src"].startswith("data:image/webp;base64,")
            assert len(item["src"]) < 3000
        assert tile.caption in item["caption"]
    script = (Path(sys.modules[PictureGrid.__module__].__file__ or "").with_suffix(".js")).read_text()
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http"):
        assert sink not in script
    for figure in (explorer.map.figure, explorer.threshold.figure):
        assert "<img" not in json.dumps(figure.to_plotly_json(), default=str)
    assert "<img src=x" not in explorer.change.target.value
    assert "<img src=x" not in answer_sheet(FourReferences(), 1, 0.5, num_shown=3).data


def test_a_click_and_a_lasso_on_the_map_show_what_was_picked(explorer: Explorer) -> None:
    panel = explorer.map
    assert [trace.meta for trace in panel.figure.data] == ["reference", "right", "wrong", "absent"]
    assert [len(trace.x) for trace in panel.figure.data] == [4, 2, 1, 1]
    _pick(explorer, {"wrong": [0]})
    assert [tile.key for tile in panel.grid.tiles] == [("query", 2)]
    assert panel.grid.tiles[0].caption == f"{HOSTILE}\ntaken for b"
    _pick(explorer, {"reference": [1, 3], "right": [0]})
    assert [tile.key for tile in panel.grid.tiles] == [("reference", 1), ("reference", 3), ("query", 0)]
    assert panel.grid.note == "3 points picked."
    _pick(explorer, {})
    assert panel.grid.note == "Nothing is picked."
    assert panel.grid.items == []
    panel.grid.show([Tile(("query", 1), "b")])
    panel.grid.selected = 0
    assert explorer.query.grid.tiles[0].key == ("query", 1), "a query that is picked is asked"
    assert explorer.change.bad.disabled


def test_filters_leave_what_they_say(explorer: Explorer) -> None:
    panel = explorer.map
    panel.wrong.value = True
    assert panel.points.iloc[panel.visible_rows()]["label"].tolist() == [HOSTILE]
    assert [len(trace.x) for trace in panel.figure.data] == [0, 0, 1, 0]
    assert [trace.visible for trace in panel.figure.data] == [False, False, True, False]
    panel.domain.value = "real"
    assert len(panel.visible_rows()) == 0
    assert panel.grid.note == "No point passes these filters."
    panel.wrong.value, panel.domain.value = False, "all"
    assert panel.grid.note == "Click a point, or draw a lasso around some."
    panel.label.value = "b"  # its reference, its query, and the query that was taken for it
    assert panel.points.iloc[panel.visible_rows()]["number"].tolist() == [2, 1, 2]
    _pick(explorer, {"wrong": [0]})
    assert panel.grid.tiles[0].key == ("query", 2), "a click counts among the points that are left"


def test_filters_offer_what_the_changed_gallery_has_and_keep_what_was_chosen(explorer: Explorer) -> None:
    panel = explorer.map
    before = panel.points
    assert panel.domain.options == ("all", "drawn", "real", "shelf")
    panel.domain.value = "shelf"
    joined = before.iloc[:1].assign(number=4, label="new", domain="added")
    panel.redraw(pd.concat([joined, before], ignore_index=True), "Two axes hold all.")
    assert panel.domain.options == ("all", "added", "drawn", "real", "shelf")
    assert panel.label.options == (HOSTILE, "a", "b", "new", "not there")
    assert panel.domain.value == "shelf", "it is still there"
    assert [len(trace.x) for trace in panel.figure.data] == [4, 0, 0, 0]
    panel.domain.value, panel.label.value = "added", "new"
    assert [trace.x.tolist() for trace in panel.figure.data] == [[joined["x"].iloc[0]], [], [], []]
    panel.redraw(before, "Two axes hold all.")
    assert (panel.domain.value, panel.label.value) == ("all", ""), "no point has them any more"
    assert panel.domain.options == ("all", "drawn", "real", "shelf")
    assert [len(trace.x) for trace in panel.figure.data] == [4, 2, 1, 1]
    panel.label.value = "b"
    panel.redraw(before, "Two axes hold all.")
    assert panel.label.value == "b"
    assert [len(trace.x) for trace in panel.figure.data] == [1, 1, 1, 0]


def test_a_bad_reference_leaves_and_what_it_did_is_counted(explorer: Explorer) -> None:
    panel, trial = explorer.change, explorer._trial
    explorer.query.ask_query(1)
    explorer.query.grid.selected = 1  # reference 2, the only b
    assert not panel.bad.disabled
    panel.bad.click()
    assert "Reference 2 is out" in panel.note.value
    assert len(trial.gallery) == 3  # type: ignore[attr-defined]
    text = panel.result.children[0].value
    assert "n = 2 queries" in text, "b is in one gallery only, and one query was never there"
    assert ">0 broke, 1 mended<" in text, "120 degrees goes to the hostile one when b is gone"
    assert len(explorer.map.figure.data[0].x) == 3
    assert explorer.query.grid.tiles[1].key == ("reference", 1), "the query is asked anew"
    panel.undo.click()
    assert len(trial.gallery) == 4  # type: ignore[attr-defined]
    assert explorer.query.grid.tiles[1].key == ("reference", 2)
    assert panel.result.children == ()


def test_a_new_product_joins_and_the_gallery_is_saved(explorer: Explorer) -> None:
    panel = explorer.change
    panel.add.click()
    assert "Not done: Give the label" in panel.note.value
    panel.folder.value, panel.label.value = "photos", "not there"
    panel.add.click()
    assert "one file is no picture" in panel.note.value
    assert "accuracy@1 of new labels" in panel.result.children[0].value
    assert len(explorer.map.figure.data[0].x) == 5
    panel.save.click()
    assert explorer._trial.saved == ["version 2"]  # type: ignore[attr-defined]
    assert "<img src=x" not in panel.note.value
    assert "&lt;img src=x" in panel.note.value


def test_matching_parts_are_drawn_for_the_picked_reference(explorer: Explorer) -> None:
    panel = explorer.query
    panel.compare.click()
    assert panel.parts.children == (), "nothing was asked yet"
    panel.ask_query(0)
    panel.grid.selected = 2
    panel.compare.click()
    (figure,) = panel.parts.children
    assert f"reference {panel.grid.tiles[2].key[1]}" in figure.layout.title.subtitle.text
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.z.tolist() for trace in heats] == [[[0.5, 1.0]], [[1.0], [0.25]]]
    (pair,) = [trace for trace in figure.data if trace.type == "scatter"]
    # Parts are 32 x 16 px and 16 x 32 px; the second picture begins at 32 px and a gap of 6 %.
    assert pair.x == pytest.approx((24, 32 + 0.06 * 32 + 16))
    assert pair.y == pytest.approx((16, 8))


def test_reactions_at_20000_references_are_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The times stand in the log; what is asserted is that the counts and thumbnails are right at that size."""
    rng = np.random.default_rng(0)
    gallery = Gallery.build(
        rng.normal(size=(20_000, 512)).astype(np.float32), [f"sku {row // 10}" for row in range(20_000)]
    )
    points = pd.DataFrame({"x": rng.normal(size=20_000), "y": 0.0, "kind": "reference", "number": np.arange(20_000)})
    points = points.assign(label=gallery.references["label"], domain="shelf", answer="")
    counts = ThresholdCounts(*(np.sort(rng.random(20_000)) for _ in range(3)))
    trial = FourReferences()
    trial.gallery, trial.query_QD = gallery, gallery.embedding_ND[:4].astype(np.float64)
    trial.points = lambda: (points, "made up")  # type: ignore[method-assign]
    trial.reference_picture = lambda reference: Image.fromarray(rng.integers(0, 255, (192, 256, 3), np.uint8))  # type: ignore[method-assign]
    explorer = Explorer(trial, lambda: counts, 0.5, dropped=tmp_path)

    def asks() -> None:
        explorer.query.ask_query(1)

    def moves() -> None:
        explorer.threshold.slider.value += 0.01

    def clicks() -> None:
        trace = explorer.map.figure.data[0]
        _pick(explorer, {trace.meta: [17]})

    def lassos() -> None:
        _pick(explorer, {"reference": list(range(500, 900))})

    times = {}
    for act in (asks, moves, clicks, lassos):
        act()  # the first one warms what is kept
        began = time.perf_counter()
        act()
        times[act.__name__] = 1000 * (time.perf_counter() - began)
    with capsys.disabled():
        text = ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items())
        sys.stdout.write(f"\nexplorer at 20,000 references, without a browser: {text}\n")
    threshold = explorer.threshold.threshold
    assert _numbers_with_commas(explorer.threshold)["right"] == int((counts.right_K > threshold).sum())
    assert explorer.map.grid.note == "400 points picked, 1 to 24 shown."
    assert [tile.key[1] for tile in explorer.map.grid.tiles] == list(range(500, 524))
    explorer.map.more.click()
    assert explorer.map.grid.tiles[0].key == ("reference", 524)
    assert explorer.query.grid.tiles[1].key == ("reference", 1)


def _numbers_with_commas(panel: ThresholdPanel) -> dict[str, int]:
    cells = panel.text.value.split('data-count="')[1:]
    return {cell.split('"')[0]: int(cell.split(">")[1].split("<")[0].replace(",", "")) for cell in cells}


def test_thumbnails_are_made_once_until_they_are_forgotten() -> None:
    made = []

    def load(kind: str, number: int) -> Image.Image:
        made.append((kind, number))
        return Image.new("RGB", (500, 100))

    thumbnails = Thumbnails(load)
    grid = PictureGrid(thumbnails)
    for _ in range(2):
        grid.show([Tile(("query", 1), "x"), Tile(("query", 2), "y")], "two")
    assert made == [("query", 1), ("query", 2)]
    grid.selected = 1
    assert grid.picked == Tile(("query", 2), "y")
    thumbnails.forget()
    grid.show([Tile(("query", 1), "x")])
    assert grid.selected == -1
    assert grid.picked is None
    assert len(made) == 3
