"""`recognise` and `gallery` as people use them: exit codes, what goes to which stream, files whole or not at all."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.__main__ import main
from workbench.models.embedder import build_embedder, load_embedder
from workbench.retrieval import gallery_build
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.gallery import Gallery

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
LABELS = ["00012345678905", "12345678905", '=1+1,"x"', "<img src=x onerror=alert(1)>"]
CARD = """---
title: Shop
task: recognition
reader: image_folder
licence: own
source: drawn
layout: any
options: {split_folders: {reference: ref, query: shelf}}
protocol: {reference_sets: ["reference:real"], query_split: query}
---
"""


def draw(path: Path, colour: np.ndarray, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-40, 40, (48, 48, 3))
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card with four products (5 references, 2 queries each), two embedders, and the gallery `gallery`, made by `mine`."""
    root = tmp_path_factory.mktemp("shop")
    colours = np.random.default_rng(0).integers(30, 220, (len(LABELS), 3))
    for place, label in enumerate(LABELS):
        for view in range(7):
            folder = "ref" if view < 5 else "shelf"
            draw(root / "data" / "shop" / folder / label / f"{view}.png", colours[place], 10 * place + view)
    (root / "shop.md").write_text(CARD)
    for name, seed in (("mine", 1), ("other", 2)):
        build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=seed).save(root / name)
    arguments = [
        "build",
        "--embedder",
        str(root / "mine"),
        "--data",
        str(root / "shop.md"),
        "--data-root",
        str(root / "data"),
    ]
    assert main(["gallery", *arguments, "--device", "cpu", "--out", str(root / "gallery")]) == 0
    return root


def test_a_gallery_that_another_process_built_meanwhile_stays(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = Gallery.load(shop / "gallery")
    monkeypatch.setattr(gallery_build, "measure_gallery", lambda *_: theirs.save(tmp_path / "g"))
    found = ["--data", str(shop / "shop.md"), "--data-root", str(shop / "data"), "--device", "cpu"]
    assert main(["gallery", "build", "--embedder", str(shop / "other"), *found, "--out", str(tmp_path / "g")]) == 2
    assert "Another process built a gallery" in capsys.readouterr().err
    assert Gallery.load(tmp_path / "g").about["embedder"] == theirs.about["embedder"]


def recognise(shop: Path, *images: str | Path, embedder: str = "mine", gallery: str = "gallery") -> list[str]:
    command = ["recognise", "--embedder", str(shop / embedder), "--gallery", str(shop / gallery), "--device", "cpu"]
    return [*command, *map(str, images)]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_answers_are_those_of_the_gallery_itself(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = recognise(shop, shop / "shop.md", "--data-root", shop / "data", "--split", "query")
    assert main([*command, "--top", "2", "--false-accepts", "0.5"]) == 0
    out, err = capfd.readouterr()
    rows = rows_of(out)
    from workbench.data.catalog import open_catalog

    queries = open_catalog(str(shop / "shop.md"), shop / "data").select(split="query")
    embedded = embed_catalog(load_embedder(shop / "mine"), queries, device="cpu", progress=None)
    gallery = Gallery.load(shop / "gallery")
    expected = gallery.search_labels(embedded.embedding_ND, 2)
    threshold = {row["rate"]: row["threshold"] for row in gallery.about["measured"]["false_accepts"]}[0.5]
    assert [row["path"] for row in rows] == queries.frame["path"].tolist()
    for row, labels, similarities in zip(rows, expected.label_QK, expected.similarity_QK, strict=True):
        assert [row["label_1"], row["label_2"]] == labels.tolist()
        assert [float(row["similarity_1"]), float(row["similarity_2"])] == pytest.approx(
            similarities.tolist(), abs=1e-6
        )
        assert row["decision"] == (labels[0] if float(row["similarity_1"]) > threshold else "unknown")
        assert 0 <= float(row["probability"]) <= 1
    assert {row["label_1"] for row in rows} <= set(LABELS)
    assert f"threshold {threshold:.6g}: 0.5 false accepts" in err
    assert "8 asked: " in err


def test_a_gallery_says_who_made_it_from_what_and_what_was_measured(
    shop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gallery = Gallery.load(shop / "gallery")
    assert gallery.about["embedder"] == load_embedder(shop / "mine").fingerprint()
    assert gallery.about["protocol"]["split"] == "reference"
    assert sorted(gallery.labels) == sorted(LABELS)
    assert gallery.references["name"][0] == f"ref/{gallery.references['label'][0]}/0.png"
    assert main(["gallery", "show", "--gallery", str(shop / "gallery")]) == 0
    out = capfd.readouterr().out
    assert out.startswith("20 references, 4 labels, version 1\nembedder: timm:test_resnet, identity head, width 96")
    assert "20 references, each asked without its own image" in out
    assert "not known: False accepts of 1 % cannot be told from 20 queries (the smallest rate is 0.5)" in out


def test_a_gallery_is_not_measured_with_its_own_pictures(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embedder = ["--embedder", str(shop / "mine"), "--device", "cpu"]
    data = ["--data", str(shop / "shop.md"), "--data-root", str(shop / "data"), "--queries", "reference"]
    for command in (["build", "--out", str(tmp_path / "new")], ["measure", "--gallery", str(shop / "gallery")]):
        assert main(["gallery", *command, *embedder, *data]) == 2
        err = capfd.readouterr().err
        assert "20 of 20 queries are among the images that are searched" in err
        assert "leave --queries out" in err
    assert not (tmp_path / "new").exists()


def test_the_three_formats_hold_the_same_and_a_bad_picture_ends_with_1(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'line\nbreak, "quoted"'
    draw(folder / "b.png", np.array([200, 40, 40]), 5)
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (folder / "c.jpg").touch()
    (folder / "notes.txt").touch()
    tables = {}
    for suffix in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"answers{suffix}"
        out.write_text("what was there before")
        assert main([*recognise(shop, folder), "--out", str(out), "--threshold", "-1"]) == 1
        printed, err = capfd.readouterr()
        assert printed == ""
        assert "2 of 3 have no answer; the column error says why" in err
        assert "1 files without a picture's suffix left out: notes.txt" in err
    tables["csv"] = pd.read_csv(tmp_path / "answers.csv", dtype={"decision": "str", "label_1": "str"}, na_values=[""])
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    tables["jsonl"] = pd.DataFrame([json.loads(line) for line in lines])
    tables["parquet"] = pd.read_parquet(tmp_path / "answers.parquet")
    for name, table in tables.items():
        assert table["path"].tolist() == [str(folder / name) for name in ("a.jpg", "b.png", "c.jpg")], name
        assert table["error"].isna().tolist() == [False, True, False]
        assert table["error"][2] == "empty file (0 bytes)"
        assert table["decision"].isna().tolist() == [True, False, True]
        assert table["label_1"][1] == tables["csv"]["label_1"][1]
        assert table["similarity_1"][1] == tables["csv"]["similarity_1"][1]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        *("answers.csv", "answers.jsonl", "answers.parquet"),
    ]


def test_boxes_of_a_table_are_answered_row_for_row(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shelf = Image.new("RGB", (200, 100), "white")
    for place, label in enumerate(LABELS[:2]):
        shelf.paste(Image.open(shop / "data" / "shop" / "ref" / label / "0.png"), (20 + 80 * place, 30))
    shelf.save(tmp_path / "shelf.png")
    lines = [
        "path,x,y,width,height",
        "shelf.png,100,30,48,48",
        "shelf.png,20,30,48,48",
        "shelf.png,500,0,5,5",
        "shelf.png,,,,",
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    assert main([*recognise(shop, tmp_path / "boxes.csv"), "--threshold", "0.99999", "--top", "1"]) == 1
    rows = rows_of(capfd.readouterr().out)
    assert [row["decision"] for row in rows][:3] == [LABELS[1], LABELS[0], ""]
    assert [row["x"] for row in rows] == ["100.0", "20.0", "500.0", ""]
    assert rows[2]["error"] == "the box lies outside the picture of 200 x 100 px"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--embedder", "other"], "did not make the gallery"),
        (["--gallery", "nowhere"], "nowhere is no gallery"),
        (["--out", "answers.xlsx"], "found 'answers.xlsx'"),
        (["--false-accepts", "0.01"], "cannot be told from 20 queries; the smallest that was measured is 0.5"),
        (["--threshold", "2"], "from -1 to 1"),
        (["--threshold", "0.5", "--false-accepts", "0.1"], "not allowed with"),
        (["--top", "0"], "wanted a number above 0"),
        (["--unknown", LABELS[0]], "could not be told from the decision"),
        (["nothing_there.jpg"], "There is no file, folder, table or data card 'nothing_there.jpg'"),
        (["empty"], "holds no picture"),
    ],
)
def test_what_is_refused_exits_with_2_and_writes_nothing(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    monkeypatch.chdir(shop)
    (shop / "empty").mkdir(exist_ok=True)
    picture = next((shop / "data").rglob("0.png"))
    try:
        code = main([*recognise(shop, picture), *change])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert message in err
    assert not (shop / "answers.xlsx").exists()


def test_products_come_and_go_without_training(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine = ["--embedder", str(shop / "mine"), "--gallery", str(tmp_path / "g"), "--device", "cpu"]
    Gallery.load(shop / "gallery").save(tmp_path / "g")
    for view in range(3):
        draw(tmp_path / "new" / f"{view}.png", np.array([250, 250, 5]), view)
    assert main(["gallery", "add", *mine, "--label", "0099", "--comment", "delivered", str(tmp_path / "new")]) == 0
    gallery = Gallery.load(tmp_path / "g")
    assert "0099" in gallery.labels
    assert gallery.about["measured"]["version"] == gallery.version == 2
    assert gallery.about["measured"]["num_known"] == 23
    assert gallery.history["comment"].tolist() == [f"built from {shop / 'shop.md'}", "delivered"]
    capfd.readouterr()
    command = recognise(shop, tmp_path / "new" / "1.png", "--threshold", "0.9", "--top", "1")
    assert main([*command, "--gallery", str(tmp_path / "g")]) == 0
    assert rows_of(capfd.readouterr().out)[0]["decision"] == "0099"
    (tmp_path / "new" / "z.png").write_bytes(b"broken")
    assert main(["gallery", "add", *mine, "--label", "0100", str(tmp_path / "new")]) == 2
    assert "1 of 4 pictures cannot be used, so that nothing was added" in capfd.readouterr().err
    assert main(["gallery", "add", *mine, str(tmp_path / "new")]) == 2
    assert "4 pictures have no label" in capfd.readouterr().err
    other = ["--embedder", str(shop / "other"), *mine[2:]]
    assert main(["gallery", "add", *other, "--label", "x", str(tmp_path / "new" / "0.png")]) == 2
    assert "did not make the gallery" in capfd.readouterr().err
    assert main(["gallery", "remove", "--gallery", str(tmp_path / "g"), "0099", "099"]) == 2
    assert "no label '099'" in capfd.readouterr().err
    assert Gallery.load(tmp_path / "g").version == 2
    assert main(["gallery", "remove", "--gallery", str(tmp_path / "g"), "0099", LABELS[2]]) == 0
    assert sorted(Gallery.load(tmp_path / "g").labels) == sorted([LABELS[0], LABELS[1], LABELS[3]])
    assert main(["gallery", "build", *mine[:2], "--data", str(shop / "shop.md"), "--out", str(tmp_path / "g")]) == 2
    assert "exists already" in capfd.readouterr().err


def test_queries_of_the_set_can_measure_a_gallery(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Gallery.load(shop / "gallery").save(tmp_path / "g")
    given = ["--embedder", str(shop / "mine"), "--gallery", str(tmp_path / "g"), "--device", "cpu"]
    queries = ["--data", str(shop / "shop.md"), "--data-root", str(shop / "data"), "--queries", "query"]
    assert main(["gallery", "measure", *given, *queries]) == 0
    assert "measured: 8 queries (query of" in capfd.readouterr().out
    gallery = Gallery.load(tmp_path / "g")
    assert (gallery.version, gallery.about["measured"]["by"]) == (1, "queries")
    assert main(["gallery", "measure", *given, *queries[:2]]) == 2
    assert "give --data NAME --queries" in capfd.readouterr().err
    assert main(["gallery", "remove", "--gallery", str(tmp_path / "g"), LABELS[0]]) == 0
    out, err = capfd.readouterr()
    assert "thresholds and probabilities are still those of the gallery before" in err
    assert "(at version 1: measure again)" in out


@pytest.mark.slow
def test_the_real_command_in_a_plain_locale_and_into_a_pipe_that_closes(shop: Path, tmp_path: Path) -> None:
    picture = tmp_path / "süß.png"
    draw(picture, np.array([10, 200, 30]), 1)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workbench", *recognise(shop, picture, "--threshold", "-1")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment}
    with subprocess.Popen(command, **pipes) as read, subprocess.Popen(command, **pipes) as closed:  # type: ignore[call-overload]
        closed.stdout.close()  # as `| head -0` does
        complaint = closed.stderr.read()
        out, _ = read.communicate()
    assert (read.returncode, closed.returncode) == (0, 0)
    assert rows_of(out.decode("utf-8"))[0]["path"] == str(picture)
    assert b"Traceback" not in complaint
    assert b"Broken pipe" not in complaint
