"""Run folders written by hand, so that what is said of them can be checked by eye."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.runs.comparison import (
    cost_table,
    differing_protocols,
    differing_settings,
    find_runs,
    load_runs,
    metrics_table,
    read_settings,
)
from workbench.runs.critical_look import critical_look
from workbench.runs.hits import Hits, save_hits

METRIC = "accuracy@1/shots=1/micro"
_PARAMETERS = {
    "data": "shop",
    "recipe": "scratch",
    "depth": None,
    "image_size": 96,
    "embedder": "timm:a",
    "smoke": False,
}


def make_run(outputs: Path, number: int, **changes: Any) -> Path:
    """A run folder; `changes` are parameters, or status, sweep, git, facts, value, protocol, seed, started."""
    folder = outputs / f"2026112{number}T101010Z-{changes.get('notebook', '02_finetune_trunk')}-0000000{number}"
    folder.mkdir(parents=True)
    given = {name: value for name, value in changes.items() if name in _PARAMETERS}
    seed = changes.get("seed", 0)
    parameters = {**_PARAMETERS, **given, "seed": seed}
    depth = parameters["depth"] or 10
    recipe = {"name": parameters["recipe"], "depth": depth, "augmentation": {"flip_share": 0.5}, "seed": seed}
    facts = {
        "recipe": recipe,
        "catalog": "c" * 64,
        "content": {"queries": "q" * 64},
        "training_images": f"{seed}{'a' * 63}",
        "validation_images": f"{seed}{'v' * 63}",
        "before": f"{seed}{'b' * 63}",
        "described": {"trunk": "timm:a", "embedding_dim": 64},
        "cost": {"seconds": 60.0, "images": 100, "images_per_s": 1.7, "peak_memory_mib": 512.0, "device": "cpu"},
    }
    record = {
        "status": changes.get("status", "ok"),
        "notebook": changes.get("notebook", "02_finetune_trunk"),
        "parameters": parameters,
        "started": f"2026-11-2{number}T10:10:10+00:00",
        "pid": 1,
        "process_started": 0.0,
        "facts": facts | changes.get("facts", {}),
        "error": None,
        "seed": seed,
        "git": changes.get("git", {"commit": "d" * 40, "dirty": False}),
        "versions": {"torch": "2"},
        "device": "cpu",
    }
    if "sweep" in changes:
        record["sweep"] = changes["sweep"]
    (folder / "run.json").write_text(json.dumps(record))
    one = {
        "value": changes.get("value", 0.5),
        "low": 0.4,
        "high": 0.9,
        "n": 2,
        "protocol": changes.get("protocol", "p"),
    }
    (folder / "metrics.json").write_text(json.dumps({"metrics": {METRIC: one, f"only/{number}": one}}))
    if changes.get("hits", True):
        save_hits(
            folder,
            {METRIC: Hits(np.array(["q1", "q2"], object), np.array(["x", "y"], object), np.eye(2, dtype=np.float32))},
        )
    return folder


def test_runs_are_found_by_name_part_pattern_and_path(tmp_path: Path) -> None:
    first, second, third = (make_run(tmp_path / "outputs", number) for number in (1, 2, 3))
    elsewhere = make_run(tmp_path / "other", 4)
    outputs = tmp_path / "outputs"
    assert find_runs(first.name, outputs) == [first]
    assert find_runs("00000003, 00000001", outputs) == [first, third]
    assert find_runs("2026112[23]*", outputs) == [second, third]
    assert find_runs(f"{elsewhere}, {first.name}, {first.name}", outputs) == [first, elsewhere]
    assert find_runs(str(tmp_path / "o*" / "*"), outputs) == [first, second, third, elsewhere]
    with pytest.raises(ValueError, match="no run is called 'nothing'"):
        find_runs("00000001, nothing", outputs)


def test_without_a_name_the_latest_sweep_is_meant_else_all_runs_of_the_notebook(tmp_path: Path) -> None:
    assert find_runs("", tmp_path / "nowhere") == []
    plain = make_run(tmp_path, 1)
    make_run(tmp_path, 2, notebook="03_evaluate_few_shot", sweep="s3")
    assert find_runs("", tmp_path) == [plain]
    make_run(tmp_path, 3, sweep="s1")
    late = [make_run(tmp_path, number, sweep="s2") for number in (4, 5)]
    make_run(tmp_path, 6)
    assert find_runs("", tmp_path) == late


def test_variants_leave_the_seed_out_and_are_named_by_what_differs(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path, 1, recipe="scratch", seed=0),
        make_run(tmp_path, 2, recipe="scratch", seed=1),
        make_run(tmp_path, 3, recipe="klip", depth=20, seed=0),
        make_run(tmp_path, 4, recipe="klip", depth=20, seed=0),  # the same again: the newest counts
        make_run(tmp_path, 5, status="failed"),
    ]
    runs, left_out = load_runs(folders)
    assert [(run.variant, run.seed, run.folder) for run in runs] == [
        ("recipe=scratch, depth=null", 0, folders[0]),
        ("recipe=scratch, depth=null", 1, folders[1]),
        ("recipe=klip, depth=20", 0, folders[3]),
    ]
    assert left_out["run"].tolist() == [folders[4].name, folders[2].name]
    assert left_out["reason"].tolist() == [
        "its status is failed",
        f"{folders[3].name} is newer and has the same settings and seed",
    ]
    settings = differing_settings(runs)
    # The parameter depth is the recipe's: what it says there is what held.
    assert settings.to_dict("list") == {
        "setting": ["recipe", "recipe.name", "recipe.depth"],
        "recipe=scratch, depth=null": ["scratch", "scratch", "10"],
        "recipe=klip, depth=20": ["klip", "klip", "20"],
    }
    assert cost_table(runs)["seconds"].tolist() == [60, 60, 60]


def test_a_run_with_a_broken_file_or_without_metrics_is_left_out(tmp_path: Path) -> None:
    good, broken, empty = (make_run(tmp_path, number, depth=number) for number in (1, 2, 3))
    (broken / "queries.parquet").write_text("no parquet")
    (empty / "metrics.json").unlink()
    runs, left_out = load_runs([good, broken, empty])
    assert [run.folder for run in runs] == [good]
    assert runs[0].variant == "02_finetune_trunk"
    assert left_out["run"].tolist() == [broken.name, empty.name]
    assert "queries.parquet cannot be read" in left_out["reason"][0]
    assert left_out["reason"][1] == "it logged no metric"


def test_a_long_setting_is_in_the_name_only_where_nothing_else_tells_runs_apart(tmp_path: Path) -> None:
    place = "/a/long/path/to/the/folder/of/an/embedder"
    told = [
        make_run(tmp_path, 1, recipe="scratch", embedder=place + "1"),
        make_run(tmp_path, 2, recipe="klip", embedder=place + "2"),
    ]
    assert [run.variant for run in load_runs(told)[0]] == ["recipe=scratch", "recipe=klip"]
    alike = [
        make_run(tmp_path, 3, recipe="klip", embedder=place + "3"),
        make_run(tmp_path, 4, recipe="klip", embedder=place + "4"),
    ]
    names = [run.variant for run in load_runs(alike)[0]]
    assert all(name.startswith("embedder=") for name in names)
    assert len(set(names)) == 2


def test_a_recipe_that_changed_under_the_same_parameters_is_another_variant(tmp_path: Path) -> None:
    changed = {"recipe": {"name": "scratch", "depth": 10, "augmentation": {"flip_share": 0.0}, "seed": 0}}
    runs, _ = load_runs([make_run(tmp_path, 1), make_run(tmp_path, 2, facts=changed)])
    assert [run.variant for run in runs] == ["02_finetune_trunk (00000001)", "02_finetune_trunk (00000002)"]
    assert differing_settings(runs)["setting"].tolist() == ["recipe.augmentation.flip_share"]


def test_settings_are_flat_and_without_seeds(tmp_path: Path) -> None:
    record = json.loads((make_run(tmp_path, 1) / "run.json").read_text())
    assert read_settings(record) == {
        "notebook": "02_finetune_trunk", "data": "shop", "recipe": "scratch", "image_size": 96, "embedder": "timm:a",
        "smoke": False, "recipe.name": "scratch", "recipe.depth": 10, "recipe.augmentation.flip_share": 0.5,
    }  # fmt: skip


def test_metrics_that_are_shared_and_protocols_that_differ(tmp_path: Path) -> None:
    runs, _ = load_runs([make_run(tmp_path, 1, value=0.25), make_run(tmp_path, 2, depth=20, protocol="another")])
    table = metrics_table(runs)
    assert table[["metric", "variant", "value", "protocol"]].to_numpy().tolist() == [
        [METRIC, "depth=null", 0.25, "p"],
        [METRIC, "depth=20", 0.5, "another"],
    ]
    assert differing_protocols(table).to_numpy().tolist() == [
        [METRIC, "depth=null", "p"],
        [METRIC, "depth=20", "another"],
    ]
    alike, _ = load_runs([make_run(tmp_path / "b", 3), make_run(tmp_path / "b", 4, depth=20)])
    assert differing_protocols(metrics_table(alike)).empty
    alone, _ = load_runs([make_run(tmp_path / "c", 5)])
    assert metrics_table(alone)["metric"].tolist() == [METRIC, "only/5"]
    assert metrics_table([]).empty
    assert differing_protocols(metrics_table([])).empty
    assert differing_settings([]).columns.tolist() == ["setting"]


def _verdicts(folders: list[Path]) -> dict[str, str]:
    table = critical_look(load_runs(folders)[0], METRIC)
    return dict(zip(table["question"], table["verdict"], strict=True))


def test_a_fair_comparison_is_the_same_in_everything_but_the_recipe(tmp_path: Path) -> None:
    grid = [(recipe, seed) for recipe in ("scratch", "klip") for seed in (0, 1, 2)]
    folders = [make_run(tmp_path, n, recipe=recipe, seed=seed) for n, (recipe, seed) in enumerate(grid, start=1)]
    verdicts = _verdicts(folders)
    special = {
        "Enough seeds, the same for all?": "enough",
        "Same code, all of it in a commit?": "clean",
        "Whole runs?": "yes",
    }
    assert {name: word for name, word in verdicts.items() if word != "same"} == special
    assert len(verdicts) == 18


def test_what_makes_a_comparison_unfair_is_named(tmp_path: Path) -> None:
    facts = {
        "catalog": "e" * 64, "content": {"queries": "e" * 64}, "training_images": "e" * 64, "validation_images": None,
        "described": {"trunk": "timm:b", "embedding_dim": 128}, "before": None,
        "cost": {"seconds": 70.0, "images": 200},
    }  # fmt: skip
    git = {"commit": "f" * 40, "dirty": True}
    other = make_run(
        tmp_path, 2, depth=20, image_size=128, seed=1, facts=facts, git=git, protocol="another", hits=False, smoke=True
    )
    verdicts = _verdicts([make_run(tmp_path, 1), other])
    assert verdicts == {
        "Same data set?": "same",
        "Same images and labels?": "differs",
        "Same pictures, byte for byte?": "differs",
        "Same training images?": "differs",
        "Same validation images?": "unknown",
        "Same queries?": "unknown",
        "Same protocol?": "differs",
        "Same trunk?": "differs",
        "Same starting weights?": "unknown",
        "Same embedding dimension?": "differs",
        "Same image size?": "compared on purpose",
        "Same number of images seen?": "differs",
        "Same device?": "same",
        "Same packages?": "same",
        "Same time to train (within 10 %)?": "differs",
        "Enough seeds, the same for all?": "uneven",
        "Same code, all of it in a commit?": "differs",
        "Whole runs?": "trial",
    }
    assert critical_look([]).empty


def test_too_few_seeds_and_a_dirty_checkout_are_said(tmp_path: Path) -> None:
    dirty = {"commit": "d" * 40, "dirty": True}
    verdicts = _verdicts([make_run(tmp_path, 1, git=dirty), make_run(tmp_path, 2, recipe="klip")])
    assert verdicts["Enough seeds, the same for all?"] == "too few"
    assert verdicts["Same code, all of it in a commit?"] == "dirty"
