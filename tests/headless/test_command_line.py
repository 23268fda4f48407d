"""The command line as people and schedulers use it: exit codes, messages, Ctrl-C, a supervisor that is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from tiny_notebooks import make_root, write_notebook

import workbench.headless.study
from workbench.__main__ import main
from workbench.headless.processes import find_processes
from workbench.headless.study import Step
from workbench.runs.comparison import find_runs
from workbench.runs.folder import make_run_folder, write_record
from workbench.runs.record import list_runs, new_record

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
LOG = "run.log({'accuracy@1': {'value': count / 10, 'low': 0, 'high': 1, 'n': 4, 'protocol': 'p'}})"
# Deaf to the interrupt in the kernel and in its worker, as native code and data loaders can be.
STUCK = """import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(900)"
worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
worker.stdout.readline()
while True:
    try:
        print("stuck now", flush=True)
        time.sleep(900)
    except KeyboardInterrupt:
        pass"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_root(tmp_path / "root")
    monkeypatch.setenv("WORKBENCH_ROOT", str(root))
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(root / "outputs"))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE_PARENT))
    return root


@contextmanager
def workbench_process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "workbench", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the process ended without saying {text!r}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "coutn"], "There is no notebook 'coutn'. Did you mean 'count'? There are: count."),
        (["run", "absent/count.ipynb"], "There is no notebook 'absent/count.ipynb'"),
        (["run", "count", "-p", "conut=3"], "There is no parameter 'conut'. Did you mean 'count'?"),
        (["run", "count", "-p", "count=three"], "count: wanted int, found 'three'"),
        (["run", "count", "-p", "count=10"], "count: wanted at least 1 and at most 9, found 10"),
        (["run", "count", "-p", "mode=worse"], "mode: wanted one of 'good', 'bad', found 'worse'"),
        (["run", "count", "-p", "count"], "-p wants name=value, found 'count'"),
        (["run", "count", "-p", "count=1", "-p", "count=2"], "-p gives 'count' twice"),
        (["run", "count", "-p", "count=1", "--sweep", "count=2,3"], "count is given by both -p and --sweep"),
        (["run", "count", "--sweep", "count=1,2,99"], "count: wanted at least 1 and at most 9, found 99"),
        (["run", "count", "--sweep", "count="], "The sweep over count has no values"),
        (
            ["run", f"{PACKAGE_PARENT}/notebooks/02_finetune_trunk.ipynb", "--sweep", "settings=depth=9,seed=1"],
            "could be one value or 2",
        ),
        (["run", "count", "--jobs", "0"], "wanted a number above 0, found 0"),
        (["run", "count", "--deadline", "soon"], "invalid number value: 'soon'"),
        (["study", "--data", "nothing"], "There is no data card 'nothing'"),
        (["data", "check", "nothing"], "There is no data card 'nothing'"),
        (["report", "nothing"], "There is no notebook 'nothing'"),
        (["walk"], "invalid choice: 'walk'"),
        ([], "arguments are required"),
    ],
)
def test_what_is_refused_exits_with_2_before_anything_ran(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_notebook(root, "count", LOG)
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = int(str(exit_.code))
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert printed.out == ""
    assert not (root / "outputs").exists() or list((root / "outputs").iterdir()) == []


def test_a_refusal_of_the_real_command_has_no_traceback(root: Path) -> None:
    write_notebook(root, "count", LOG)
    with workbench_process("run", "count", "-p", "count=0") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "refused: count: wanted at least 1 and at most 9, found 0.\n"


@pytest.mark.slow
def test_a_sweep_with_a_failing_point_exits_with_1_and_the_others_stand(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_notebook(root, "count", LOG, "assert mode == 'good' or count < 3, 'too many'")
    notebook = str(root / "notebooks" / "count.ipynb")
    code = main(["run", notebook, "--sweep", "mode=good,bad", "--sweep", "count=2,3,4", "--jobs", "3"])
    runs = list_runs(root / "outputs")
    found = {(record["parameters"]["mode"], record["parameters"]["count"]): record["status"] for _, record in runs}
    assert code == 1
    assert len(runs) == 6
    (sweep,) = {record["sweep"] for _, record in runs}
    assert find_runs("", root / "outputs", "count") == [folder for folder, _ in runs][::-1]
    assert main(["resume", next(folder for folder, record in runs if record["status"] == "failed").name]) == 1
    assert {record["sweep"] for _, record in list_runs(root / "outputs")} == {sweep}
    assert "4 of 6 runs are ok" in capfd.readouterr().out
    assert found == {
        ("good", 2): "ok",
        ("good", 3): "ok",
        ("good", 4): "ok",
        ("bad", 2): "ok",
        ("bad", 3): "failed",
        ("bad", 4): "failed",
    }
    for folder, record in runs:
        assert (folder / "metrics.json").read_text().count('"value": 0.' + str(record["parameters"]["count"])) == 1
    assert main(["runs"]) == 0
    listed = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("failed ") for line in listed) == 2
    assert listed[-1] == str(root / "outputs" / "index.html")


@pytest.mark.slow
def test_a_terminal_that_lacks_a_letter_shows_an_escape_and_the_run_ends_well(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(root, "speaks", "print('seen:', data)")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with workbench_process("run", "speaks", "-p", "data=水") as process:
        said, trouble = process.communicate()
    assert (process.returncode, trouble) == (0, "")
    assert "begins  data=\\u6c34" in said
    assert "seen: \\u6c34" in said
    ((folder, record),) = list_runs(root / "outputs")
    assert (record["status"], record["parameters"]["data"]) == ("ok", "水")
    assert "seen: 水" in (folder / "stdout.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_ctrl_c_cancels_and_leaves_no_process(root: Path) -> None:
    write_notebook(root, "stuck", STUCK)
    with workbench_process("run", "stuck", "--sweep", "count=1,2") as process:
        wait_for_line(process, "stuck now")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (1, "")
    ((folder, record),) = list_runs(root / "outputs")
    assert (record["status"], record["error"]["message"]) == ("cancelled", "Cancelled while cell 5 of 6 ran.")
    assert find_processes(folder) == []
    assert "cancelled: 1 of 2 runs had not begun" in out
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_killed_supervisor_takes_its_run_with_it_and_the_run_reads_as_lost(root: Path) -> None:
    write_notebook(root, "stuck", STUCK)
    with workbench_process("run", "stuck") as process:
        wait_for_line(process, "stuck now")
        ((folder, record),) = list_runs(root / "outputs")
        assert record["status"] == "running"
        assert len(find_processes(folder)) >= 3
        process.kill()
        process.wait()
        end = time.monotonic() + 120
        while find_processes(folder):
            assert time.monotonic() < end, "processes are left"
            time.sleep(0.2)
    assert list_runs(root / "outputs")[0][1]["status"] == "lost"


@pytest.mark.slow
def test_a_study_goes_on_after_a_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workbench.headless.study, "WALKS", {"recognition": (Step("one"), Step("two"))})
    write_notebook(root, "one", "raise ValueError('nothing to audit')")
    write_notebook(root, "two", "run.log(smoke=smoke)", parameters="data: str = 'a'\nsmoke: bool = False")
    card = "---\ntitle: Mine\ntask: recognition\nreader: image_folder\nlicence: own\nsource: here\nlayout: any\n---\n"
    (root / "data_cards" / "mine.md").write_text(card)
    assert main(["study", "--data", "mine", "--smoke"]) == 1
    records = {record["notebook"]: record for _, record in list_runs(root / "outputs")}
    assert {name: record["status"] for name, record in records.items()} == {"one": "failed", "two": "ok"}
    assert records["two"]["facts"] == {"smoke": True}
    assert records["one"]["parameters"]["data"] == records["two"]["parameters"]["data"] == "mine"
    out = capfd.readouterr().out
    assert out == (root / "outputs" / "study.log").read_text()
    assert "study 2/2: two on mine" in out
    assert out.splitlines()[-2:] == ["study: 1 of 2 runs are ok", f"study: {root / 'outputs' / 'index.html'}"]


@pytest.mark.slow
def test_a_study_hands_the_tuned_embedder_on_and_leaves_out_what_lacks_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    walk = (Step("tune", {"height": 64}), Step("judge", tuned=True))
    monkeypatch.setattr(workbench.headless.study, "WALKS", {"recognition": walk})
    tune = "assert data == 'mine', 'it diverged'\nrun.log(embedder_folder=str(run.folder / 'embedder'), height=height)"
    write_notebook(root, "tune", tune, parameters="data: str = 'a'\nheight: int = 1")
    write_notebook(root, "judge", "run.log(judged=embedder)", parameters="data: str = 'a'\nembedder: str = 'none'")
    card = "---\ntitle: Mine\ntask: recognition\nreader: image_folder\nlicence: own\nsource: here\nlayout: any\n---\n"
    for name in ("mine", "yours"):
        (root / "data_cards" / f"{name}.md").write_text(card)
    assert main(["study", "--data", "mine", "yours"]) == 1
    records = {(record["notebook"], record["parameters"]["data"]): record for _, record in list_runs(root / "outputs")}
    assert {key: record["status"] for key, record in records.items()} == {
        ("tune", "mine"): "ok",
        ("judge", "mine"): "ok",
        ("tune", "yours"): "failed",
    }
    tuned = records["tune", "mine"]["facts"]
    assert tuned["height"] == 64
    assert records["judge", "mine"]["facts"]["judged"] == tuned["embedder_folder"]
    assert "study 4/4: judge is left out: the training before it gave no embedder" in capfd.readouterr().out


def test_report_renders_a_run_or_a_saved_notebook(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_notebook(root, "count", LOG)
    folder = make_run_folder(root / "outputs", "count")
    write_record(folder, new_record(path) | {"status": "ok", "parameters": {"marker": "of this run"}})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="it was here")]
    nbformat.write(notebook, folder / "output.ipynb")
    for target in (str(folder), folder.name, folder.name[-8:]):
        assert main(["report", target]) == 0
        assert capsys.readouterr().out.strip() == str(folder / "report.html")
    text = (folder / "report.html").read_text()
    assert "it was here" in text
    assert "of this run" in text
    assert main(["report", "count"]) == 0
    assert capsys.readouterr().out.strip() == str(root / "outputs" / "count.html")
    assert "Is count tiny?" in (root / "outputs" / "count.html").read_text()


def test_weights_that_cannot_be_fetched_exit_with_1_and_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk, weights = (pytest.importorskip(f"workbench.models.{name}") for name in ("trunk", "weights"))

    def offline(name: str) -> dict[str, str]:
        raise weights.WeightsUnavailableError(f"no network for {name}")

    monkeypatch.setattr(trunk, "fetch_weights", offline)
    assert main(["models", "fetch", "timm:resnet18"]) == 1
    assert capsys.readouterr().err == "failed: no network for timm:resnet18\n"
    monkeypatch.setattr(trunk, "fetch_weights", lambda name: {"trunk": name, "size_mib": 3.5})
    assert main(["models", "fetch", "timm:resnet18"]) == 0
    assert capsys.readouterr().out == "trunk: timm:resnet18\nsize_mib: 3.5\n"
