"""What the README tells its reader to type is taken: commands parse, notebooks are there, parameters are theirs."""

import fnmatch
import re
import shlex
from pathlib import Path

import pytest
import yaml

from workbench.__main__ import _build_parser, _split_pairs
from workbench.headless.sweeps import read_sweep
from workbench.runs.parameters import check_parameters, read_parameters

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
JOINED = re.sub(r"\\\n\s*", " ", README)
COMMANDS = [
    " ".join(line.split("  #")[0].split())
    for line in re.findall(r"(?:^|\s|`)(?:\.venv/bin/)?python -m workbench ([a-z][^`\n]*)", JOINED)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses_and_its_parameters_are_the_notebooks(command: str) -> None:
    options = _build_parser().parse_args(shlex.split(command))
    if command.startswith("run ") and options.notebook != "NAME":
        declared = read_parameters(ROOT / "notebooks" / f"{Path(options.notebook).stem}.ipynb")
        swept = _split_pairs(options.sweep, "--sweep")
        points = {name: read_sweep(name, values, declared) for name, values in swept.items()}
        for number in range(max(map(len, points.values()), default=1)):
            point = {name: values[number % len(values)] for name, values in points.items()}
            check_parameters(declared, {**_split_pairs(options.parameter, "-p"), **point})


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 15


def test_every_notebook_has_its_question() -> None:
    listed = re.findall(r"^\| `(\d\d_\w+)` \|", README, flags=re.MULTILINE)
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_example_for_ci_is_a_workflow_that_keeps_its_reports() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    steps = yaml.safe_load(text)["jobs"]["sweep"]["steps"]
    assert steps[-1]["uses"].startswith("actions/upload-artifact@")
    assert steps[-1]["if"] == "always()"
    kept, *left_out = steps[-1]["with"]["path"].split()
    assert kept == "outputs/"
    assert all(pattern.startswith("!outputs/") for pattern in left_out)
    for path, is_left_out in {
        "outputs/index.html": False,
        "outputs/20261121T204516Z-x-1/report.html": False,
        "outputs/cache/embeddings/0f/part.npy": True,
        "outputs/20261121T204516Z-x-1/training/checkpoint_00000100_0123456789abcdef.pt": True,
    }.items():
        assert any(fnmatch.fnmatch(path, pattern[1:]) for pattern in left_out) == is_left_out, path


def test_the_pictures_of_the_tour_are_there_and_small() -> None:
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    for name in named:
        assert (ROOT / name).stat().st_size < 200_000
    assert {Path(name).name for name in named} == {path.name for path in (ROOT / ".github" / "tour").glob("*.webp")}
