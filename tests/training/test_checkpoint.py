import random
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.training import checkpoint
from workbench.training.checkpoint import (
    CheckpointError,
    load_best,
    load_newest,
    prune_checkpoints,
    random_states,
    read_checkpoint,
    save_checkpoint,
    set_random_states,
)

CPU = torch.device("cpu")


def _fail(line: str) -> None:
    raise AssertionError(line)


def test_what_is_saved_comes_back_without_running_code(tmp_path: Path) -> None:
    state = {
        "model": {"w": torch.arange(3.0)},
        "random": random_states(CPU),
        "step": 7,
        "names": ["a", "ü"],
        "none": None,
    }
    path = save_checkpoint(tmp_path / "new", state, 7)
    again = load_newest(tmp_path / "new", _fail)
    assert again is not None
    assert torch.equal(again["model"]["w"], torch.arange(3.0))
    assert (again["step"], again["names"], again["none"]) == (7, ["a", "ü"], None)
    assert torch.load(path, weights_only=True)["step"] == 7


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_newest(tmp_path, _fail) is None
    assert load_newest(tmp_path / "nowhere", _fail) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_falls_back_loudly(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, {"step": 1}, 1)
    newest = save_checkpoint(tmp_path, {"step": 2}, 2)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    damaged: dict[str, bytes] = {"truncated": bytes(content[:-20]), "flipped": bytes(content), "empty": b""}
    newest.write_bytes(damaged[damage])
    warnings: list[str] = []
    state = load_newest(tmp_path, warnings.append)
    assert state == {"step": 1}
    assert len(warnings) == 1
    assert newest.name in warnings[0]
    assert "WARNING" in warnings[0]


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1}, 1).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="All 1 checkpoints"):
        load_newest(tmp_path, lambda line: None)


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save_checkpoint(tmp_path, {"step": step}, step)
    for step in (5, 15, 25):
        save_checkpoint(tmp_path, {"model": step}, step, kind="best")
    (tmp_path / ".checkpoint.killed").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    prune_checkpoints(tmp_path, best_step=15)
    names = sorted("_".join(path.name.split("_")[:2]) for path in tmp_path.iterdir())
    # 25 is what the checkpoint of step 30 refers to
    assert names == ["best_00000015", "best_00000025", "checkpoint_00000030", "checkpoint_00000040", "notes.txt"]
    assert load_best(tmp_path, 15) == {"model": 15}
    with pytest.raises(CheckpointError, match="of step 5"):
        load_best(tmp_path, 5)


def test_a_step_written_twice_counts_once_the_younger(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"try": 1}, 3)
    save_checkpoint(tmp_path, {"try": 2}, 3)
    assert load_newest(tmp_path, _fail) == {"try": 2}
    prune_checkpoints(tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"step": 1}, 1)

    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="step 2 could not be written"):
        save_checkpoint(tmp_path, {"step": 2}, 2)
    monkeypatch.undo()
    assert load_newest(tmp_path, _fail) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match="not named"):
        read_checkpoint(path)
    assert load_newest(tmp_path, _fail) is None


def test_random_states_go_on_where_they_were(tmp_path: Path) -> None:
    before = random_states(CPU)
    try:
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        random.gauss(0, 1), np.random.normal()  # noqa: NPY002  # half of a pair is waiting in each
        save_checkpoint(tmp_path, {"random": random_states(CPU)}, 1)
        expected = random.random(), random.gauss(0, 1), np.random.normal(), float(torch.rand(()))  # noqa: NPY002
        saved = load_newest(tmp_path, _fail)
        assert saved is not None
        set_random_states(saved["random"], CPU)
        assert (random.random(), random.gauss(0, 1), np.random.normal(), float(torch.rand(()))) == expected  # noqa: NPY002
    finally:
        set_random_states(before, CPU)
