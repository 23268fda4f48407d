"""Every notebook through the path that users take: `python -m workbench run`, and what its run folder then says."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.retrieval.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def run_notebook(notebook: str, out: Path, **parameters: object) -> tuple[subprocess.CompletedProcess[str], list[Path]]:
    """The finished command and the run folders in `out`."""
    command = [sys.executable, "-m", "workbench", "run", notebook, "--out", str(out), "--deadline", "900"]
    for name, value in parameters.items():
        command += ["-p", f"{name}={value}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    return done, sorted(path.parent for path in out.glob("*/run.json"))


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    record = json.loads((folder / "run.json").read_text())
    path = folder / "metrics.json"
    return record, json.loads(path.read_text())["metrics"] if path.is_file() else {}


def check_metrics(metrics: dict[str, Any]) -> None:
    assert metrics
    for name, metric in metrics.items():
        assert metric["low"] <= metric["value"] <= metric["high"], name
        assert metric["n"] > 0, name
        assert metric["protocol"], name


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook", [name for name in NOTEBOOKS if name[:2] not in ("07", "09", "10")]
)  # their own tests are below
def test_a_notebook_runs_on_its_defaults_thinned(notebook: str, tmp_path: Path) -> None:
    done, folders = run_notebook(notebook, tmp_path, smoke=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    assert record["status"] == "ok"
    assert record["parameters"]["smoke"] is True
    assert len(record["facts"]["catalog"]) == 64
    check_metrics(metrics)
    report = (folders[0] / "report.html").read_text()
    assert "Traceback" not in report
    assert len(report) > 100_000, "the report carries its figures"
    assert "report.html" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.photographs
def test_few_shot_on_photographs_states_untrained_histogram_and_chance_in_one_report(
    grocery_store_root: Path, tmp_path: Path
) -> None:
    done, folders = run_notebook(
        "03_evaluate_few_shot", tmp_path, data="grocery_store", data_root=grocery_store_root, image_size=64, draws=3
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, metrics = read_run(folders[0])
    check_metrics(metrics)
    packshots = "/references=reference:packshot"
    untrained, histogram = metrics["accuracy@1/shots=all/micro"], metrics["colour_histogram/accuracy@1/shots=all/micro"]
    chance = metrics["chance/accuracy@1/shots=all/micro"]
    assert chance["value"] == pytest.approx(1 / 81)
    assert untrained["n"] == histogram["n"] == 296
    # With 2640 photographs as references both are far above chance; with one packshot a class they lose most of it.
    assert untrained["low"] > 5 * chance["value"]
    assert histogram["low"] > 5 * chance["value"]
    assert metrics[f"accuracy@1/shots=1/micro{packshots}"]["value"] < untrained["value"]
    assert metrics[f"colour_histogram/accuracy@1/shots=1/micro{packshots}"]["high"] < histogram["low"]


def _check_stress(folder: Path, metrics: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """Every number three times (tuned, untuned, difference), three severities a kind, a sentence a kind; chance once."""
    check_metrics(metrics)
    chance = metrics.pop(f"chance/{next(iter(metrics))}")
    assert 0 < chance["value"] == chance["low"] < 1
    plain = [name for name in metrics if not name.startswith(("untuned/", "difference/"))]
    clean = plain[0]
    assert clean.startswith("accuracy@1/shots=") or clean == "mAP"
    assert len(plain) == 1 + 3 * len(kinds)
    assert list(metrics) == [prefix + name for prefix in ("", "untuned/", "difference/") for name in plain]
    for name in plain:
        difference = metrics[name]["value"] - metrics[f"untuned/{name}"]["value"]
        assert metrics[f"difference/{name}"]["value"] == pytest.approx(difference, abs=1e-9)
    facts = json.loads((folder / "run.json").read_text())["facts"]
    assert len(facts["guideline"]) == len(kinds)
    assert facts["fingerprints"]["tuned"] != facts["fingerprints"]["untuned"]
    report = (folder / "report.html").read_text()
    assert facts["rule_in_words"] in report


@pytest.mark.slow
def test_stress_limits_of_individuals(tmp_path: Path) -> None:
    kinds = ("monochrome", "visible")
    done, folders = run_notebook(
        "05_stress_limits", tmp_path, smoke=True, data="synthetic_identities", kinds=", ".join(kinds)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, metrics = read_run(folders[0])
    _check_stress(folders[0], metrics, kinds)


@pytest.mark.slow
def test_the_benchmark_compares_answers_and_measures_only_the_parts_asked_for(tmp_path: Path) -> None:
    done, folders = run_notebook(
        "09_benchmark_speed", tmp_path, smoke=True, repetitions=1, parts="reid, bootstrap, coverage"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    check_metrics(metrics)
    assert record["facts"]["parts"] == ["reid", "bootstrap", "coverage"]
    assert {name.split("/")[0] for name in metrics} == {"ratio", "coverage"}
    assert metrics["ratio/re-ID, well separated/matrix product"]["value"] == 1
    times = pd.read_csv(folders[0] / "benchmark.csv")
    assert set(times["task"]) == {"re-ID, well separated", "re-ID, poorly separated", "bootstrap"}
    assert times["agrees"].dropna().eq(True).all()
    assert times["agrees"].notna().sum() >= 17
    assert "Intervals that hold the truth" in (folders[0] / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.photographs
def test_stress_limits_on_photographs(grocery_store_root: Path, tmp_path: Path) -> None:
    done, folders = run_notebook(
        "05_stress_limits", tmp_path, smoke=True, data="grocery_store", data_root=grocery_store_root, kinds="size, jpeg"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, metrics = read_run(folders[0])
    _check_stress(folders[0], metrics, ("size", "jpeg"))


@pytest.mark.slow
def test_an_export_that_misses_a_limit_fails_and_leaves_no_bundle(tmp_path: Path) -> None:
    """96 queries of 12 labels cannot show that int8 loses less than a point: the paired interval is far wider."""
    done, folders = run_notebook(
        "06_export_tensorrt", tmp_path, smoke=True, precision="int8", runtimes="onnxruntime", bundles="triton"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    assert record["status"] == "failed"
    assert "AcceptanceError" in json.dumps(record["error"])
    check_metrics(metrics)
    assert "Moved most by onnxruntime" in (folders[0] / "report.html").read_text()
    assert not {"triton", "deepstream", "model.plan"} & {path.name for path in folders[0].iterdir()}
    assert metrics["onnxruntime/check/cosine_min"]["value"] < 1


@pytest.mark.slow
def test_an_exports_card_tells_what_the_parameters_say_and_measures_the_file_itself(tmp_path: Path) -> None:
    done, folders = run_notebook(
        "06_export_tensorrt", tmp_path, smoke=True, precision="fp16", runtimes="onnxruntime", bundles="triton_python",
        engines="", trained_on="synthetic_products", weights_licence="CC0, drawn at random", intended_use="To see that it runs.",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    card = (folders[0] / "triton_python" / "MODEL_CARD.md").read_text()
    assert "CC0, drawn at random" in card
    assert "To see that it runs" in card
    assert "fp16, accepted by onnxruntime" in card.splitlines()[0]
    speed = card.split("## Speed")[1].split("## ")[0]
    assert "onnxruntime fp16" in speed
    assert "int8" not in speed
    assert "2 threads" in speed
    assert "no data card of training data" not in card
    _, metrics = read_run(folders[0])
    assert metrics["onnxruntime/check/cosine_min"]["value"] >= 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bundles": "triton, deepstraem"}, "Did you mean deepstream"),
        ({"input_kind": "uint8"}, "set input_kind=raw"),
        ({"trained_on": "synthetic_product"}, "synthetic_products"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    parameters: dict[str, object], message: str, tmp_path: Path
) -> None:
    done, folders = run_notebook("06_export_tensorrt", tmp_path, smoke=True, **parameters)
    assert done.returncode == 1, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    assert message in record["error"]["message"]
    assert metrics == record["facts"] == {}
    assert not (folders[0] / "exported").exists()


@pytest.mark.slow
def test_a_built_gallery_keeps_what_was_measured_and_answers(tmp_path: Path) -> None:
    done, folders = run_notebook("10_build_gallery", tmp_path, smoke=True, embedder="timm:test_resnet", image_size=32)
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    check_metrics(metrics)
    assert {"open_set/AUROC/all", "calibration/Brier", "threshold/FAR=1%/known accepted right"} <= set(metrics)
    assert metrics["added=6/difference"]["low"] <= metrics["added=6/difference"]["value"]
    gallery = Gallery.load(folders[0] / "gallery")
    assert gallery.about["embedder"] == record["facts"]["embedding"]["embedder"]
    assert gallery.about["measured"]["by"] == "queries"
    # the calibration that is shown is the one that is saved, and a query is one answer
    num_asked = gallery.about["calibration"]["num_answers"]
    assert num_asked == gallery.about["measured"]["num_known"] == metrics["calibration/Brier"]["n"]
    assert gallery.about["calibration"]["note"] in (folders[0] / "report.html").read_text(encoding="utf-8")
    found = gallery.search_labels(gallery.embedding_ND, 1)
    assert found.label_QK[:, 0].tolist() == gallery.references["label"].tolist()


@pytest.mark.slow
def test_a_sweep_of_trainings_is_compared_on_the_same_queries(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench", "run", "notebooks/02_finetune_trunk.ipynb", "--out", str(tmp_path)]
    command += ["-p", "smoke=True", "-p", "num_steps=4", "-p", "settings=batch_size=8, num_workers=0"]
    command += ["--sweep", "depth=2,4", "--sweep", "seed=0,1", "--deadline", "900"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trained = [read_run(path.parent)[1] for path in sorted(tmp_path.glob("*/run.json"))]
    done, folders = run_notebook("07_compare_runs", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = [folder for folder in folders if "07_compare_runs" in folder.name]
    record, metrics = read_run(folder)
    check_metrics(metrics)
    facts, name = record["facts"], record["facts"]["headline"]
    assert len(facts["runs"]) == 4
    assert len(facts["catalog"]) == 64
    means = {f"{name}/depth={depth}" for depth in (2, 4)}
    assert set(metrics) == means | {f"difference/{name}/depth=2 less depth=4"}
    assert sum(metrics[one]["value"] for one in means) / 2 == pytest.approx(
        np.mean([one[name]["value"] for one in trained])
    )
    difference = metrics[f"{name}/depth=2"]["value"] - metrics[f"{name}/depth=4"]["value"]
    assert metrics[f"difference/{name}/depth=2 less depth=4"]["value"] == pytest.approx(difference, abs=1e-6)
    look = {row["question"]: row["verdict"] for row in facts["critical_look"]}
    assert look["Same queries?"] == look["Same protocol?"] == look["Same trunk?"] == "same"
    assert look["Whole runs?"] == "trial"
    report = (folder / "report.html").read_text()
    assert "Pairs, on the same queries" in report
    assert "What accuracy costs" in report


@pytest.mark.slow
def test_a_comparison_without_runs_says_which_command_makes_some(tmp_path: Path) -> None:
    done, folders = run_notebook("07_compare_runs", tmp_path, smoke=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    assert (record["status"], record["facts"]["runs"], metrics) == ("ok", [], {})
    report = (folders[0] / "report.html").read_text()
    assert "No run to compare" in report
    assert "--sweep recipe=" in report


def test_wrong_parameters_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    for parameters, message in (
        ({"shotz": "1"}, "shots"),
        ({"draws": "many"}, "draws"),
        ({"draws": 0}, "draws"),
        ({"resize": "stretch"}, "squash"),
    ):
        done, folders = run_notebook("03_evaluate_few_shot", tmp_path, **parameters)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert folders == []


@pytest.mark.slow
def test_what_goes_wrong_is_said_plainly_in_record_and_report(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    card = tmp_path / "my_shop.md"
    card.write_text(
        "---\ntitle: Mine\ntask: recognition\nreader: image_folder\nlicence: mine\nsource: my own camera\n"
        "layout: <class>/*.jpg\n---\nMine.\n"
    )
    faults: list[tuple[dict[str, object], str]] = [
        ({"data": "market1501", "data_root": tmp_path / "nowhere"}, "bounding_box_train"),
        ({"data": card, "data_root": tmp_path / "empty"}, "is empty. Wanted: one folder a class"),
        ({"embedder": "timm:resnet5O"}, "resnet50"),
        ({"reference_sets": "refrence"}, "Did you mean 'reference'"),
        ({"reference_sets": "query", "query_split": "query"}, "queries are among the images that are searched"),
    ]
    for number, (parameters, message) in enumerate(faults):
        done, folders = run_notebook("03_evaluate_few_shot", tmp_path / str(number), smoke=True, **parameters)
        assert done.returncode == 1, done.stdout + done.stderr
        record, _ = read_run(folders[0])
        assert record["status"] == "failed"
        assert message in record["error"]["message"]
        assert message.split("'")[0] in (folders[0] / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "size_px"), [("open_clip:ViT-S-32-alt", 64), ("timm:vit_small_patch14_dinov2", 42)])
def test_a_transformer_is_tuned_blockwise_and_then_evaluated(trunk: str, size_px: int, tmp_path: Path) -> None:
    done, folders = run_notebook(
        "02_finetune_trunk", tmp_path / "tune", smoke=True, embedder=trunk, recipe="retailklip", num_steps=4,
        image_height=size_px, image_width=size_px, depth=2, settings="batch_size=8, num_workers=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = read_run(folders[0])
    check_metrics(metrics)
    facts = record["facts"]
    assert facts["recipe"]["loss"] == "arcface"
    assert facts["last_step"] == 4
    assert facts["described"]["trunk"] == trunk
    report = (folders[0] / "report.html").read_text()
    assert "Learning rate of each block" in report

    done, folders = run_notebook(
        "03_evaluate_few_shot", tmp_path / "judge", smoke=True, embedder=facts["embedder_folder"]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record, judged = read_run(folders[0])
    assert record["facts"]["embedding"]["trunk"] == trunk
    check_metrics(judged)
    saved = json.loads((Path(facts["embedder_folder"]) / "config.json").read_text())
    assert record["facts"]["embedding"]["embedder"] == saved["fingerprint"] != facts["before"]


@pytest.mark.slow
def test_each_image_searches_all_the_others(tmp_path: Path) -> None:
    parameters = {"protocol": "leave_one_out", "query_split": "query", "embedder": "timm:test_resnet", "image_size": 32}
    done, folders = run_notebook("03_evaluate_few_shot", tmp_path, smoke=True, **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    _, metrics = read_run(folders[0])
    check_metrics(metrics)
    assert next(iter(metrics)) == "recall@1/micro"
    assert metrics["recall@1/micro"]["value"] < 1, "nobody finds itself"
    assert {"MAP@R/macro", "R-precision/micro", "colour_histogram/recall@10/micro", "chance/MAP@R/micro"} <= set(
        metrics
    )
    assert not any(name.startswith("accuracy@") for name in metrics)
    assert "each image searches all the others" in (folders[0] / "report.html").read_text()


@pytest.mark.slow
def test_a_class_with_one_image_is_kept_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, counts in (("reference", (1, 3)), ("query", (2, 2))):
        for label, count in zip(("007", "7"), counts, strict=True):
            folder = tmp_path / "shop" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                colour = (200, 30, 30) if label == "007" else (30, 30, 200)
                pixels = np.clip(np.array(colour) + rng.integers(-20, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    card = tmp_path / "shop.md"
    card.write_text(
        "---\ntitle: Shop\ntask: recognition\nreader: image_folder\nlicence: mine\nsource: drawn\nlayout: split/class\n"
        "options: {split_folders: {reference: reference, query: query}}\n"
        "protocol: {reference_sets: ['reference:real'], query_split: query, shots: [1, 2, all]}\n---\nShop.\n"
    )
    done, folders = run_notebook("03_evaluate_few_shot", tmp_path / "out", data=card, data_root=tmp_path / "shop")
    assert done.returncode == 0, done.stdout + done.stderr
    _, metrics = read_run(folders[0])
    assert metrics["colour_histogram/accuracy@1/shots=1/micro"]["value"] == 1
    assert metrics["chance/accuracy@1/shots=1/micro"]["value"] == 0.5
    assert metrics["accuracy@1/shots=2/micro"]["n"] == 4


@pytest.mark.nightly
@pytest.mark.parametrize(
    "notebook", ["01_audit_dataset", "03_evaluate_few_shot", "08_explore_gallery", "10_build_gallery"]
)
def test_a_set_of_one_class_is_shown_as_what_it_is(notebook: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("reference", "query"):
        (tmp_path / "set" / split / "cola").mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / split / "cola" / f"{number}.png")
    draft = [sys.executable, "-m", "workbench", "data", "draft", "set"]
    subprocess.run(draft, cwd=tmp_path, check=True, env={**os.environ, "WORKBENCH_ROOT": str(ROOT)})
    # with one label no threshold can be measured, and 08 wants one given
    given = {"threshold": -1} if notebook[:2] == "08" else {}
    done, _ = run_notebook(notebook, tmp_path / "runs", data=tmp_path / "set.md", data_root=tmp_path / "set", **given)
    assert done.returncode == 0, done.stdout + done.stderr


CARD = """---
title: Pictures of which one cannot be read
task: {task}
reader: {reader}
splits: {splits}
protocol: {protocol}
licence: made for a test
citation: none
source: drawn by the test
layout: as the test draws it
---
"""


def _draw_labels(folder: Path, place: Callable[[int, int], str], images_per_label: int, seed: int) -> None:
    """Ten labels of coarse patterns; each one's pictures differ by noise. The first picture of all is cut off."""
    for label in range(10):
        pattern = np.random.default_rng(label).integers(0, 256, (6, 4, 3))
        rng = np.random.default_rng([label, seed])
        for number in range(images_per_label):
            pixels = np.clip(pattern + rng.normal(0, 25, pattern.shape), 0, 255).astype(np.uint8)
            path = folder / place(label, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((48, 72)).save(path)
    first = folder / place(0, 0)
    first.write_bytes(first.read_bytes()[:-200])


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("notebook", "more"),
    [
        ("01_audit_dataset", {}),
        ("03_evaluate_few_shot", {"draws": 3}),
        ("04_evaluate_reid", {}),
        ("05_stress_limits", {"kinds": "jpeg", "smoke": False}),
        ("06_export_tensorrt", {}),
        ("08_explore_gallery", {}),
        ("10_build_gallery", {}),
    ],
)
def test_one_picture_that_cannot_be_read_ends_no_notebook(
    notebook: str, more: dict[str, object], tmp_path: Path
) -> None:
    root, is_reid = tmp_path / "set", notebook[:2] == "04"
    splits = {"train": 12, "query": 12, "gallery": 12} if is_reid else {"train": 12, "query": 12, "reference": 12}
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    for seed, (split, images_per_label) in enumerate(splits.items()):

        def place(label: int, number: int, split: str = split) -> str:
            if is_reid:
                camera = 1 + number % 2
                return f"{folders[split]}/{label + 1:04d}_c{camera}s1_{number:06d}_{split == 'gallery':02d}.jpg"
            return f"{split}/class {label}/{number:02d}.jpg"

        _draw_labels(root, place, images_per_label, seed)
    counts = "{" + ", ".join(f"{split}: {{images: null, labels: null}}" for split in splits) + "}"
    reader = "market1501"
    protocol = "{query_split: query, gallery_split: gallery, junk: same_id_same_camera}"
    if not is_reid:
        reader = "image_folder\noptions: {split_folders: {train: train, query: query, reference: reference}}"
        protocol = "{reference_sets: ['reference:real'], query_split: query, shots: [1, 2, all]}"
    task = "reid" if is_reid else "recognition"
    card = tmp_path / "set.md"
    card.write_text(CARD.format(task=task, reader=reader, splits=counts, protocol=protocol))
    done, runs = run_notebook(notebook, tmp_path / "runs", data=card, data_root=root, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    if notebook[:2] not in ("05", "06"):  # these leave it out without a list
        assert "truncated" in (runs[0] / "report.html").read_text()
