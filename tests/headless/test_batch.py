"""Whole runs with real kernels: each has something that goes right or wrong, and its record must say which."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tiny_notebooks import make_root, write_notebook

from workbench.headless.batch import run_many, run_notebook
from workbench.headless.processes import end_processes, find_processes
from workbench.runs.folder import make_run_folder, write_last_record, write_record
from workbench.runs.metrics import read_metrics
from workbench.runs.parameters import ParameterError
from workbench.runs.record import new_record, read_record

LOG = "run.log({'accuracy@1': {'value': count / 10, 'low': 0, 'high': 1, 'n': 4, 'protocol': 'p'}}, mode=mode)"
# A data loader's worker that ignores the interrupt, in a session of its own, and whose kernel does not wait for it.
WORKER = """import subprocess, sys
code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(900)"
worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
worker.stdout.readline()
run.log(worker=worker.pid)"""
NOTEBOOKS: dict[str, list[str]] = {
    "fine": ["print('seen:', count)", LOG, "import sys\nsys.stderr.write('10 %\\r20 %\\r30 %\\n')"],
    "raises": [
        "import sys",
        "def load():\n    raise FileNotFoundError('no set <b>here</b>; put it there')\n\nload()",
        "1",
    ],
    "exits": ["raise SystemExit", "print('never')"],
    "dies": [WORKER, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "print('never')"],
    "leaves": [WORKER],
    "destroys": ["(run.folder / 'run.json').write_text('{')"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = make_root(tmp_path_factory.mktemp("a {folder} with 'odd' characters"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_ROOT", str(root))
        patch.setenv("JUPYTER_PATH", str(root / "kernels of somebody else"))
        yield root


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What the runs of `runs` said on the terminal."""
    return []


@pytest.fixture(scope="module")
def runs(root: Path, lines: list[str]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and record of each notebook by name, all run in one batch, three at a time."""
    paths = [write_notebook(root, name, *sources, finish=name != "exits") for name, sources in NOTEBOOKS.items()]
    paths.append(write_notebook(root, "unfinished", "1", finish=False))
    given = [{"count": "7"} if path.stem == "fine" else {} for path in paths]
    folders = run_many(list(zip(paths, given, strict=True)), 3, out=root / "out", deadline_s=300, say=lines.append)
    return {path.stem: (folder, read_record(folder)) for path, folder in zip(paths, folders, strict=True)}


Runs = dict[str, tuple[Path, dict[str, Any]]]


@pytest.mark.slow
def test_a_run_that_goes_well_is_ok_and_says_everything(root: Path, runs: Runs, lines: list[str]) -> None:
    folder, record = runs["fine"]
    assert (record["status"], record["error"], record["finished"]) == ("ok", None, True)
    assert record["parameters"] == {"data": "tiny", "count": 7, "mode": "good", "seed": 3}
    assert (record["path"], record["seed"], record["facts"]) == ("notebooks/fine.ipynb", 3, {"mode": "good"})
    assert sorted(record["timings"]["cells_s"]) == [str(number) for number in range(1, 9)]
    assert read_metrics(folder)["accuracy@1"]["value"] == 0.7
    files = [".lock", "metrics.json", "output.ipynb", "report.html", "run.json", "stdout.log"]
    assert sorted(path.name for path in folder.iterdir()) == files
    log = (folder / "stdout.log").read_text().splitlines()
    assert "seen: 7" in log
    assert "30 %" in log
    assert next(line for line in log if line.startswith("cell  5/8 ")).endswith(" s  print('seen:', count)")
    assert not any("\r" in line for line in log)
    label = f"[fine {folder.name[-8:]}]"
    assert f"{label} begins  count=7" in lines
    assert f"{label} seen: 7" in lines
    assert f"{label} {folder / 'report.html'}" in lines
    output = nbformat.read(folder / "output.ipynb", as_version=4)
    assert all(cell.execution_count for cell in output.cells if cell.cell_type == "code")
    assert output.metadata.kernelspec.name == "elsewhere"
    assert '<b>0.7</b> <span class="interval">[0, 1]</span>' in (root / "out" / "index.html").read_text()


@pytest.mark.slow
def test_a_notebook_that_raises_failed_and_names_its_cell(runs: Runs) -> None:
    folder, record = runs["raises"]
    error = record["error"]
    assert record["status"] == "failed"
    assert (error["type"], error["message"]) == ("FileNotFoundError", "no set <b>here</b>; put it there")
    assert error["cell"] == {"number": 5, "of": 7, "first_line": "def load():"}
    assert "raise FileNotFoundError('no set <b>here</b>; put it there')" in error["traceback"]
    assert "\x1b" not in error["traceback"]
    assert "FAILED  FileNotFoundError: no set <b>here</b>; put it there" in (folder / "stdout.log").read_text()
    assert (folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("exits", "failed", "Only 3 of 5 code cells were executed to their end."),
        ("unfinished", "failed", "Every cell ran, but none called `run.finish()`."),
        ("dies", "killed", "The kernel died while cell 5 of 7 ran"),
        ("leaves", "ok", None),
        ("destroys", "failed", "run.json cannot be read"),
    ],
)
def test_the_record_says_how_each_ended(runs: Runs, name: str, status: str, message: str | None) -> None:
    _, record = runs[name]
    assert record["status"] == status
    assert record["error"] is None if message is None else message in record["error"]["message"]


@pytest.mark.slow
def test_no_process_is_left_of_any_run(runs: Runs) -> None:
    for name, (folder, record) in runs.items():
        assert find_processes(folder) == [], name
        assert (name in ("dies", "leaves")) == ("worker" in record["facts"])


def test_nothing_starts_when_one_of_many_is_refused(root: Path) -> None:
    path = write_notebook(root, "checked", LOG)
    out = root / "refused"
    with pytest.raises(ParameterError) as error:
        run_many([(path, {}), (path, {"count": "99"}), (path, {"mode": "god"}), (path, {"cuont": 1})], 2, out=out)
    assert [line.split(":")[0] for line in str(error.value).splitlines()[:2]] == ["count", "mode"]
    assert "Did you mean 'count'?" in str(error.value)
    with pytest.raises(FileNotFoundError):
        run_notebook(root / "notebooks" / "absent.ipynb", {}, out=out)
    with pytest.raises(ValueError, match="deadline above 0 s"):
        run_notebook(path, {}, out=out, deadline_s=0)
    assert not out.exists()


def test_the_deadline_is_for_the_whole_run(root: Path) -> None:
    """Ended in whichever cell or before the first: how fast a kernel starts is not this test's matter."""
    path = write_notebook(root, "slow", "import time", "time.sleep(900)")
    folder = run_notebook(path, {}, out=root / "out", deadline_s=2.5)
    record = read_record(folder)
    assert record["status"] == "timeout"
    assert record["error"]["message"].startswith("The deadline of 2.5 s passed ")
    assert find_processes(folder) == []


def test_a_report_that_cannot_be_made_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no template")

    monkeypatch.setattr("workbench.report.html.write_report", broken)
    folder = run_notebook(write_notebook(root, "plain"), {}, out=root / "out")
    record = read_record(folder)
    assert (record["status"], record["report_error"]) == ("ok", "ValueError: no template")
    assert "not rendered, ValueError: no template" in capsys.readouterr().out


def test_orphans_that_ignore_the_interrupt_are_found_and_ended(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('on', flush=True); time.sleep(900)"
    starter = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True)"
    environment = {**os.environ, "WORKBENCH_RUN": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", starter], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        parent.wait()
        assert len(find_processes(tmp_path)) == 1
        assert end_processes(tmp_path, grace_s=0.2) == 1
    assert find_processes(tmp_path) == []
    assert end_processes(tmp_path) == 0


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = root / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"FULL DISK NOT TESTED: a small disk wants the right to mount ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


def fill(folder: Path) -> None:
    with (folder / "big").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(folder).free == 0


def test_the_last_record_of_a_full_disk_is_written_into_the_reserve(small_disk: Path) -> None:
    folder = make_run_folder(small_disk, "01_fill")
    record = new_record(Path("01_fill.ipynb"))
    write_record(folder, record)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        write_record(folder, record | {"status": "ok"})
    assert read_record(folder)["status"] == "running"
    assert write_last_record(folder, record | {"status": "failed", "facts": {"much": "x" * 100_000}}) is False
    written = read_record(folder)
    assert (written["status"], written["facts"], written["facts_left_out"]) == ("failed", {}, "the disk was full")
    fill(folder)
    with pytest.raises(OSError, match="No space left"):
        make_run_folder(small_disk, "02_fill")
    assert [path.name for path in small_disk.iterdir() if path.is_dir()] == [folder.name]


def test_a_run_that_fills_the_disk_failed_and_says_so(small_disk: Path, root: Path) -> None:
    source = (
        "with (run.folder / 'big').open('wb', buffering=0) as file:\n    while True:\n        file.write(b'x' * 4096)"
    )
    lines: list[str] = []
    path = write_notebook(root, "fills", source)
    (folder,) = run_many([(path, {})], 1, out=small_disk, deadline_s=300, say=lines.append)
    record = read_record(folder)
    assert record["status"] == "failed"
    assert "No space left on device" in record["error"]["message"]
    assert record["error"]["cell"]["number"] == 4
    assert record["parameters"]["data"] == "tiny"
    assert any("No space left on device" in line for line in lines)
