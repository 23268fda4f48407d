"""The record of a run in an interactive kernel, and what the records of dead or damaged runs read as."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from workbench.runs.folder import load_record, make_run_folder, write_record
from workbench.runs.metrics import read_metrics
from workbench.runs.owner import FolderInUseError, hold
from workbench.runs.parameters import ParameterError
from workbench.runs.provenance import describe_code
from workbench.runs.record import Run, list_runs, new_record, read_record, start

PARAMETERS = "count: int = 2  # 1..9\nname: str = 'a'\nseed: int | None = 7"
GIVEN: dict[str, object] = {"count": 3, "name": "b", "seed": 7}


@dataclass
class Number:
    value: float
    low: float
    high: float
    n: int
    protocol: str


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data_cards", "notebooks"):
        (tmp_path / name).mkdir()
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "07_count.ipynb")
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("WORKBENCH_RUN", raising=False)
    return tmp_path


@pytest.fixture
def shell(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(root / "ipython"))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("from workbench.runs.record import start")
    shell.run_cell(PARAMETERS)
    yield shell
    InteractiveShell.clear_instance()


def test_start_log_and_finish_write_what_they_know(root: Path) -> None:
    run = start("07_count", GIVEN)
    assert run.parameters == GIVEN
    assert run.folder.parent == root / "outputs"
    record = read_record(run.folder)
    assert (record["status"], record["notebook"], record["path"]) == ("running", "07_count", "notebooks/07_count.ipynb")
    assert (record["parameters"], record["seed"], record["git"]) == (GIVEN, 7, None)
    assert record["versions"]["numpy"] == np.__version__
    run.log({"b": Number(0.5, 0.25, 0.75, 4, "p")}, images=np.int64(3), where=Path("x/y"), sizes=np.array([1.5, 2]))
    run.log({"a": {"value": 1, "low": float("nan"), "high": None, "n": 2, "protocol": "q"}}, images=4)
    run.log({"b": Number(0.125, 0.0, 0.25, 8, "p")})
    assert read_metrics(run.folder) == {
        "b": {"value": 0.125, "low": 0.0, "high": 0.25, "n": 8, "protocol": "p"},
        "a": {"value": 1, "low": None, "high": None, "n": 2, "protocol": "q"},
    }
    assert list(read_metrics(run.folder)) == ["b", "a"]
    number = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 3, "protocol": "p"}
    run.log({"sure": number | {"doubt": ""}, "unsure": number | {"doubt": "few labels"}})
    assert read_metrics(run.folder)["sure"] == number
    assert read_metrics(run.folder)["unsure"] == number | {"doubt": "few labels"}
    run.finish()
    record = read_record(run.folder)
    assert (record["status"], record["error"], record["finished"]) == ("ok", None, True)
    assert record["facts"] == {"images": 4, "where": "x/y", "sizes": [1.5, 2.0]}
    assert record["seconds"] >= 0
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "metrics.json", "run.json"]


def test_a_metric_that_is_not_whole_is_refused_and_nothing_is_written(root: Path) -> None:
    run = start("07_count", GIVEN)
    with pytest.raises(ValueError, match="'half': wanted value, low, high, n, protocol, found value, n"):
        run.log({"whole": Number(1, 1, 1, 1, "p"), "half": {"value": 1, "n": 2}})
    with pytest.raises(ValueError, match="infinite"):
        run.log({"endless": Number(float("inf"), 1, 1, 1, "p")})
    with pytest.raises(ValueError, match="A type cannot be logged"):
        run.log(kind=Number)
    assert read_metrics(run.folder) == {}
    assert read_record(run.folder)["facts"] == {}
    run.finish()


def test_start_checks_the_namespace_and_makes_no_folder_when_it_refuses(root: Path) -> None:
    with pytest.raises(ParameterError, match="count: wanted int, found '3'"):
        start("07_count", GIVEN | {"count": "3"})
    with pytest.raises(ParameterError, match="name: not set; run the parameters cell"):
        start("07_count", {"count": 3, "seed": None})
    with pytest.raises(FileNotFoundError, match="There is no notebook"):
        start("08_count", GIVEN)
    assert not (root / "outputs").exists()


def test_the_seed_makes_random_numbers_repeat(root: Path) -> None:
    drawn = []
    for seed in (7, 7, 8):
        run = start("07_count", GIVEN | {"seed": seed})
        drawn.append((random.random(), float(np.random.random_sample())))  # noqa: NPY002
        assert {"random", "numpy"} <= set(read_record(run.folder)["seeded"])
        run.finish()
    assert drawn[0] == drawn[1] != drawn[2]
    run = start("07_count", GIVEN | {"seed": None})
    assert read_record(run.folder)["seeded"] == []
    run.finish()


def test_a_cell_that_raises_fails_the_run_until_it_is_put_right(shell: InteractiveShell) -> None:
    shell.run_cell("run = start('07_count', globals())")
    run: Run = shell.user_ns["run"]
    shell.run_cell("\n\nbroken = 1 / 0\n")
    record = read_record(run.folder)
    assert record["status"] == "failed"
    assert (record["error"]["type"], record["error"]["message"]) == ("ZeroDivisionError", "division by zero")
    assert record["error"]["cell"]["first_line"] == "broken = 1 / 0"
    assert "ZeroDivisionError: division by zero" in record["error"]["traceback"]
    shell.run_cell("1 +")
    assert read_record(run.folder)["error"]["type"] == "SyntaxError"
    shell.run_cell("run.log(images=1)")
    assert read_record(run.folder)["status"] == "failed"
    shell.run_cell("run.finish()")
    record = read_record(run.folder)
    assert (record["status"], record["error"], record["earlier_error"]["type"]) == ("ok", None, "SyntaxError")
    shell.run_cell("1 / 0")
    assert read_record(run.folder)["status"] == "ok"


def test_an_interrupted_cell_and_a_new_start_cancel(shell: InteractiveShell) -> None:
    shell.run_cell("run = start('07_count', globals())")
    first: Run = shell.user_ns["run"]
    shell.run_cell("raise KeyboardInterrupt")
    assert read_record(first.folder)["status"] == "cancelled"
    shell.run_cell("run = start('07_count', globals())")
    second: Run = shell.user_ns["run"]
    assert read_record(first.folder)["error"]["type"] == "KeyboardInterrupt"
    shell.run_cell("run = start('07_count', globals())")
    record = read_record(second.folder)
    assert (record["status"], record["error"]["message"]) == (
        "cancelled",
        "Started anew in the same kernel before it was finished.",
    )
    shell.run_cell("1 / 0")
    assert read_record(second.folder)["error"]["type"] == "Cancelled"
    assert read_record(shell.user_ns["run"].folder)["status"] == "failed"
    shell.run_cell("run.finish()")


def test_headless_the_folder_is_the_supervisors_and_so_is_the_status(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = root / "notebooks" / "07_count.ipynb"
    folder = make_run_folder(root / "elsewhere", "07_count")
    write_record(folder, new_record(notebook))
    for name, value in (("RUN", folder), ("NOTEBOOK", notebook), ("PREFIX", sys.prefix)):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(value))
    run = start("07_count", GIVEN)
    run.finish()
    record = load_record(folder)
    assert run.folder == folder
    assert (record["status"], record["finished"], record["parameters"]) == ("running", True, GIVEN)
    monkeypatch.setenv("WORKBENCH_PREFIX", str(root))
    with pytest.raises(RuntimeError, match="its kernelspec is another one's"):
        start("07_count", GIVEN)


def test_a_running_record_of_a_dead_process_reads_as_lost(root: Path) -> None:
    folder = make_run_folder(root, "07_count")
    code = (
        "import json; from workbench.runs.owner import describe_process; print(json.dumps(describe_process())); input()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        named = json.loads(process.stdout.readline())
        record = new_record(root / "notebooks" / "07_count.ipynb") | named
        write_record(folder, record)
        assert read_record(folder)["status"] == "running"
        write_record(folder, record | {"process_ticks": named["process_ticks"] - 1})
        assert read_record(folder)["status"] == "lost", "another process has the number"
        write_record(folder, record)
        process.kill()
    lost = read_record(folder)
    assert (lost["status"], lost["error"]["type"]) == ("lost", "Lost")
    assert load_record(folder)["status"] == "running", "reading changes nothing"
    write_record(folder, record | {"host": "another"})
    assert read_record(folder)["status"] == "running", "what another host does cannot be seen from here"
    write_record(folder, record | {"status": "ok"})
    assert read_record(folder)["status"] == "ok"


def test_a_run_holds_its_folder_until_it_is_finished(root: Path) -> None:
    run = start("07_count", GIVEN)
    with pytest.raises(FolderInUseError), hold(run.folder):
        pass
    run.finish()
    with hold(run.folder):
        pass


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"status": "ok"}', '{"status": 3}'])
def test_a_damaged_record_reads_as_lost_among_the_others(root: Path, content: str | None) -> None:
    start("07_count", GIVEN).finish()
    damaged = root / "outputs" / "20200102T030405Z-09_old_one-0123abcd"
    damaged.mkdir()
    if content is not None:
        (damaged / "run.json").write_text(content)
    (root / "outputs" / "cache").mkdir()
    runs = list_runs(root / "outputs")
    assert [record["status"] for _, record in runs] == ["ok", "lost"]
    record: dict[str, Any] = runs[1][1]
    assert (record["notebook"], record["started"]) == ("09_old_one", "2020-01-02T03:04:05+00:00")
    assert str(damaged / "run.json") in record["error"]["message"]


def test_many_processes_never_get_the_same_folder(root: Path) -> None:
    code = (
        "from pathlib import Path; from workbench.runs.folder import make_run_folder\n"
        "for _ in range(50): print(make_run_folder(Path('many'), 'a b/c'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert len(names) == len(set(names)) == len(list((root / "many").iterdir())) == 150
    assert all("-a-b-c-" in name for name in names)


def test_code_is_described_by_commit_and_dirtiness(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert describe_code(tmp_path) is None
    git("init", "-q")
    assert describe_code(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "a").write_text("1")
    assert describe_code(tmp_path) == {"commit": None, "dirty": True}
    git("add", "a")
    git("commit", "-qm", "one")
    assert describe_code(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert describe_code(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_metrics_that_cannot_be_read_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    for content in ("{", "[]", json.dumps({"metrics": {"a": {"value": 1}}})):
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=r"metrics\.json cannot be read"):
            read_metrics(tmp_path)
