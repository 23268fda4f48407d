import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mistune
import pandas as pd
import pytest

from workbench.data.card import Card, CardError, SplitCount
from workbench.report.card_text import Protocols, plain, share_cells, table
from workbench.report.model_card import Measured, measured_by_kind, model_card, named_cards, read_measured

HOSTILE = "<img src=x onerror=alert(1)>|`code` **bold** [link](javascript:x) $x$ ~~gone~~ \\| # \n\n# heading\n- item https://evil.example"
FINGERPRINT = "a" * 64
EXPORTED: dict[str, Any] = {
    "precision": "fp16",
    "opset": 23,
    "input": "raw",
    "normalised": True,
    "embedding_dim": 512,
    "image_size": [224, 192],
    "versions": {"torch": "2.15.0"},
    "preprocessing": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "resize": "crop",
        "crop_share": 0.875,
    },
    "embedder": {"trunk": "timm:resnet50.a1_in1k", "head": "linear", "pooling": "default"},
    "embedder_fingerprint": FINGERPRINT,
    "weights_sha256": "b" * 64,
    "files": {"model.onnx": {"bytes": 3, "sha256": "c" * 64}},
}
SECTIONS = [
    *("Overview", "Architecture", "Input and output", "Training data", "Reference and query guidelines"),
    *("Data measured on", "Accuracy by references per class", "Re-identification", "Acceptance of the export", "Speed"),
    *("Measured limits", "Gallery", "Intended use", "Ethical considerations", "Licence", "Protocols", "Weights"),
]


class Reader(HTMLParser):
    """Headings, tables as rows of texts, the whole text, and every tag of a rendered card."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.text, self._at = "", ""
        rendered = mistune.create_markdown(plugins=["table", "url", "strikethrough", "math"], escape=False)(markdown)
        assert isinstance(rendered, str)
        self.feed(rendered)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._at = tag
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "table":
            self.tables.setdefault(self.headings[-1], [])
        if tag == "tr":
            self.tables[self.headings[-1]].append([])
        if tag in ("th", "td"):
            self.tables[self.headings[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._at = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._at in ("h1", "h2", "h3"):
            self.headings[-1] += data
        if self._at in ("th", "td"):
            self.tables[self.headings[-1]][-1][-1] += data


def metric(value: float | None, low: float | None, high: float | None, n: int, protocol: str) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}


def run(metrics: dict[str, Any], **facts: Any) -> Measured:
    told = {"data": "shop", "embedding": {"embedder": FINGERPRINT}, **facts}
    return Measured("20260101T000000Z-run-00000000", {"status": "ok", "facts": told, "parameters": {}}, metrics)


def data_card(**changed: Any) -> Card:
    text = "## What it is\n\nShelves.\n\n## Sensitive content\n\nNo people.\n\nNone at all.\n\n## Known faults\n\nMany."
    given: dict[str, Any] = {
        "name": "shop",
        "title": "Shop",
        "task": "recognition",
        "reader": "image_folder",
        "options": {},
        "splits": {"train": SplitCount(2640, 81), "val": SplitCount(None, 60)},
        "protocol": {},
        "licence": "MIT",
        "citation": "",
        "source": "a page",
        "archives": [],
        "known_issues": ["The list is wrong."],
        "layout": "",
        "text": text,
        "path": Path("shop.md"),
        "fingerprint": "d" * 64,
    }
    return Card(**given | changed)


def test_a_card_with_nothing_measured_says_so_and_how_to_measure() -> None:
    card = model_card("Embedder", EXPORTED)
    read = Reader(card)
    assert read.headings == ["Embedder", *SECTIONS]
    assert read.text.count("Not measured. This measures it:") == 6
    for notebook in ("03_evaluate_few_shot", "04_evaluate_reid", "05_stress_limits", "06_export_tensorrt"):
        assert f"python -m workbench run {notebook} -p " in read.text
    assert "Not stated: no data card of training data was given." in read.text
    assert "No gallery goes along." in read.text
    assert "No number above." in read.text
    assert "%" not in card, "a share that nobody measured"
    assert read.tables["Architecture"] == [
        ["what", "found"],
        ["trunk", "timm:resnet50.a1_in1k"],
        ["head", "linear"],
        ["pooling", "default"],
        ["precision", "fp16"],
        ["ONNX opset", "23"],
        ["exported with", "torch 2.15.0"],
    ]
    assert read.tables["Input and output"][1:] == [
        ["input", "input, float32 [B, 3, height, width], 0 to 255; normalised inside"],
        ["height x width", "224 x 192 px, sRGB, upright"],
        ["resize", "resized by the shorter side, then the centre cut out; bicubic, antialiased"],
        ["mean, std", "0.485, 0.456, 0.406; 0.229, 0.224, 0.225 (of 0 to 1)"],
        ["output", "embeddings, float32 [B, 512], rows of length 1"],
        ["similarity", "cosine, -1 to 1, larger is nearer"],
        ["crop", "0.875 of the shorter side"],
    ]
    assert read.tables["Weights"][1:] == [
        ["SHA-256 of the weights", "b" * 64],
        ["fingerprint of the embedder", FINGERPRINT],
        ["SHA-256 of model.onnx", "c" * 64],
    ]


def test_accuracy_by_references_has_interval_n_and_protocol_with_each_number() -> None:
    found = {
        "accuracy@1/shots=1/micro": metric(0.625, 0.5, 0.7504, 1480, "one reference; 5 draws"),
        "accuracy@1/shots=all/macro": metric(0.9, None, None, 296, "all references"),
        "accuracy@5/shots=1/micro/references=reference:packshot": metric(1.0, 1.0, 1.0, 1480, "one reference; 5 draws"),
        "chance/accuracy@1/shots=1/micro": metric(0.0125, 0.0125, 0.0125, 1480, "chance"),
        "colour_histogram/accuracy@1/shots=1/micro": metric(0.3, 0.2, 0.4, 1480, "colours"),
    }
    read = Reader(model_card("E", EXPORTED, recognition=run(found)))
    assert read.tables["Accuracy by references per class"] == [
        ["references per class", "accuracy", "references", "value", "95 % interval", "n", "protocol"],
        ["1", "@1, micro", "first set", "62.5 %", "[50.0, 75.0]", "1,480", "P1"],
        ["all", "@1, macro", "first set", "90.0 %", "not defined", "296", "P2"],
        ["1", "@5, micro", "reference:packshot", "100.0 %", "[100.0, 100.0]", "1,480", "P1"],
    ]
    assert "From the run 20260101T000000Z-run-00000000 on shop." in read.text
    assert "P1: one reference; 5 draws" in read.text
    assert "P2: all references" in read.text
    assert "P3" not in read.text
    assert "Measured for recognition of products" in read.text


def test_reid_limits_and_guidelines_come_from_their_runs() -> None:
    reid = run(
        {
            "mAP": metric(0.339933, 0.3, 0.38, 40, "step"),
            "rank-1": metric(0.4, 0.25, 0.55, 40, "step"),
            "rank-5": metric(0.95, 0.9, 1.0, 40, "step"),
            "rank-10": metric(1.0, 1.0, 1.0, 40, "step"),
            "chance/mAP": metric(0.05, 0.05, 0.05, 40, "chance"),
            "reranked/mAP": metric(0.5, 0.4, 0.6, 40, "re-ranked"),
        }
    )
    stress = run(
        {
            "accuracy@1/shots=1/micro": metric(0.8, 0.7, 0.9, 100, "clean"),
            "accuracy@1/shots=1/micro/blur=2.5": metric(0.4, 0.3, 0.5, 100, "blurred"),
            "raw/accuracy@1/shots=1/micro": metric(0.1, 0.0, 0.2, 100, "another trunk"),
            "difference/accuracy@1/shots=1/micro/blur=2.5": metric(0.1, 0.0, 0.2, 100, "a difference"),
        },
        embedding={},
        fingerprints={"tuned": FINGERPRINT, "raw": "e" * 64},
        guideline=["Keep *blur* under 1 px."],
        rule_in_words="loses at most 10 %",
    )
    read = Reader(model_card("E", EXPORTED, reid=reid, stress=stress))
    assert read.tables["Re-identification"] == [
        ["metric", "value", "95 % interval", "n", "protocol"],
        ["mAP", "34.0 %", "[30.0, 38.0]", "40", "P2"],
        ["rank-1", "40.0 %", "[25.0, 55.0]", "40", "P2"],
        ["rank-5", "95.0 %", "[90.0, 100.0]", "40", "P2"],
        ["rank-10", "100.0 %", "[100.0, 100.0]", "40", "P2"],
    ]
    assert read.tables["Measured limits"][1:] == [
        ["clean", "", "accuracy@1/shots=1/micro", "80.0 %", "[70.0, 90.0]", "100", "P1"],
        ["blur", "2.5", "accuracy@1/shots=1/micro", "40.0 %", "[30.0, 50.0]", "100", "P3"],
    ]
    assert "Keep *blur* under 1 px." in read.text
    assert "Rule: loses at most 10 %. Clean accuracy@1/shots=1/micro: 80.0 % [70.0, 90.0], n = 100, P1;" in read.text
    assert "another trunk" not in read.text


def test_the_acceptance_says_whether_all_limits_were_kept() -> None:
    columns = ["check", "value", "limit", "passed", "n", "words"]
    rows = [("cosine, min", 0.9999995, ">= 0.999999", True, 36, "of two"), ("median", 1.0, "", None, 36, "half|of")]
    kept = pd.DataFrame(rows, columns=columns).astype({"passed": "boolean"})
    read = Reader(model_card("E", EXPORTED, acceptance=kept, acceptance_protocol="packshots"))
    assert read.tables["Acceptance of the export"] == [
        ["check", "value", "limit", "kept", "n", "what it says"],
        ["cosine, min", "0.9999995", ">= 0.999999", "yes", "36", "of two"],
        ["median", "1", "none", "not asked", "36", "half|of"],
    ]
    assert "1 of 1 limits kept: accepted. P1." in read.text
    missed = pd.DataFrame([*rows, ("flips", float("nan"), "<= 0.1 %", False, 0, "none compared")], columns=columns)
    text = Reader(model_card("E", EXPORTED, acceptance=missed, acceptance_protocol="packshots")).text
    assert "1 of 2 limits kept: NOT accepted. P1." in text
    unasked = pd.DataFrame(rows[1:], columns=columns)
    assert "0 of 0 limits kept: NOT accepted" in model_card("E", EXPORTED, acceptance=unasked, acceptance_protocol="p")


def speed_frame(**changed: Any) -> pd.DataFrame:
    row: dict[str, Any] = {
        **{"device": "2 cores", "runtime": "openvino", "precision": "int8", "transfers": "", "batch": 8},
        **{"images_per_s": 1104.26, "p50_ms": 7.1, "p90_ms": 8.25, "p99_ms": 9.5, "num_calls": 60, "note": ""},
        **{"speedup": 4.5, "speedup_low": 4.0, "speedup_high": 5.0},
    }
    return pd.DataFrame([row | changed])


def test_speed_stands_by_device_and_batch() -> None:
    read = Reader(model_card("E", EXPORTED, speed=speed_frame(), speed_protocol="5 rounds"))
    assert read.tables["Speed"] == [
        ["device", "runtime", "precision", "batch", "images/s", "p50 / p90 / p99 (ms)", "ratio [range]", "n", "note"],
        ["2 cores", "openvino", "int8", "8", "1,104.3", "7.10 / 8.25 / 9.50", "4.50 [4.00, 5.00]", "60", ""],
    ]
    assert "P1: 5 rounds" in read.text
    absent = speed_frame(images_per_s=float("nan"), transfers="with", note="no GPU")
    row = Reader(model_card("E", EXPORTED, speed=absent, speed_protocol="5 rounds")).tables["Speed"][1]
    assert row == ["2 cores", "openvino, with transfers", "int8", "8", "not measured", "", "", "", "no GPU"]
    with pytest.raises(ValueError, match="p99_ms is missing"):
        model_card("E", EXPORTED, speed=speed_frame().drop(columns="p99_ms"), speed_protocol="5 rounds")


def test_the_gallery_brings_its_thresholds() -> None:
    share = metric(0.01, 0.0, 0.03, 200, "val:real")
    measured = {
        "version": 2,
        "accuracy": metric(0.75, 0.6, 0.9, 40, "val:real"),
        "false_accepts": [{"rate": 0.01, "threshold": 0.75, "false_accepts": share, "right_accepted": None}],
        "not_known": ["Little is known."],
    }
    manifest = {"num_references": 1200, "num_labels": 81, "version": 3, "about": {"measured": measured}}
    read = Reader(model_card("E", EXPORTED, gallery=manifest))
    assert read.tables["Gallery"][1:] == [
        ["right at the first answer", "", "75.0 %", "[60.0, 90.0]", "40", "P1"],
        ["unknown but accepted", "0.750000", "1.0 %", "[0.0, 3.0]", "200", "P1"],
    ]
    assert "1,200 references of 81 labels, version 3. Measured at version 2: measure again." in read.text
    assert "Not known: Little is known." in read.text
    bare = Reader(model_card("E", EXPORTED, gallery=manifest | {"about": {}})).text
    assert "Nothing was measured on it" in bare


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "n of at least 1, found n = 0"),
        ({"n": None}, "n of at least 1"),
        ({"protocol": " "}, "no protocol line"),
        ({"low": ...}, "lacks low"),
    ],
)
def test_no_number_without_n_interval_and_protocol(changed: dict[str, Any], message: str) -> None:
    given = {**metric(0.5, 0.4, 0.6, 10, "p"), **changed}
    given = {name: value for name, value in given.items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        model_card("E", EXPORTED, reid=run({"mAP": given}))


@pytest.mark.parametrize(
    "given", [{"speed": speed_frame()}, {"speed": speed_frame(num_calls=0), "speed_protocol": "p"}]
)
def test_no_speed_without_n_and_protocol(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no protocol line|n of at least 1"):
        model_card("E", EXPORTED, **given)


def test_numbers_of_another_embedder_are_refused() -> None:
    found = {"mAP": metric(0.5, 0.4, 0.6, 10, "p")}
    with pytest.raises(ValueError, match=r"measured another embedder \(fingerprint eeeeeeeeeeee\)"):
        model_card("E", EXPORTED, reid=run(found, embedding={"embedder": "e" * 64}))
    with pytest.raises(ValueError, match="does not say which embedder"):
        model_card("E", EXPORTED, reid=run(found, embedding={}))
    by_export = run(found, embedding={"embedder": "e" * 64})
    assert "50.0 %" in model_card("E", EXPORTED, reid=by_export, fingerprints=["e" * 64])


def test_data_cards_bring_splits_licences_and_ethics() -> None:
    trained = Measured("run-2", {"status": "ok", "facts": {}, "parameters": {"recipe": "retailklip", "depth": 20}}, {})
    read = Reader(model_card("E", EXPORTED, trained_on=[data_card()], training=trained, weights_licence="Apache-2.0"))
    assert read.tables["Shop"][1:] == [
        ["splits", "train: 2,640 images, 81 labels; val: any number of images, 60 labels"],
        ["source", "a page"],
        ["citation", "not stated"],
        ["data card", "d" * 64],
        ["known issue 1", "The list is wrong."],
        ["what", "found"],
        ["recipe", "retailklip"],
        ["depth", "20"],
    ]
    assert read.tables["Licence"][1:] == [["weights", "Apache-2.0"], ["data: Shop", "MIT"]]
    assert "Shop, sensitive content. No people." in read.text
    assert "Many." not in read.text


def test_text_from_outside_is_text() -> None:
    card = model_card(
        HOSTILE,
        {**EXPORTED, "embedder": {"trunk": HOSTILE, HOSTILE: "x"}},
        recognition=run(
            {f"accuracy@1/shots=1/micro/references={HOSTILE}": metric(0.5, 0.4, 0.6, 9, HOSTILE)}, data=HOSTILE
        ),
        measured_on=[data_card(title=HOSTILE, licence=HOSTILE, text=f"## Sensitive content\n\n{HOSTILE}")],
        acceptance=pd.DataFrame(
            [(HOSTILE, 1.0, HOSTILE, True, 3, HOSTILE)], columns=["check", "value", "limit", "passed", "n", "words"]
        ),
        acceptance_protocol=HOSTILE,
        speed=speed_frame(device=HOSTILE, note=HOSTILE),
        speed_protocol="p",
        weights_licence=HOSTILE,
        intended_use=HOSTILE,
        ethics=HOSTILE,
    )
    read = Reader(card)
    assert read.tags <= {
        "h1",
        "h2",
        "h3",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "strong",
        "pre",
        "code",
    }
    line = " ".join(HOSTILE.split())
    assert [heading.replace("\u200b", "") for heading in read.headings] == [
        line,
        *SECTIONS[:6],
        line,
        *SECTIONS[6:],
    ]
    shown = [cell.replace("\u200b", "") for rows in read.tables.values() for row in rows for cell in row]
    assert shown.count(line) == 10
    assert {len(row) for row in read.tables["Acceptance of the export"]} == {6}
    assert {len(row) for row in read.tables["Speed"]} == {9}
    assert "<img" not in card


@pytest.mark.parametrize(
    "text", ["- a", "+ a", "# a", "1. a", "2) a", "=== a", "---", ": a", "> a", "-1", "0.5", "3.", "+.5"]
)
def test_a_line_that_looks_like_a_block_stays_a_line(text: str) -> None:
    read = Reader(plain(text))
    assert read.text.strip() == text
    assert read.tags <= {"p"}


def test_numbers_stay_as_they_are() -> None:
    assert [plain(one) for one in (0.485, -1, "0.5 px", "sm80", "3 x 4")] == ["0.485", "-1", "0.5 px", "sm80", "3 x 4"]


def test_protocols_are_cited_in_the_order_of_their_use() -> None:
    protocols = Protocols()
    assert [protocols.cite(line) for line in ("b", "a", "b")] == ["P1", "P2", "P1"]
    doubted = share_cells(metric(0.25, 0.125, 0.5, 1000, "a") | {"doubt": "few"}, protocols)
    assert doubted[1] == "\\[12.5, 50.0\\] (not to be relied on: few)"
    assert share_cells(metric(0.25, 0.125, 0.5, 1000, "a"), protocols) == ["25.0 %", "\\[12.5, 50.0\\]", "1,000", "P2"]


def test_a_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="has 2 cells, found"):
        table(("a", "b"), [("1",)])


def test_runs_are_read_from_their_folders(tmp_path: Path) -> None:
    record = {
        **{"status": "ok", "notebook": "04", "parameters": {}, "started": "2026-01-01T00:00:00+00:00", "pid": 1},
        **{"process_started": 1.0, "facts": {"embedding": {"embedder": FINGERPRINT}}, "error": None},
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": {"mAP": metric(0.5, 0.4, 0.6, 10, "p")}}))
    found = read_measured(tmp_path)
    assert found.name == tmp_path.name
    assert "| mAP | 50.0 % |" in model_card("E", EXPORTED, reid=found)
    (tmp_path / "run.json").write_text(json.dumps({**record, "status": "failed"}))
    with pytest.raises(ValueError, match="is failed; a card takes its numbers from runs that are ok"):
        read_measured(tmp_path)


def test_runs_are_told_apart_by_their_notebook(tmp_path: Path) -> None:
    def written(name: str, notebook: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        record = {
            **{"status": "ok", "notebook": notebook, "parameters": {}, "started": "2026-01-01T00:00:00+00:00"},
            **{"pid": 1, "process_started": 1.0, "facts": {}, "error": None},
        }
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "metrics.json").write_text(json.dumps({"metrics": {}}))
        return folder

    shots, reid = written("a", "03_evaluate_few_shot"), written("b", "04_evaluate_reid")
    found = measured_by_kind(f" {shots}, {reid},")
    assert {kind: run.name for kind, run in found.items()} == {"recognition": "a", "reid": "b"}
    assert measured_by_kind("") == {}
    with pytest.raises(ValueError, match="a is there already"):
        measured_by_kind(f"{shots}, {written('c', '03_evaluate_few_shot')}")
    with pytest.raises(ValueError, match="a run of 09_benchmark_speed: a card takes 02_finetune_trunk"):
        measured_by_kind(str(written("d", "09_benchmark_speed")))


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    rows = [["a", "1.5 %", "[1, 2]", "4 of them", ""], ["b", "-2e-8", "[-3, 4]", "none", ""]]
    assert table(("x", "value", "interval", "words", "note"), rows).splitlines()[1] == (
        "| --- | ---: | ---: | --- | ---: |"
    )
    assert table(("x", "y"), []).splitlines() == ["| x | y |", "| --- | --- |"]


def test_cards_are_named_with_plus_and_a_misspelt_one_is_refused() -> None:
    named = named_cards("synthetic_products + grocery_store")
    assert [card.name for card in named] == ["synthetic_products", "grocery_store"]
    assert named_cards("") == named_cards(" + ") == []
    with pytest.raises(CardError, match="synthetic_products"):
        named_cards("grocery_store+synthetic_product")
