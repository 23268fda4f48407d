from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.models.embedder import build_embedder, load_embedder
from workbench.training.memory import estimate_memory
from workbench.training.prepare import check_same_run, ready_embedder
from workbench.training.recipe import Recipe
from workbench.training.recipes import RECIPES, choose_recipe, read_settings
from workbench.training.recipes.tables import recipe_table, tao_counterparts

IDENTITY: dict[str, Any] = {"sampler": "identity", "batch_size": 16}
FROZEN: dict[str, Any] = {"freeze": "trunk", "blockwise_decay": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "cosface"}, "loss is made of arcface, .*found 'cosface'"),
        ({"loss": ""}, "loss is made of"),
        ({"last_stride": 2}, "last_stride is 1 or None, found 2"),
        ({"loss": "triplet+triplet"}, "names a term twice"),
        ({"loss": "arcface+cross_entropy"}, "one classifier at most, found arcface and cross_entropy"),
        ({"loss": "center"}, "smallest where all images are one point"),
        ({"loss": "triplet+center"}, "smallest where all images are one point"),
        ({"label_smoothing": 0.1}, "label_smoothing is of cross_entropy, which is no term of arcface"),
        ({"loss": "max_entropy", "label_smoothing": 0.1}, "no term of max_entropy"),
        ({"loss": "cross_entropy", "label_smoothing": 1.0}, r"label_smoothing lies in \[0, 1\)"),
        ({"dynamic_margin_deg": (30.0, 10.0)}, "0 <= first <= second < 90"),
        ({"dynamic_margin_deg": (30.0,)}, "0 <= first <= second < 90"),
        ({"triplet_margin": -0.1}, "triplet_margin is at least 0 or None"),
        ({"subcenters": 0}, "subcenters is at least 1"),
        ({"center_weight": 0.0}, "center_weight is above 0"),
        ({"miner": "easy"}, "miner is one of batch_hard, all"),
        ({"head": "identity", "embedding_dim": 8}, "embedding_dim is for a new head"),
        ({"head": "linear", "neck_feature": "before"}, "neck_feature is of the bnneck head"),
        ({"head": "adaptors"}, "keep its random weights: the classifier sits on the last adaptor"),
        ({"head": "adaptors", "loss": "cross_entropy+center"}, "join triplet to the loss cross_entropy.center"),
        ({"schedule": "multistep"}, "the multistep schedule needs milestones"),
        ({"milestones": (0.5,)}, "milestones are for the multistep schedule"),
        ({"schedule": "multistep", "milestones": (0.5, 0.5)}, "milestones rise"),
        ({"schedule": "multistep", "milestones": (40.0, 70.0)}, "shares of the length"),
        ({"schedule": "multistep", "milestones": (0.5,), "gamma": 2.0}, "gamma above 1"),
        ({"head_first_steps": 100}, "head_first_steps 100 leave nothing of num_steps 100"),
        ({"head_first_steps": 10, **FROZEN}, "at first only, freeze='trunk' always"),
        ({"head_first_steps": 10, "freeze": "head"}, "freeze='head' never"),
        ({"freeze": "trunk"}, "blockwise_decay 0.7 has no blocks to act on"),
        ({"gradient_checkpointing": True, **FROZEN}, "gradient_checkpointing saves nothing"),
        ({"loss": "triplet", "head": "identity", **FROZEN, **IDENTITY}, "nothing would be trained"),
        ({"loss": "triplet", "head": "identity", "head_first_steps": 5, **IDENTITY}, "frozen at first"),
        ({"freeze": "head", "head": "linear"}, "keep a new linear head at its random weights"),
        ({"lora_rank": 4, **FROZEN}, "lora_rank trains updates of the trunk"),
        ({"lora_rank": -1}, "lora_rank is at least 0"),
        ({"sampler": "identity", "batch_size": 18}, "two whole identities of 4 images"),
        ({"sampler": "identity", "batch_size": 4}, "two whole identities of 4 images"),
        ({**IDENTITY, "accumulation_steps": 4}, "in each of the 4 parts"),
        ({**IDENTITY, "images_per_identity": 1}, "one image has no positive"),
        ({**IDENTITY, "depth": 10}, "depth 10 is no multiple of images_per_identity 4"),
        ({**IDENTITY, "domain_weights": {"real": 1.0}}, "leave domain_weights out"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_a_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"name": "x", "num_steps": 100, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "identity", "batch_size": 8},  # no triplet, no center: batches may still be P x K
        {"loss": "triplet", "head": "linear", **FROZEN, **IDENTITY},
        {"loss": "cross_entropy", "head": "identity", **FROZEN},
        {"loss": "triplet", "triplet_margin": None},
        {"freeze": "head"},
        {"lora_rank": 4, "freeze": "head"},
        {**IDENTITY, "accumulation_steps": 2, "depth": 8},
        {"schedule": "multistep", "milestones": (0.3, 0.7)},
    ],
)
def test_unusual_combinations_that_make_sense_are_not(changes: dict[str, Any]) -> None:
    Recipe(**{"name": "x", "num_steps": 100, **changes})


def test_what_the_embedder_forbids_is_refused_before_the_training() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    triplet = Recipe("x", "triplet", num_steps=9, **IDENTITY)
    with pytest.raises(
        ValueError, match=r"Nothing would be trained: .*neither the embedder's head nor the loss triplet"
    ):
        ready_embedder(embedder, replace(triplet, **FROZEN))
    with pytest.raises(ValueError, match="Nothing would be trained at first"):
        ready_embedder(embedder, replace(triplet, head_first_steps=3))
    with pytest.raises(ValueError, match="the embedder's head has no weights"):
        ready_embedder(embedder, Recipe("x", num_steps=9, freeze="head"))


def test_the_recipe_sets_the_last_stride_of_trained_weights_and_says_so(tmp_path: Path) -> None:
    plain, last = (build_embedder("timm:test_resnet", "random", image_size=(64, 32), last_stride=n) for n in (2, 1))
    recipe = Recipe("x", num_steps=9, last_stride=1)
    ready = ready_embedder(load_embedder(plain.save(tmp_path / "trained")), recipe).eval()
    assert ready.fingerprint() == last.fingerprint()
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ready(images), last(images))
    assert ready_embedder(ready, recipe).fingerprint() == last.fingerprint(), "once is enough"
    assert ready_embedder(ready, replace(recipe, last_stride=None)).described["last_stride"] == 1, "kept as it is"
    assert ready_embedder(plain, replace(recipe, last_stride=None)).described == plain.described
    with pytest.raises(
        ValueError, match=r"timm:test_vit has no last stage .* Give last_stride=none among the settings"
    ):
        ready_embedder(build_embedder("timm:test_vit", "random", image_size=(32, 32)), RECIPES["reid_bnneck"])
    assert choose_recipe("reid_bnneck", read_settings("last_stride=none")).last_stride is None


def test_a_trunk_that_cannot_be_layered_wants_one_rate() -> None:
    embedder = build_embedder("timm:pit_ti_224", "random", image_size=(32, 32))
    with pytest.raises(ValueError, match=r"timm:pit_ti_224 cannot be layered: .*at one rate \(blockwise_decay=1\)"):
        ready_embedder(embedder, RECIPES["retailklip"])
    recipe = choose_recipe("retailklip", read_settings("blockwise_decay=1, gradient_checkpointing=true, batch_size=2"))
    assert ready_embedder(embedder, recipe) is embedder
    assert estimate_memory(embedder, recipe, num_classes=3)["activations"] > 0


def test_a_head_that_is_there_is_kept_and_another_takes_its_place() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32), head="bnneck", embedding_dim=8)
    head, recipe = embedder.head, Recipe("x", num_steps=9, head="bnneck", embedding_dim=8)
    assert ready_embedder(embedder, replace(recipe, head="keep", embedding_dim=None)).head is head
    assert ready_embedder(embedder, recipe).head is head
    assert ready_embedder(embedder, replace(recipe, neck_feature="before")).head is not head
    assert (
        ready_embedder(embedder, replace(recipe, head="adaptors", loss="arcface+triplet")).described["head"]
        == "adaptors"
    )


def test_an_old_name_of_a_field_is_told() -> None:
    old = {**RECIPES["scratch"].to_dict(), "learning_rate": 1e-3}
    with pytest.raises(ValueError, match="no field learning_rate; learning_rate is called learning_rate_trunk now"):
        Recipe.from_dict(old)
    with pytest.raises(ValueError, match="is called learning_rate_trunk now"):
        choose_recipe("scratch", learning_rate=1e-3)


def test_a_checkpoint_of_an_older_workbench_is_told(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"older workbench \(format 1\)"):
        check_same_run({"format_version": 1}, {"format_version": 2}, tmp_path)


def test_published_values() -> None:
    reid, adaptors = RECIPES["reid_bnneck"], RECIPES["nvidia_adaptors"]
    assert (reid.label_smoothing, reid.triplet_margin, reid.center_weight, reid.learning_rate_center) == (
        0.1,
        0.3,
        5e-4,
        0.5,
    )
    assert (reid.images_per_identity, reid.batch_size, reid.learning_rate_trunk) == (4, 64, 3.5e-4)
    assert reid.last_stride == 1
    assert [round(share * 120) for share in reid.milestones] == [40, 70]
    assert (adaptors.loss, adaptors.freeze, adaptors.head) == ("cross_entropy+triplet", "trunk", "adaptors")
    assert RECIPES["nvidia_v1_triplet"].learning_rate_head < RECIPES["nvidia_v1_triplet"].learning_rate_trunk
    first = RECIPES["head_then_trunk"]
    assert first.learning_rate_head / first.learning_rate_trunk == pytest.approx(80)
    assert first.embedding_dim == 64
    for name, margins in (
        ("subcenter_arcface", ("subcenters", 3)),
        ("dynamic_margin", ("dynamic_margin_deg", (2.9, 28.6))),
    ):
        changed = {
            key for key, value in RECIPES[name].to_dict().items() if value != RECIPES["retailklip"].to_dict()[key]
        }
        assert changed == {"name", "loss"}
        assert getattr(RECIPES[name], margins[0]) == margins[1]
    # the paper's 0.05 and 0.5 rad
    assert np.degrees([0.05, 0.5]) == pytest.approx(RECIPES["dynamic_margin"].dynamic_margin_deg, abs=0.06)


def test_shorter_runs_keep_both_phases() -> None:
    assert choose_recipe("head_then_trunk", num_steps=30).head_first_steps == 10
    assert choose_recipe("head_then_trunk", num_steps=5000).head_first_steps == 1000


def test_augmentation_is_switched() -> None:
    assert choose_recipe("nvidia_adaptors", augment=False).augmentation is None
    assert choose_recipe("linear_probe").augmentation is None
    assert choose_recipe("linear_probe", flip_share=0.0).augmentation is None
    for given in ({"flip_share": 0.5}, {"flip_share": 0.5, "augment": True}):
        shown = choose_recipe("linear_probe", **given).augmentation  # type: ignore[arg-type]
        assert shown is not None
        assert shown.flip_share == 0.5
    assert choose_recipe("reid_bnneck", augment=True).augmentation == RECIPES["reid_bnneck"].augmentation
    with pytest.raises(ValueError, match="Choose one"):
        choose_recipe("scratch", augment=False, flip_share=0.5)


def test_the_tables_name_every_recipe_and_fields_that_there_are() -> None:
    table = recipe_table().set_index("recipe")
    assert table.index.tolist() == list(RECIPES)
    assert table.loc["nvidia_adaptors", "rates"] == "adamw: -, 1.0e-03, 1.0e-03"
    assert table.loc["reid_bnneck", "sampler"] == "P x 4"
    assert table.loc["head_then_trunk", "frozen"] == "trunk for 1000 steps, then head"
    assert table.loc["retailklip", "rates"] == "adamw: 2.0e-04 x 0.7 a block, 2.0e-04, 2.0e-03"
    tao = tao_counterparts().set_index("tao")["here"]
    asked = (
        *("smooth_loss", "checkpoint_interval", "report_accuracy_per_class", "topk", "neck_feat", "with_flip_feature"),
        *("with_center_loss", "label_smooth", "last_stride", "gamma"),
    )
    assert set(asked) <= set(tao.index)
    for option in ("neck_feat", "gamma", "optim.trunk.base_lr", "optim.embedder.base_lr", "num_instances"):
        assert hasattr(RECIPES["scratch"], tao[option].split(",")[0]), option
