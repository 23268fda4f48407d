"""A run that did not end well goes on in its own folder, with what it had left there."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_notebooks import make_root, write_notebook

from workbench.headless.batch import resume_run, run_notebook
from workbench.runs.folder import load_record, make_run_folder, write_record
from workbench.runs.owner import FolderInUseError, hold
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
    write_record(going_on, new_record(notebook) | {"parameters": {"data": "tiny"}, "host": "another"})
    with pytest.raises(ValueError, match=r"runs on the host another, where .* --host-gone"):
        resume_run(going_on)
    with hold(going_on), pytest.raises(FolderInUseError, match="Another process works on"):
        resume_run(going_on, host_gone=True)
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        resume_run(root / "outputs")
    (going_on / "run.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        resume_run(going_on)
    command = [sys.executable, "-m", "workbench", "resume", "nothing", "--out", str(root / "outputs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "There is no run 'nothing'" in done.stderr


SLOW_ONCE = """import time
if not (run.folder / "go").exists():
    (run.folder / "go").touch()
    time.sleep(600)
run.log(attempt=2)"""


@pytest.mark.slow
def test_of_two_resumes_one_goes_on_and_a_run_of_a_dead_host_is_taken_over(root: Path) -> None:
    notebook = write_notebook(root, "slow_once", SLOW_ONCE)
    folder = run_notebook(notebook, {}, out=root / "outputs", deadline_s=60)
    assert read_record(folder)["status"] == "timeout"
    (folder / "go").unlink(missing_ok=True)
    command = [sys.executable, "-m", "workbench", "resume", folder.name, "--out", str(root / "outputs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        while not (folder / "go").exists():
            assert first.poll() is None
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "Another process works on" in second.stderr
        assert first.poll() is None, "the second has not ended the first one's kernel"
        first.kill()
    write_record(folder, load_record(folder) | {"host": "another", "status": "running"})
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, "--host-gone" in refused.stderr) == (2, True)
    taken = subprocess.run([*command, "--host-gone"], capture_output=True, text=True, check=False)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    record = read_record(folder)
    assert record["facts"]["attempt"] == 2
    assert [attempt["status"] for attempt in record["earlier"]] == ["timeout", "lost"]
