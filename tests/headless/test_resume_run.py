"""A run that did not end well goes on in its own folder, with what it had left there."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_notebooks import make_root, write_notebook

from workbench.headless.batch import resume_run, run_notebook
from workbench.runs.folder import make_run_folder, write_record
from workbench.runs.record import new_record, read_record

# Dies at its first attempt after it has left something behind; a second attempt finds that and ends well.
DIES_ONCE = """import os, signal
left = run.folder / "checkpoint"
if not left.exists():
    left.write_text(f"step 7 of {count}")
    os.kill(os.getpid(), signal.SIGKILL)
run.log(found=left.read_text())"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_ROOT", str(make_root(tmp_path / "root")))
    return tmp_path / "root"


@pytest.mark.slow
def test_a_killed_run_goes_on_in_its_folder_with_its_parameters(root: Path) -> None:
    notebook = write_notebook(root, "dies_once", DIES_ONCE)
    folder = run_notebook(notebook, {"count": 9}, out=root / "outputs")
    assert read_record(folder)["status"] == "killed"
    command = [sys.executable, "-m", "workbench", "resume", folder.name, "--out", str(root / "outputs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(folder)
    assert record["status"] == "ok"
    assert record["parameters"]["count"] == 9
    assert record["facts"]["found"] == "step 7 of 9"
    assert [attempt["status"] for attempt in record["earlier"]] == ["killed"]
    assert [path.parent.name for path in (root / "outputs").glob("*/run.json")] == [folder.name]

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "has ended well" in again.stderr


def test_what_cannot_be_resumed_is_refused(root: Path) -> None:
    notebook = write_notebook(root, "tiny")
    going_on = make_run_folder(root / "outputs", "tiny")
    write_record(going_on, new_record(notebook) | {"parameters": {"data": "tiny"}})
    with pytest.raises(ValueError, match="still goes on"):
        resume_run(going_on)
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        resume_run(root / "outputs")
    (going_on / "run.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        resume_run(going_on)
    command = [sys.executable, "-m", "workbench", "resume", "nothing", "--out", str(root / "outputs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no run 'nothing'" in done.stderr
