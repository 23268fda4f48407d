"""Every recipe on a small trunk and pictures that can be told apart: it learns, and goes on where it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import draw_catalog

from workbench.data.catalog import Catalog
from workbench.models.embedder import Embedder, build_embedder, load_embedder
from workbench.models.trunk import Trunk
from workbench.training import loop, validation
from workbench.training.checkpoint import load_newest
from workbench.training.loading import render_plain
from workbench.training.loop import train
from workbench.training.losses import build_loss
from workbench.training.recipe import Recipe
from workbench.training.recipes import RECIPES, choose_recipe

ON_CONVNETS = ("scratch", "full_finetune", "full_finetune_lca_maxent", "reid_bnneck")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return draw_catalog(tmp_path_factory.mktemp("pictures") / "set", num_classes=4, num_train=6, num_val=2, px=32)


def _embedder(name: str, **options: object) -> Embedder:
    trunk = "timm:test_resnet" if name in ON_CONVNETS else "timm:test_vit"
    return build_embedder(trunk, "random", image_size=(32, 32), **options)  # type: ignore[arg-type]


def _few_steps(name: str, **changes: object) -> Recipe:
    """The recipe with the rates and the length of a test: 12 steps of 8 pictures must be seen to teach something."""
    rates = {"learning_rate_trunk": 3e-3, "learning_rate_head": 3e-3, "learning_rate_loss": 1e-2}
    length = {"num_steps": 12, "warmup_steps": 1, "validation_interval": 50, "checkpoint_interval": 3}
    chosen = choose_recipe(name, **{"batch_size": 8, "num_workers": 0, **length, **changes})  # type: ignore[arg-type]
    return replace(chosen, **{rate: value for rate, value in rates.items() if rate not in changes})  # type: ignore[arg-type]


def _train(
    recipe: Recipe, embedder: Embedder, catalog: Catalog, folder: Path, **options: object
) -> loop.TrainingResult:
    arguments = {"log": lambda line: None, **options}
    return train(recipe, embedder, catalog.select("train"), catalog.select("val"), folder, **arguments)  # type: ignore[arg-type]


class _KilledError(Exception):
    pass


def _kill_at(step: int) -> loop.OnStep:
    def kill(row: dict[str, float]) -> None:
        if row["step"] == step:
            raise _KilledError

    return kill


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_and_goes_on_bit_for_bit(name: str, catalog: Catalog, tmp_path: Path) -> None:
    # the head of head_then_trunk stands still for two thirds of the steps: it wants more of them to move by more than chance
    num_steps = 24 if name == "head_then_trunk" else 12
    recipe, embedder = _few_steps(name, num_steps=num_steps), _embedder(name)
    whole = _train(recipe, embedder, catalog, tmp_path / "whole")
    loss = whole.history["loss"]
    # Seeded, so the same everywhere but for rounding. The mean of a quarter of the steps falls by 16 % at least; half is asked for.
    assert loss.tail(num_steps // 4).mean() < 0.92 * loss.head(num_steps // 4).mean()
    # killed in step 5, of which nothing is written: goes on after step 3
    with pytest.raises(_KilledError):
        _train(recipe, embedder, catalog, tmp_path / "killed", on_step=_kill_at(5))
    assert load_newest(tmp_path / "killed" / "checkpoints", print)["step"] == 3  # type: ignore[index]
    again = _train(recipe, embedder, catalog, tmp_path / "killed")
    assert again.embedder.fingerprint() == whole.embedder.fingerprint() != embedder.fingerprint()
    columns = [column for column in whole.history if column != "images_per_s"]
    assert again.history[columns].equals(whole.history[columns])
    assert again.validation.equals(whole.validation)


def test_the_second_phase_goes_on_bit_for_bit_too(catalog: Catalog, tmp_path: Path) -> None:
    recipe, embedder = _few_steps("head_then_trunk"), _embedder("head_then_trunk")
    whole = _train(recipe, embedder, catalog, tmp_path / "whole")
    with pytest.raises(_KilledError):
        _train(recipe, embedder, catalog, tmp_path / "killed", on_step=_kill_at(8))
    assert _train(recipe, embedder, catalog, tmp_path / "killed").embedder.fingerprint() == whole.embedder.fingerprint()


def test_the_head_first_and_then_the_trunk(catalog: Catalog, tmp_path: Path) -> None:
    recipe, embedder = _few_steps("head_then_trunk", num_steps=6, head_first_steps=3), _embedder("head_then_trunk")
    result = _train(recipe, embedder, catalog, tmp_path / "run")
    rates = result.history[["learning_rate/block 0", "learning_rate/final", "learning_rate/head"]] > 0
    assert rates.to_numpy().tolist() == [[False, False, True]] * 3 + [[True, True, False]] * 3
    assert (result.history["learning_rate/loss"] > 0).all()
    folder = tmp_path / "run" / "checkpoints"
    middle, end = (torch.load(next(folder.glob(f"checkpoint_{step:08d}_*")))["model"] for step in (3, 6))
    start = embedder.state_dict()
    for key, value in middle.items():
        if key.startswith("embedder.trunk."):
            assert torch.equal(value, start[key.removeprefix("embedder.")]), key
        if key.startswith("embedder.head."):
            assert torch.equal(value, end[key]), key
    moved = [key for key in middle if key.startswith("embedder.trunk.") and not torch.equal(middle[key], end[key])]
    assert len(moved) > 20


@pytest.mark.parametrize("part", ["trunk", "head"])
def test_what_is_frozen_keeps_every_bit(part: str, catalog: Catalog, tmp_path: Path) -> None:
    embedder = _embedder("scratch", head="bnneck", embedding_dim=8)  # a convnet: its running statistics count too
    recipe = _few_steps("scratch", num_steps=4, freeze=part, loss="cross_entropy+triplet+center", weight_decay=0.5)
    result = _train(recipe, embedder, catalog, tmp_path / "run")
    before, after = embedder.state_dict(), result.embedder.state_dict()
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"trunk", "head"} - {part}


def test_a_frozen_trunk_sees_each_image_once_and_learns_the_same(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = _embedder("scratch", head="bnneck", embedding_dim=8)
    recipe = _few_steps("scratch", freeze="trunk", augment=False, loss="cross_entropy+triplet", validation_interval=4)
    num_seen = 0
    forward = Trunk.forward

    def count(trunk: Trunk, images_NCHW: torch.Tensor) -> torch.Tensor:
        nonlocal num_seen
        num_seen += len(images_NCHW)
        return forward(trunk, images_NCHW)

    monkeypatch.setattr(Trunk, "forward", count)
    lines: list[str] = []
    cached = _train(recipe, embedder, catalog, tmp_path / "cached", log=lines.append)
    assert num_seen == 24 + 8  # training and validation, however many steps
    assert any("embedded all images once" in line for line in lines)
    monkeypatch.setattr(loop, "can_embed_once", lambda embedder, recipe: False)
    plain = _train(recipe, embedder, catalog, tmp_path / "plain")
    assert num_seen == 32 + 12 * 8 + 3 * 8
    # float32: the trunk sums the same images in batches of other companions
    assert cached.history["loss"].to_numpy() == pytest.approx(plain.history["loss"].to_numpy(), rel=1e-4)
    assert cached.validation_images["predicted"].tolist() == plain.validation_images["predicted"].tolist()
    assert cached.validation["step"].tolist() == [4, 8, 12]


def test_augmented_images_are_embedded_each_time(catalog: Catalog, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = _few_steps("nvidia_adaptors", num_steps=3)
    _train(recipe, _embedder("nvidia_adaptors"), catalog, tmp_path / "run", log=lines.append)
    assert not any("embedded all images once" in line for line in lines)


def test_both_outputs_of_the_adaptors_are_kept(catalog: Catalog, tmp_path: Path) -> None:
    recipe = _few_steps("nvidia_adaptors", num_steps=3)
    result = _train(recipe, _embedder("nvidia_adaptors"), catalog, tmp_path / "run")
    assert {"loss/cross_entropy", "loss/triplet"} <= set(result.history)
    assert result.history["loss"].to_numpy() == pytest.approx(
        (result.history["loss/cross_entropy"] + result.history["loss/triplet"]).to_numpy(), rel=1e-5
    )
    saved = load_embedder(tmp_path / "run" / "embedder")
    assert saved.classes == tuple(f"sku_{number}" for number in range(4))
    images_NCHW = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(saved.classify(images_NCHW), result.embedder.classify(images_NCHW))
        assert saved(images_NCHW).norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)
    assert result.validation["answers_by"].tolist() == ["classifier"]


def test_without_a_classifier_the_nearest_class_mean_answers(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "MEAN_IMAGES", 5)  # of 6 that there are
    recipe = _few_steps("nvidia_v1_triplet", num_steps=4)
    result = _train(recipe, _embedder("nvidia_v1_triplet"), catalog, tmp_path / "run")
    assert result.validation["answers_by"].tolist() == ["class means"]
    assert result.embedder.classifier is None

    render = render_plain(result.embedder.preprocessing)

    def embed(path: Path) -> np.ndarray:
        with torch.no_grad():
            images_NCHW = result.embedder.preprocessing.normalise(torch.from_numpy(render(path).copy())[None])
            return result.embedder(images_NCHW)[0].double().numpy()

    train_part, val_part = catalog.select("train"), catalog.select("val")
    labels = sorted(set(train_part.labels))
    means = {}
    for label in labels:
        paths = [path for path, own in zip(train_part.image_paths(), train_part.labels, strict=True) if own == label]
        mean = np.mean([embed(path) for path in paths[:5]], axis=0)
        means[label] = mean / np.linalg.norm(mean)
    expected = [max(labels, key=lambda label: embed(path) @ means[label]) for path in val_part.image_paths()]
    assert result.validation_images["predicted"].tolist() == expected
    assert len(set(expected)) > 1


def test_centers_move_at_their_own_rate_whatever_their_weight(catalog: Catalog, tmp_path: Path) -> None:
    centers = []
    for number, (weight, rate) in enumerate([(5e-4, 0.5), (0.05, 0.5), (5e-4, 0.25)]):
        recipe = _few_steps("reid_bnneck", num_steps=1, warmup_steps=0, center_weight=weight, learning_rate_center=rate)
        _train(recipe, _embedder("reid_bnneck"), catalog, tmp_path / str(number))
        model = load_newest(tmp_path / str(number) / "checkpoints", print)["model"]  # type: ignore[index]
        (key,) = [key for key in model if key.endswith("centers")]
        centers.append(model[key])
    start = build_loss(recipe, 4, 256).center_parameters()[0].detach()
    moved = [after - start for after in centers]
    assert moved[0].abs().max() > 1e-3
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(moved[2], moved[0] / 2, rtol=1e-3, atol=1e-5)


def test_triplets_without_positives_are_refused(tmp_path: Path) -> None:
    many = draw_catalog(tmp_path / "set", num_classes=40, num_train=2, num_val=1, px=16)
    recipe = _few_steps("nvidia_v1_triplet", sampler="balanced", depth=2, num_steps=3)
    with pytest.raises(ValueError, match=r"batch of 8 images 9% of them meet another.*Set sampler to 'identity'"):
        _train(recipe, _embedder("nvidia_v1_triplet"), many, tmp_path / "run")
