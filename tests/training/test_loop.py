import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_sets import catalog_of, draw_catalog

from workbench.data.augment import Augmentation
from workbench.data.catalog import Catalog
from workbench.data.images import QuarantineError
from workbench.models.embedder import Embedder, build_embedder, load_embedder
from workbench.runs.owner import FolderInUseError
from workbench.training import loading, loop, prepare
from workbench.training.checkpoint import load_newest
from workbench.training.loop import train
from workbench.training.recipe import Recipe
from workbench.training.steps import TrainingDivergedError

RECIPE = Recipe(
    "test",
    num_steps=8,
    batch_size=12,
    learning_rate_trunk=3e-3,
    learning_rate_head=3e-3,
    learning_rate_loss=3e-3,
    blockwise_decay=0.8,
    margin_deg=10,
    scale=10,
    warmup_steps=2,
    validation_interval=3,
    checkpoint_interval=3,
    num_workers=0,
)


def _silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return draw_catalog(tmp_path_factory.mktemp("pictures") / "set")


@pytest.fixture
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32))


def _train(
    recipe: Recipe, embedder: Embedder, catalog: Catalog, folder: Path, **options: object
) -> loop.TrainingResult:
    arguments = {"log": _silent, **options}
    return train(recipe, embedder, catalog.select("train"), catalog.select("val"), folder, **arguments)  # type: ignore[arg-type]


def test_it_learns_to_tell_classes_apart(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    # Six colour patterns with little noise: 40 steps bring the loss from log(6) + margin down to less than half, with
    # much room to either side; the run is seeded, so it is the same on every machine but for rounding.
    result = _train(replace(RECIPE, num_steps=40, validation_interval=40), embedder, catalog, tmp_path / "run")
    assert result.history["loss"].tail(5).mean() < 0.5 * result.history["loss"].head(3).mean()
    assert result.validation["accuracy"].iloc[-1] > 0.8


def test_the_result_tells_all(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    before = embedder.fingerprint()
    rows: list[dict[str, float]] = []
    recipe = replace(RECIPE, depth=5, ema_decay=0.9, accumulation_steps=2)
    result = _train(recipe, embedder, catalog, tmp_path / "run", on_step=rows.append)
    assert embedder.fingerprint() == before  # the caller's embedder is for the comparison before and after
    history = result.history
    assert history["step"].tolist() == list(range(1, 9))
    assert history["epoch"].tolist() == pytest.approx([step * 12 / 30 for step in range(1, 9)])
    assert pd.DataFrame(rows)["loss"].tolist() == history["loss"].tolist()
    factors = [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * number / 6)) for number in range(6))]
    assert history["learning_rate/block 3"].tolist() == pytest.approx([3e-3 * factor for factor in factors])
    assert history["learning_rate/stem"].tolist() == pytest.approx([3e-3 * 0.8**4 * factor for factor in factors])
    assert history["learning_rate/loss"].tolist() == pytest.approx([3e-3 * factor for factor in factors])
    assert (history["gradient_norm"] > 0).all()
    assert result.validation["step"].tolist() == [3, 6, 8]
    assert result.validation["num_images"].tolist() == [18, 18, 18]
    shares = result.validation_images.groupby(["step", "label"])["correct"].mean().groupby("step").mean()
    assert shares.tolist() == pytest.approx(result.validation["accuracy"].tolist())
    assert result.best_step == result.validation["step"].iloc[int(result.validation["accuracy"].argmax())]
    assert result.images_per_class["before"].tolist() == [8] * 6
    assert result.images_per_class["after"].tolist() == [5] * 6
    assert result.cost["images"] == 96
    assert result.cost["device"] == "cpu"
    assert result.quarantine.empty


def test_the_saved_embedder_is_the_result(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    result = _train(RECIPE, embedder, catalog, tmp_path / "run")
    saved = load_embedder(tmp_path / "run" / "embedder")
    assert saved.fingerprint() == result.embedder.fingerprint() != embedder.fingerprint()
    provenance = json.loads((tmp_path / "run" / "embedder" / "config.json").read_text())["provenance"]
    assert provenance["recipe"]["learning_rate_trunk"] == 3e-3
    assert provenance["step"] == result.best_step
    assert provenance["training"]["train"] == catalog.select("train").fingerprint
    assert provenance["classes"] == [f"sku_{number}" for number in range(6)]
    again = _train(RECIPE, embedder, catalog, tmp_path / "run")
    assert again.embedder.fingerprint() == saved.fingerprint()
    assert again.history.equals(result.history)


def test_the_callers_random_generators_are_left_alone(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _train(replace(RECIPE, num_steps=3), embedder, catalog, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_interrupt_saves_and_the_next_call_goes_on(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)  # a job in the background begins with SIGINT ignored
    whole = _train(RECIPE, embedder, catalog, tmp_path / "whole")
    for step, way in ((4, "raise"), (3, "signal")):
        folder = tmp_path / way
        lines: list[str] = []

        def interrupt(row: dict[str, float], step: int = step, way: str = way) -> None:
            if row["step"] == step and way == "raise":
                raise KeyboardInterrupt
            if row["step"] == step:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            _train(RECIPE, embedder, catalog, folder, on_step=interrupt)
        saved = load_newest(folder / "checkpoints", _silent)
        assert saved is not None
        assert saved["step"] == step
        result = _train(RECIPE, embedder, catalog, folder, log=lines.append)
        assert f"going on after step {step} of 8" in lines
        assert result.embedder.fingerprint() == whole.embedder.fingerprint()
        assert result.history["loss"].tolist() == whole.history["loss"].tolist()
        assert signal.getsignal(signal.SIGINT) is handler


def test_a_damaged_newest_checkpoint_ends_with_the_same_bits(
    catalog: Catalog, embedder: Embedder, tmp_path: Path
) -> None:
    whole = _train(RECIPE, embedder, catalog, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(RECIPE, embedder, catalog, tmp_path / "run", on_step=_interrupt_at(7))
    (newest,) = (tmp_path / "run" / "checkpoints").glob("checkpoint_00000007_*")
    newest.write_bytes(newest.read_bytes()[:-100])
    lines: list[str] = []
    result = _train(RECIPE, embedder, catalog, tmp_path / "run", log=lines.append)
    assert sum("WARNING" in line and newest.name in line for line in lines) == 1
    assert "going on after step 6 of 8" in lines
    assert result.embedder.fingerprint() == whole.embedder.fingerprint()


def test_another_training_in_the_folder_is_refused(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(RECIPE, embedder, catalog, tmp_path / "run", on_step=_interrupt_at(3))
    with pytest.raises(ValueError, match=r"recipe.learning_rate_trunk: 0.003 there, 0.001 here"):
        _train(replace(RECIPE, learning_rate_trunk=1e-3), embedder, catalog, tmp_path / "run")
    with pytest.raises(ValueError, match=r"recipe.augmentation.flip_share: 0.0 there, 0.5 here"):
        _train(replace(RECIPE, augmentation=Augmentation(flip_share=0.5)), embedder, catalog, tmp_path / "run")
    other = build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=1)
    with pytest.raises(ValueError, match="embedder: "):
        _train(RECIPE, other, catalog, tmp_path / "run")
    fewer = catalog.take(np.arange(1, len(catalog)))
    with pytest.raises(ValueError, match=r"train: .*there"):
        _train(RECIPE, embedder, fewer, tmp_path / "run")
    faster = replace(RECIPE, num_workers=1, memory_mib=0, checkpoint_interval=50)
    assert _train(faster, embedder, catalog, tmp_path / "run").last_step == 8


def test_two_trainings_in_one_folder_cannot_be(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    def train_again(row: dict[str, float]) -> None:
        with pytest.raises(FolderInUseError, match="Another process works on"):
            _train(RECIPE, embedder, catalog, tmp_path / "run")

    assert _train(RECIPE, embedder, catalog, tmp_path / "run", on_step=train_again).last_step == 8


@pytest.mark.parametrize("memory_mib", [0, 64])
def test_a_training_does_not_go_on_with_other_pictures_under_the_same_names(
    embedder: Embedder, tmp_path: Path, memory_mib: int
) -> None:
    catalog = draw_catalog(tmp_path / "set")
    recipe = replace(RECIPE, memory_mib=memory_mib)
    with pytest.raises(KeyboardInterrupt):
        _train(recipe, embedder, catalog, tmp_path / "run", on_step=_interrupt_at(3))
    one, other = catalog.select("train").image_paths()[:: len(catalog.select("train")) - 1]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    with pytest.raises(ValueError, match="Images of the train set have changed"):
        _train(recipe, embedder, catalog, tmp_path / "run")
    one.write_bytes(contents[0])
    other.write_bytes(contents[1])
    assert _train(recipe, embedder, catalog, tmp_path / "run").last_step == 8


def test_a_resumed_training_does_not_read_again_what_did_not_fit_into_memory(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = draw_catalog(tmp_path / "set", px=400)
    monkeypatch.setattr(loading, "OVERSIZE", 12.5)  # 400 x 400 px wait for their augmentation: 48 of them take 22 MiB
    recipe = replace(RECIPE, memory_mib=1)
    with pytest.raises(KeyboardInterrupt):
        _train(recipe, embedder, catalog, tmp_path / "run", on_step=_interrupt_at(3))
    saved = load_newest(tmp_path / "run" / "checkpoints", _silent)
    assert saved is not None
    assert saved["images"]["train"]["num_bytes"] > 2**20
    read: list[int] = []
    whole = prepare.read_images

    def counted(sources: Sequence[loading.Source], *rest: Any) -> loading.ReadImages:
        read.append(len(sources))
        return whole(sources, *rest)

    monkeypatch.setattr(prepare, "read_images", counted)
    _train(recipe, embedder, catalog, tmp_path / "run")
    assert read == [len(catalog.select("val"))], "the validation images fit into memory and are kept in it"


def test_a_loss_that_explodes_stops_and_keeps_the_checkpoint(
    catalog: Catalog, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(optimizer: torch.optim.Optimizer, factor: float, frozen: frozenset[str]) -> None:
        monkeypatch_set_rates(optimizer, factor, frozen)
        if len(rows) == 4:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0][:] = math.nan

    rows: list[dict[str, float]] = []
    monkeypatch_set_rates = loop.set_rates
    monkeypatch.setattr(loop, "set_rates", poison)
    with pytest.raises(
        TrainingDivergedError, match=r"in step 5 of 8: the loss is nan; the checkpoint of step 3 is kept"
    ):
        _train(RECIPE, embedder, catalog, tmp_path / "run", on_step=rows.append)
    saved = load_newest(tmp_path / "run" / "checkpoints", _silent)
    assert saved is not None
    assert saved["step"] == 3
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_unreadable_images_are_left_out_and_listed(embedder: Embedder, tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=3, num_train=40, num_val=2, px=16)
    (tmp_path / "set" / "sku_1" / "3.png").write_bytes(b"not a picture")
    result = _train(replace(RECIPE, num_steps=3, depth=6), embedder, catalog, tmp_path / "run")
    assert result.quarantine["path"].tolist() == ["sku_1/3.png"]
    assert "not an image" in result.quarantine["reason"][0]
    assert result.images_per_class["before"].tolist() == [40, 39, 40]
    for number in range(4, 8):
        (tmp_path / "set" / "sku_1" / f"{number}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="Images of the train set have changed since this training began"):
        _train(replace(RECIPE, num_steps=3, depth=6), embedder, catalog, tmp_path / "run")
    with pytest.raises(QuarantineError, match="5 of 120 images"):
        _train(RECIPE, embedder, catalog, tmp_path / "other")


def test_one_class_cannot_be_trained_with(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two classes; found 1"):
        train(RECIPE, embedder, catalog.select("train", label="sku_1"), None, tmp_path / "run", log=_silent)


def test_without_validation_the_last_step_counts(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    recipe = replace(RECIPE, num_steps=None, num_epochs=0.6)
    result = train(recipe, embedder, catalog.select("train"), None, tmp_path / "run", log=_silent)
    assert (result.best_step, result.last_step) == (None, 3)
    assert result.validation.empty
    assert result.validation_images.empty
    with pytest.raises(ValueError, match=r"48 images are 1 steps of 12; warmup_steps 2 leave nothing"):
        train(replace(recipe, num_epochs=0.2), embedder, catalog.select("train"), None, tmp_path / "b", log=_silent)
    short = replace(recipe, num_epochs=0.2, warmup_steps=0, head_first_steps=1)
    with pytest.raises(ValueError, match=r"1 steps of 12; head_first_steps 1 leave nothing of them for the trunk"):
        train(short, embedder, catalog.select("train"), None, tmp_path / "c", log=_silent)


def test_a_new_head_is_put_in_place_and_kept(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    recipe = replace(RECIPE, num_steps=3, head="linear", embedding_dim=16)
    result = _train(recipe, embedder, catalog, tmp_path / "first")
    assert result.embedder.embedding_dim == 16
    assert "learning_rate/head" in result.history
    again = _train(replace(recipe, seed=1), result.embedder, catalog, tmp_path / "second")
    assert load_embedder(tmp_path / "second" / "embedder").fingerprint() == again.embedder.fingerprint()
    back = _train(replace(RECIPE, num_steps=3, head="identity"), result.embedder, catalog, tmp_path / "third")
    assert back.embedder.embedding_dim == embedder.embedding_dim


def test_domains_are_mixed_by_their_weights(tmp_path: Path, embedder: Embedder) -> None:
    drawn = draw_catalog(tmp_path / "set", num_classes=3, num_train=6, num_val=0)
    mixed = drawn.frame.assign(domain=["real", "synthetic"] * 9)
    catalog = Catalog(mixed, drawn.roots, drawn.cards, {})
    recipe = replace(RECIPE, num_steps=3, depth=4, domain_weights={"real": 0.0, "synthetic": 1.0})
    result = train(recipe, embedder, catalog, None, tmp_path / "run", log=_silent)
    assert result.images_per_class["before"].tolist() == [3, 3, 3]


def test_junk_and_distractors_are_no_individuals(tmp_path: Path, embedder: Embedder) -> None:
    catalog = catalog_of(tmp_path, [("a.jpg", "-1", "train"), ("b.jpg", "5", "train")])
    card = replace(catalog.cards["template"], task="reid")
    with pytest.raises(ValueError, match="1 training images have the label of junk"):
        train(RECIPE, embedder, Catalog(catalog.frame, catalog.roots, {"template": card}, {}), None, tmp_path / "run")


def test_products_may_be_called_as_junk_and_distractors_are(tmp_path: Path, embedder: Embedder) -> None:
    drawn = draw_catalog(tmp_path / "set", num_classes=3, num_train=4, num_val=2)
    names = {"sku_0": "0", "sku_1": "-1", "sku_2": "7"}
    catalog = replace(drawn, frame=drawn.frame.assign(label=drawn.frame["label"].map(names)))
    train_part, val_part = (catalog.select(split=split) for split in ("train", "val"))
    data = prepare.prepare(RECIPE, embedder.preprocessing, train_part, val_part, None)
    assert data.class_names.tolist() == ["-1", "0", "7"]
    assert np.bincount(data.validation_labels).tolist() == [2, 2, 2]


def test_gradient_checkpointing_changes_no_bit_of_a_vit(catalog: Catalog, tmp_path: Path) -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    results = [
        _train(replace(RECIPE, num_steps=3, gradient_checkpointing=on), embedder, catalog, tmp_path / str(on))
        for on in (False, True)
    ]
    assert results[0].embedder.fingerprint() == results[1].embedder.fingerprint()
    assert not results[1].embedder.trunk.tower.grad_checkpointing


def test_a_cpu_says_that_it_computes_in_full_precision(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    lines: list[str] = []
    result = _train(replace(RECIPE, num_steps=3, amp="float16"), embedder, catalog, tmp_path / "run", log=lines.append)
    assert result.cost["amp"] == "off"
    assert "float32 (float16 is for GPUs)" in lines[0]


def _interrupt_at(step: int) -> loop.OnStep:
    def interrupt(row: dict[str, float]) -> None:
        if row["step"] == step:
            raise KeyboardInterrupt

    return interrupt
