import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import draw_catalog

from workbench.models.embedder import load_embedder
from workbench.training.checkpoint import load_newest

SCRIPT = Path(__file__).with_name("train_small.py")
ROOT = Path(__file__).parents[2]


def _start(pictures: Path, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPT.parent}"}
    with open(folder.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(pictures), str(folder), str(folder.with_suffix(".progress"))],
            env=environment,
            stdout=log,
            stderr=log,
        )


def _train_through(pictures: Path, folder: Path) -> None:
    assert _start(pictures, folder).wait() == 0, folder.with_suffix(".log").read_text()


def _kill_after(step: int, delay_s: float, pictures: Path, folder: Path) -> None:
    process, progress = _start(pictures, folder), folder.with_suffix(".progress")
    while process.poll() is None:
        lines = progress.read_text().split() if progress.is_file() else []
        if lines and float(lines[-1]) >= step:
            time.sleep(delay_s)
            break
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9, folder.with_suffix(".log").read_text()


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    draw_catalog(pictures)
    _train_through(pictures, tmp_path / "whole")
    rng = np.random.default_rng(0)
    for step in sorted(rng.integers(1, 185, 2).tolist()):
        _kill_after(step, float(rng.uniform(0, 0.1)), pictures, tmp_path / "killed")
    _train_through(pictures, tmp_path / "killed")
    assert "going on after step" in (tmp_path / "killed.log").read_text()
    assert "WARNING" not in (tmp_path / "killed.log").read_text()
    ends = [load_newest(tmp_path / name / "checkpoints", print) for name in ("whole", "killed")]
    for part in ("model", "average"):
        for name, value in ends[0][part].items():  # type: ignore[index]
            assert torch.equal(value, ends[1][part][name]), name  # type: ignore[index]
    assert torch.equal(ends[0]["rows"][:, 3], ends[1]["rows"][:, 3])  # type: ignore[index]
    embedders = [load_embedder(tmp_path / name / "embedder") for name in ("whole", "killed")]
    assert embedders[0].fingerprint() == embedders[1].fingerprint()
