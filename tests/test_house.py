"""The walls of the house: layers, the lock, notebooks' anatomy and what never stands in the code."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STRIP_OPTIONS = [
    "--keep-id",
    "--extra-keys",
    "metadata.papermill cell.metadata.papermill metadata.widgets metadata.language_info.version",
]

# What each room may import; a room may always import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "runs": set(),
    "data": {"runs"},
    "models": {"runs", "data"},
    "training": {"runs", "data", "models"},
    "retrieval": {"runs", "data", "models"},
    "export": {"runs", "data", "models", "training", "retrieval"},
    "report": {"runs", "data"},
    "headless": {"runs", "report"},
    "benchmarks": {"runs", "data", "models", "training", "retrieval", "export"},
}
NUMPY_ONLY = {
    *("arrays", "few_shot", "few_shot_protocol", "draws", "votes", "sweep", "nearest_sweep", "tally"),
    *("mistakes", "stats", "intervals", "open_set"),
    *("reid", "reid_protocol", "reid_ranking", "reid_result", "reid_values", "similarities", "false_accepts"),
    *("open_set_protocol", "open_set_search", "open_set_measures", "held_out", "threshold_choice", "thresholds"),
    *("calibration", "reliability"),
    *("tracklets", "rerank", "k_reciprocal", "reid_metrics", "reference_quality", "label_errors", "conventions"),
    *("condensation", "leave_out", "leave_one_out", "leave_one_out_protocol"),
    *("paired_runs", "seed_groups", "spread", "zero_shot"),
    *("explore", "projection"),
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def _trespasses(room: str, path: Path) -> list[str]:
    wrong = []
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "workbench" and len(parts) > 1 and parts[1] not in MAY_IMPORT[room] | {room}:
            wrong.append(f"{path.name} imports {name}")
        if room == "headless" and name.startswith("workbench.report") and name != "workbench.report.html":
            wrong.append(f"{path.name} imports {name}")
        if room == "report" and parts[0] in {"torch", "timm", "open_clip"}:
            wrong.append(f"{path.name} imports {name}")
        if room == "retrieval" and path.stem in NUMPY_ONLY and parts[0] in {"torch", "faiss"}:
            wrong.append(f"{path.name} imports {name}")
    return wrong


def test_imports_point_down() -> None:
    rooms = {path.name for path in (ROOT / "workbench").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)
    wrong = [
        trespass
        for room in sorted(rooms)
        for path in sorted((ROOT / "workbench" / room).rglob("*.py"))
        for trespass in _trespasses(room, path)
    ]
    assert wrong == []


def test_the_layer_test_sees_a_trespass(tmp_path: Path) -> None:
    path = tmp_path / "few_shot.py"
    path.write_text("import torch\nfrom workbench.report import html\nfrom workbench.data import card\n")
    assert _trespasses("retrieval", path) == ["few_shot.py imports torch", "few_shot.py imports workbench.report"]


def test_no_module_hides_its_subject() -> None:
    names = {path.stem for path in (ROOT / "workbench").rglob("*.py")}
    assert names & {"utils", "helpers", "common", "manager", "engine", "misc"} == set()


def test_weights_are_loaded_without_running_code() -> None:
    for path in (ROOT / "workbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_pictures_are_decoded_in_one_place() -> None:
    """`data.images` opens files and applies their colour profiles; the others open what they have just drawn themselves."""
    opening = {
        path.relative_to(ROOT / "workbench").as_posix()
        for path in (ROOT / "workbench").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open"
    }
    assert opening == {"data/corruptions.py", "headless/tour.py"}


def _pins() -> dict[str, list[Version]]:
    pins: dict[str, list[Version]] = {}
    for name, pinned in re.findall(
        r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    ):
        pins.setdefault(canonicalize_name(name), []).append(Version(pinned))
    return pins


def test_lock_pyproject_and_environment_hold_together() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = _pins()
    for stated in project["project"]["dependencies"] + project["dependency-groups"]["test"]:
        wanted = Requirement(stated)
        locked = pins.get(canonicalize_name(wanted.name), [])
        assert any(version in wanted.specifier for version in locked), (
            f"{stated}: the lock has {locked}; run `make lock`"
        )
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(item for item in environment["dependencies"] if isinstance(item, str) and item.startswith("python="))
    assert (
        Version(python.removeprefix("python="))
        in Requirement(f"python{project['project']['requires-python']}").specifier
    )
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert pip == ["-r requirements.lock"]


def test_the_lock_has_hashes_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.search(r"://|--index|--find-links", text) is None


def test_installed_packages_are_the_locked_ones() -> None:

    for name in ("torch", "timm", "open-clip-torch", "pytorch-metric-learning", "faiss-gpu", "plotly", "papermill"):
        assert Version(version(name)).public in {pin.public for pin in _pins()[name]}


def _code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_anatomy(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = _code_cells(path)
    lines = sorted(len(cell.source.splitlines()) for cell in cells)
    assert 15 <= len(notebook.cells) <= 30
    assert lines[len(lines) // 2] <= 8
    assert lines[-1] <= 25
    assert sum(lines) <= 200
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    source = "\n".join(cell.source for cell in cells)
    assert re.search(r"^\s*[!%]", source, re.MULTILINE) is None
    assert re.search(r"""["']/(?!/)\w""", source) is None, "an absolute path"
    assert re.search(r"\bstart\(", source)
    assert re.search(r"\brun\.finish\(", cells[-1].source)
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.ClassDef | ast.Try)
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 5


def test_stripping_keeps_the_parameters_tag(tmp_path: Path) -> None:
    parameters = nbformat.v4.new_code_cell(
        "alpha: int = 1", metadata={"tags": ["parameters"], "papermill": {"status": "completed"}}
    )
    parameters.execution_count = 3
    shown = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="a picture of megabytes")])
    path = tmp_path / "dirty.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, shown], metadata={"papermill": {"x": 1}}), path)
    command = [sys.executable, "-m", "nbstripout", *STRIP_OPTIONS]
    assert subprocess.run([*command, "--verify", str(path)], check=False, capture_output=True).returncode == 1
    subprocess.run([*command, str(path)], check=True)
    assert subprocess.run([*command, "--verify", str(path)], check=False, capture_output=True).returncode == 0
    stripped = nbformat.read(path, as_version=4)
    assert stripped.cells[0].metadata == {"tags": ["parameters"]}
    assert stripped.cells[0].id == parameters.id
    assert stripped.cells[0].execution_count is None
    assert stripped.cells[1].outputs == []
    assert "papermill" not in stripped.metadata


def test_makefile_and_test_strip_alike() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f'{STRIP_OPTIONS[0]} {STRIP_OPTIONS[1]} "{STRIP_OPTIONS[2]}"' in makefile


def test_no_large_file_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    large = [
        name
        for name in listed.split("\0")
        if name and (ROOT / name).is_file() and (ROOT / name).stat().st_size > 500_000
    ]
    assert large == []
