"""The comparison of recipes with notebooks that answer at once: what is run, in which order, and what is chosen."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_notebooks import make_root, write_notebook

from workbench.__main__ import main
from workbench.headless import recipe_table
from workbench.headless.recipe_table import BASE_FOLD, RECIPE_FOLD, Plan, compare_recipes
from workbench.runs.folder import make_run_folder, write_record
from workbench.runs.parameters import ParameterError, check_parameters, read_parameters
from workbench.runs.record import new_record, read_record

PARAMETERS = """data: str = "a"
fold: str = ""
embedder: str = "none"
image_height: int | None = 8
image_width: int | None = 8
recipe: Literal["full_finetune", "scratch", "probe", "broken"] = "scratch"
learning_rate_trunk: float | None = None
learning_rate_head: float | None = None
num_steps: int | None = None
settings: str = ""
seed: int = 0"""
# probe is better at its own rates, scratch at ten times its own, full_finetune equal; broken never ends well.
ACCURACIES = {"full_finetune": (0.5, 0.5), "scratch": (0.4, 0.6), "probe": (0.7, 0.3)}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_root(tmp_path / "root")
    monkeypatch.setenv("WORKBENCH_ROOT", str(root))
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(root / "outputs"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    write_notebook(root, "02_finetune_trunk", "raise ValueError('no image')", parameters=PARAMETERS)
    write_notebook(root, "07_compare_runs", parameters='runs: str = ""')
    return root


def _run_at_once(runs: Sequence[tuple[Path, dict[str, object]]], jobs: int, *, out: Path, **_: object) -> list[Path]:
    """Folders and records as `run_many` leaves them, without a kernel."""
    folders = []
    for notebook, given in runs:
        values = check_parameters(read_parameters(notebook), given)
        folder = make_run_folder(out, notebook.stem)
        record = new_record(notebook) | {"parameters": values, "status": "ok", "seed": values.get("seed")}
        if (recipe := str(values.get("recipe"))) in ACCURACIES:
            accuracy = ACCURACIES[recipe]["rate_factor=10" in str(values["settings"])]
            record["facts"] = {"validation_accuracy": accuracy, "embedder_folder": str(folder / "embedder")}
        elif recipe == "broken":
            record["status"] = "failed"
        write_record(folder, record)
        folders.append(folder)
    return folders


def test_the_trunk_first_then_the_grid_then_the_other_seeds_then_the_comparison(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_table, "run_many", _run_at_once)
    lines: list[str] = []
    plan = Plan("mine", ("probe", "broken", "scratch", "full_finetune"), seeds=(4, 5), num_steps=7, base_steps=9)
    folders = compare_recipes(plan, jobs=2, say=lines.append)
    records = [read_record(folder) for folder in folders]
    assert len(records) == 1 + 4 * 2 + 3 + 1
    base, grid, later, compared = records[0], records[1:9], records[9:12], records[12]
    told = base["parameters"]
    assert (told["recipe"], told["fold"], told["embedder"], told["num_steps"]) == (
        "full_finetune",
        BASE_FOLD,
        "timm:test_resnet",
        9,
    )
    assert told["learning_rate_trunk"] == told["learning_rate_head"] == 4e-3
    trunk = base["facts"]["embedder_folder"]
    for record in grid + later:
        told = record["parameters"]
        assert (told["fold"], told["num_steps"], told["image_height"]) == (RECIPE_FOLD, 7, 96)
        assert told["embedder"] == ("timm:test_resnet" if told["recipe"] == "scratch" else trunk)
        assert told["learning_rate_trunk"] is None
    assert [record["parameters"]["seed"] for record in grid] == [4] * 8
    chosen = [
        (r["parameters"]["recipe"], r["parameters"]["settings"].split(", ")[1], r["parameters"]["seed"]) for r in later
    ]
    assert chosen == [
        ("probe", "rate_factor=1", 5),
        ("scratch", "rate_factor=10", 5),
        ("full_finetune", "rate_factor=1", 5),  # of equals the smaller
    ]
    assert compared["notebook"] == "07_compare_runs"
    kept = [folders[1], folders[6], folders[7], *folders[9:12]]
    assert compared["parameters"]["runs"] == ",".join(folder.name for folder in kept)
    assert "recipes: broken is left out: it failed at every rate" in lines
    assert "recipes: scratch at 10 times its rates: 60.0% on validation images" in lines

    # Killed and called again: what ended well is taken as it is, what failed and the comparison run once more.
    again = compare_recipes(plan, jobs=2, say=lines.append)
    assert [one for one, other in zip(again, folders, strict=True) if one != other] == [*again[3:5], again[12]]
    read = json.loads((folders[2] / "run.json").read_text())
    (folders[2] / "run.json").write_text(json.dumps(read | {"versions": {"torch": "another"}}))
    third = compare_recipes(plan, jobs=2, say=lines.append)
    assert third[2] not in folders


@pytest.mark.slow
def test_without_a_trunk_nothing_else_is_run(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "probe", "--data", "mine"]) == 1
    assert len(list((root / "outputs").glob("*/run.json"))) == 1
    assert "the trunk was not made, so that nothing can start from it" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan("mine", ()), "recipes wants at least one value"),
        (Plan("mine", ("probe", "probe")), "none twice; found probe, probe"),
        (Plan("mine", ("probe",), seeds=()), "seeds wants at least one"),
    ],
)
def test_a_plan_without_a_comparison_is_refused(root: Path, plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_recipes(plan)
    assert not list((root / "outputs").glob("*/run.json"))


def test_an_unknown_recipe_is_refused_before_the_trunk_is_trained(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ParameterError, match="recipe: wanted one of"):
        compare_recipes(Plan("mine", ("probe", "prob")))
    assert main(["recipes", "prob", "--data", "mine"]) == 2
    assert "found 'prob'" in capsys.readouterr().err
    assert not list((root / "outputs").glob("*/run.json"))
