"""Several processes on one CPU, started by torch.distributed.run over gloo; `--standalone` finds a free port each time."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import draw_catalog
from torch import nn

from workbench.models.embedder import load_embedder
from workbench.training import distributed
from workbench.training.checkpoint import load_newest, prune_checkpoints
from workbench.training.job import Job, run_job, write_job
from workbench.training.recipe import Recipe

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
CARD = """---
title: Patterns
task: recognition
reader: image_folder
options: {split_folders: {train: train, val: val}}
licence: own
source: drawn
layout: split/class
---
"""
# Plain SGD: AdamW divides a gradient by its own size, so that where it should be 0 (the bias of an attention's keys)
# rounding alone moves the weight by whole steps.
RECIPE = Recipe(
    "shared",
    loss="cross_entropy",
    head="linear",
    embedding_dim=8,
    optimizer="sgd",
    learning_rate_trunk=1e-2,
    learning_rate_head=1e-2,
    learning_rate_loss=1e-2,
    blockwise_decay=0.9,
    num_steps=12,
    batch_size=12,
    warmup_steps=2,
    ema_decay=0.9,
    clip_grad=5.0,
    validation_interval=4,
    checkpoint_interval=3,
    num_workers=0,
)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("pictures")
    draw_catalog(folder / "drawn")  # 6 classes, 8 + 3 images
    for picture in sorted((folder / "drawn").glob("*/*.png")):
        split = "train" if int(picture.stem) < 8 else "val"
        place = folder / "patterns" / split / picture.parent.name / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.rename(place)
    card = folder / "patterns.md"
    card.write_text(CARD)
    return Job(
        RECIPE,
        str(card),
        "timm:test_vit",
        data_root=str(folder / "patterns"),
        trunk_weights="random",
        image_size=(32, 32),
        device="cpu",
    )


def _launch(num_processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    return subprocess.run(
        [*launcher, *command], env=environment, text=True, stdout=-1, stderr=-2, check=False, timeout=500
    )


def _watched(folder: Path, job: Job, *fault: str) -> subprocess.CompletedProcess[str]:
    write_job(folder / "recipe.json", job)
    return _launch(2, str(HERE / "group_member.py"), str(folder / "recipe.json"), str(folder / "logs"), *fault)


def _saved(folder: Path) -> dict[str, Any]:
    saved = load_newest(folder / "training" / "checkpoints", print)
    assert saved is not None
    return saved


@pytest.fixture(scope="module")
def one(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run_job(replace(job, folder=str(folder / "training")))
    return folder


@pytest.fixture(scope="module")
def two(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    ended = _watched(folder, job)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("step 12 of 12") == 1, ended.stdout  # one process logs
    return folder


def _check_same_training(ends: list[dict[str, Any]], *, with_statistics: bool = True) -> None:
    assert ends[0]["columns"] == ends[1]["columns"]
    measured = [number for number, name in enumerate(ends[0]["columns"]) if name != "images_per_s"]
    rows = [end["rows"][:, measured] for end in ends]
    # Sums of float32 in another order: 2^-24 relative each (found: 1.4e-7 of a loss, 1.5e-8 of a weight); the bounds leave room
    # for other processors; a gradient that was not shared, or shared with a wrong weight, differs in the first digits.
    torch.testing.assert_close(rows[0], rows[1], rtol=2e-4, atol=1e-6)
    for part in ("model", "average"):
        for name, value in ends[0][part].items():
            if not with_statistics and name.endswith(("running_mean", "running_var", "num_batches_tracked")):
                continue
            torch.testing.assert_close(ends[1][part][name], value, rtol=1e-3, atol=2e-5, msg=name)
    if not with_statistics:
        return
    assert ends[0]["validations"] == ends[1]["validations"]
    for step, predicted in ends[0]["predictions"].items():
        assert torch.equal(predicted, ends[1]["predictions"][step])


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(one: Path, two: Path) -> None:
    ends = [_saved(folder) for folder in (one, two)]
    _check_same_training(ends)
    assert [validation["step"] for validation in ends[1]["validations"]] == [4, 8, 12]


@pytest.mark.slow
@pytest.mark.parametrize("with_batchnorm", [False, True])
def test_triplets_and_centers_train_as_in_one_process_with_as_many_parts(
    job: Job, with_batchnorm: bool, tmp_path: Path
) -> None:
    """Of BatchNorm the running statistics differ, and what is validated with them: parts follow each other, processes are averaged."""
    own = {"head": "bnneck", "last_stride": 1} if with_batchnorm else {}
    job = replace(job, embedder="timm:test_resnet" if with_batchnorm else job.embedder)
    recipe = replace(
        RECIPE,
        loss="cross_entropy+triplet+center",
        sampler="identity",
        images_per_identity=3,  # two identities in each half of a batch
        center_weight=0.01,
        num_steps=6,
        **own,  # type: ignore[arg-type]
    )
    ended = _watched(tmp_path, replace(job, recipe=recipe))
    assert ended.returncode == 0, ended.stdout
    in_parts = replace(recipe, accumulation_steps=2)
    run_job(replace(job, recipe=in_parts, folder=str(tmp_path / "one" / "training")))
    ends = [_saved(folder) for folder in (tmp_path / "one", tmp_path)]
    _check_same_training(ends, with_statistics=not with_batchnorm)
    assert any("trunk" in name and "running_var" in name for name in ends[1]["model"]) == with_batchnorm
    assert ends[1]["model"]["loss.parts.center.centers"].abs().max() > 0.01  # they started at 0


@pytest.mark.slow
def test_each_image_is_seen_once_an_epoch_by_one_process(two: Path) -> None:
    seen = [
        [tuple(map(int, line.split()[1:])) for line in path.read_text().splitlines() if line.startswith("sample")]
        for path in sorted((two / "logs").iterdir())
    ]
    assert [len(samples) for samples in seen] == [72, 72]  # half of 12 steps of 12
    for epoch in range(3):
        rows = Counter(row for samples in seen for row, its_epoch, _ in samples if its_epoch == epoch)
        assert rows == dict.fromkeys(range(48), 1)
    places = [{(epoch, position) for _, epoch, position in samples} for samples in seen]
    assert places[0].isdisjoint(places[1])
    assert {position // 6 % 2 for _, position in places[0]} == {0}  # of each batch of 12 the first half


@pytest.mark.slow
def test_one_process_writes_and_leaves_nothing_half_written(two: Path) -> None:
    logs = [path.read_text().splitlines() for path in sorted((two / "logs").iterdir())]
    files = [[line.split()[1] for line in log if line.startswith("file")] for log in logs]
    assert files[1] == []
    assert max(Counter(files[0]).values()) == 1
    steps = sorted(int(name.split("_")[1]) for name in files[0] if name.startswith("checkpoint_"))
    assert steps == [3, 6, 9, 12]
    assert files[0].count("embedder") == 1
    assert [path.name for path in (two / "training").rglob(".*")] == [".lock"]
    kept = set((two / "training" / "checkpoints").iterdir())
    prune_checkpoints(two / "training" / "checkpoints", _saved(two)["best_step"])
    assert set((two / "training" / "checkpoints").iterdir()) == kept
    assert load_embedder(two / "training" / "embedder").described["head"] == "linear"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_one_process_ended_three_times_ends_with_the_same_bits(
    job: Job, one: Path, two: Path, tmp_path: Path
) -> None:
    failed = _watched(tmp_path, job, "error", "1", "25")  # in step 5
    assert failed.returncode != 0
    assert "process 1 of 2 stopped: OSError: the disk of this host is gone" in failed.stdout
    assert _saved(tmp_path)["step"] == 3
    ended = _watched(tmp_path, job, "term", "1", "8")  # in the second step after that
    assert ended.returncode != 0
    assert "going on after step 3 of 12" in ended.stdout
    assert "interrupted: step 5 of 12 is saved" in ended.stdout
    assert _saved(tmp_path)["step"] == 5
    killed = _watched(tmp_path, job, "kill", "1", "20")  # in step 9
    assert killed.returncode != 0
    assert "going on after step 5 of 12" in killed.stdout
    assert _saved(tmp_path)["step"] == 6
    assert not (tmp_path / "training" / "embedder").exists()
    last = _launch(2, "-m", "workbench.training.loop", str(tmp_path / "recipe.json"))
    assert last.returncode == 0, last.stdout
    assert "going on after step 6 of 12" in last.stdout
    ends = [_saved(folder) for folder in (two, tmp_path)]
    for part in ("model", "average", "predictions"):
        for name, value in ends[0][part].items():
            assert torch.equal(value, ends[1][part][name]), name
    embedders = [load_embedder(folder / "training" / "embedder") for folder in (two, tmp_path)]
    assert embedders[0].fingerprint() == embedders[1].fingerprint()
    # a notebook that trains the same into the same folder finds it done
    again = run_job(replace(job, folder=str(tmp_path / "training")))
    assert again.embedder.fingerprint() == embedders[0].fingerprint()


@pytest.mark.slow
def test_a_batch_that_does_not_divide_ends_all_before_an_image_is_read(job: Job, tmp_path: Path) -> None:
    odd = replace(job, recipe=replace(RECIPE, batch_size=9, accumulation_steps=1), data="no/such/card.md")
    write_job(tmp_path / "recipe.json", odd)
    ended = _launch(2, "-m", "workbench.training.loop", str(tmp_path / "recipe.json"))
    assert ended.returncode != 0
    assert "batch_size 9 is of all processes together and does not divide into 2 processes" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.slow
def test_three_processes_share_add_up_and_gather(tmp_path: Path) -> None:
    ended = _launch(3, str(HERE / "group_checks.py"), str(tmp_path))
    assert ended.returncode == 0, ended.stdout
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [one["writer"] for one in found] == [True, False, False]
    assert [one["part"] for one in found] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [one["statistics"] for one in found] == [
        [[4.0, 2.0], [1.0, 2.0]],  # (1 + 4 + 7) / 3; a norm in evaluation mode keeps its own
        [[4.0, 2.0], [4.0, 2.0]],
        [[4.0, 2.0], [7.0, 2.0]],
    ]
    assert len({tuple(one["draw"]) for one in found}) == 3
    torch.manual_seed(0)
    assert found[0]["draw"] == torch.rand(3).tolist()  # the first draws as it would alone
    for one in found:
        assert one["gathered"] == [[0], [10], [20], [30], [40], [50], [60]]
        assert one["sums"] == [[[111.0, 111.0], [111.0, 111.0]], [3], [1.5, 3.0]]
        assert one["gradients"] == [[3.0, 4.0], None, None]
        assert one["anywhere"] == [True, False]
        assert one["written"] == "0"
        assert one["unlike"].startswith("ValueError: Process 2 of 3 has another first weights than process 0.")
        assert one["too few"] == "ValueError: 2 images cannot be shared out to 3 processes; start fewer."
    refused = [one["write refused"] for one in found]
    assert refused[0].startswith("FileNotFoundError")
    assert refused[1:] == [f"RuntimeError: Process 0 could not write: {refused[0]}"] * 2


def test_alone_everything_stays_as_it_is() -> None:
    with distributed.joined_group("cuda:3") as device:
        assert device == "cuda:3"
    assert distributed.rank_and_world() == (0, 1)
    rows, tensor, parameter = np.arange(3), torch.tensor([1.0, 2.0]), nn.Parameter(torch.zeros(1))
    assert distributed.own_part(rows).tolist() == [0, 1, 2]
    assert distributed.gather_parts(tensor) is tensor
    distributed.add_up([tensor])
    distributed.add_up_gradients([parameter])
    assert (tensor.tolist(), parameter.grad) == ([1.0, 2.0], None)
    state = torch.get_rng_state()
    distributed.draw_apart(0, 5)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyError, match="as it was"):
        distributed.by_writer(lambda: dict[str, int]()["as it was"])


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        (
            {"batch_size": 10},
            4,
            "batch_size 10 is of all processes together and does not divide into 4 processes with 1",
        ),
        ({"batch_size": 12, "accumulation_steps": 3}, 8, "take a multiple of 24"),
        ({"batch_size": 24, "sampler": "identity"}, 4, "with 1 parts each leave 6"),
        ({"batch_size": 16, "sampler": "identity"}, 4, "with 1 parts each leave 4"),
    ],
)
def test_batches_that_cannot_be_shared_out_are_refused(
    changes: dict[str, object], world: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, **changes)  # type: ignore[arg-type]
    distributed.check_parts(recipe)  # one process takes it
    monkeypatch.setattr(distributed, "rank_and_world", lambda: (0, world))
    with pytest.raises(ValueError, match=re.escape(message)):
        distributed.check_parts(recipe)


def test_a_process_takes_a_gpu_of_its_own_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="a GPU of its own: device is auto, cuda or cpu; found 'cuda:0'"):
        distributed.joined_group("cuda:0").__enter__()
    with pytest.raises(ValueError, match="2 processes were started on a host with 1 GPUs"):
        distributed.joined_group("cuda").__enter__()


def test_shared_batchnorm_keeps_names_weights_and_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.layers import BatchNormAct2d

    model = nn.Sequential(BatchNormAct2d(3), nn.Flatten(), nn.BatchNorm1d(3, bias=False))
    names = list(model.state_dict())
    assert distributed.share_batchnorm(model, torch.device("cuda")) is model  # alone
    monkeypatch.setattr(distributed, "rank_and_world", lambda: (0, 2))
    assert distributed.share_batchnorm(model, torch.device("cpu")) is model
    images = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    wanted = model.eval()(images)
    shared = distributed.share_batchnorm(model, torch.device("cuda"))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in shared.modules()) == 2
    assert list(shared.state_dict()) == names
    torch.testing.assert_close(shared.eval()(images), wanted)
