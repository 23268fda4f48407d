"""Whose answers are compared, on pictures whose nearest row is known beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_sets import catalog_of
from torch import nn

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.export.acceptance import AcceptanceError
from workbench.export.trial import LIMITS, flips_table, plan_trial, try_export, worst_pictures
from workbench.models.embedder import Embedder, build_embedder

OPTIONS: dict[str, Any] = {"device": "cpu", "num_workers": 1, "progress": None}
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


class Colours(Embedder):
    """An embedder that can be followed by hand: the mean of each channel, as a direction."""

    def __init__(self, swaps: str = "none") -> None:
        nn.Module.__init__(self)
        built = build_embedder("timm:test_resnet", "random", image_size=(32, 32))
        self.preprocessing, self.described, self.embedding_dim = built.preprocessing, built.described, 3
        self.swaps = swaps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The direction of the mean colour; red is taken for green in no picture, in all, or in those with a white corner."""
        mean = torch.tensor(self.preprocessing.mean)[:, None, None]
        std = torch.tensor(self.preprocessing.std)[:, None, None]
        pixels = images * std + mean
        colour_BD = pixels.mean(dim=(2, 3))
        marked_B = pixels[:, :, 0, 0].amin(dim=1) > 0.9
        swapped_B = {"none": marked_B & False, "all": marked_B | True, "marked": marked_B}[self.swaps]
        return nn.functional.normalize(torch.where(swapped_B[:, None], colour_BD[:, [1, 0, 2]], colour_BD), dim=1)

    def fingerprint(self) -> str:
        """Enough for the cache."""
        return f"colours-{self.swaps}"


def draw(root: Path, task: str) -> Catalog:
    """Three colours; two references and two queries of each, from cameras 1 and 2 in turn; red_3 has a white corner."""
    rng, rows = np.random.default_rng(0), []
    for label, colour in COLOURS.items():
        for number in range(4):
            name = f"{label}_{number}.png"
            noisy = np.clip(np.array(colour) + rng.normal(0, 5, (32, 32, 3)), 0, 255).astype(np.uint8)
            if name == "red_3.png":
                noisy[0, 0] = 255
            Image.fromarray(noisy).save(root / name)
            rows.append((name, label, "references" if number < 2 else "queries"))
    catalog = catalog_of(root, rows)
    frame = catalog.frame.assign(camera=pd.array([1, 2] * 6, dtype="Int64"))
    protocols: dict[str, dict[str, Any]] = {
        "recognition": {"reference_sets": ["references:real"], "query_split": "queries", "query_domain": "real"},
        "reid": {"query_split": "queries", "gallery_split": "references", "junk": "same_id_same_camera"},
    }
    card = replace(read_card("grocery_store"), task=task, protocol=protocols[task])
    return Catalog(frame, catalog.roots, {"template": card}, {})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_same_answers_pass_and_name_no_flip(tmp_path: Path, cache: Path) -> None:
    trial = plan_trial(draw(tmp_path, "recognition"))
    assert (len(trial.references), len(trial.queries), trial.by_camera) == (6, 6, False)
    tried = try_export(trial, Colours(), Colours(), LIMITS["fp32"], cache=cache, **OPTIONS)
    tried.acceptance.raise_if_failed()
    assert tried.acceptance.metrics["exported/accuracy@1"].value == 1.0
    assert len(flips_table(tried)) == 0


def test_a_model_that_takes_red_for_green_fails_and_the_worst_pictures_are_those(tmp_path: Path, cache: Path) -> None:
    """References by the export too: red and green trade places on both sides, so answers stay and cosines fall."""
    trial = plan_trial(draw(tmp_path, "recognition"))
    tried = try_export(trial, Colours(), Colours("all"), LIMITS["fp32"], cache=cache, **OPTIONS)
    assert tried.acceptance.metrics["exported/accuracy@1"].value == 1.0
    assert tried.acceptance.metrics["mixed/accuracy@1"].value == pytest.approx(1 / 3)  # only blue is still itself
    with pytest.raises(AcceptanceError, match="cosine"):
        tried.acceptance.raise_if_failed()
    pictures, captions = worst_pictures(tried, num=8)
    assert {one.path.name.split("_")[0] for one in pictures} == {"red", "green"}
    assert len(pictures) == len(captions) == 8


def test_individuals_are_not_answered_from_their_own_camera(tmp_path: Path, cache: Path) -> None:
    trial = plan_trial(draw(tmp_path, "reid"))
    assert trial.by_camera
    tried = try_export(trial, Colours(), Colours(), LIMITS["fp32"], cache=cache, **OPTIONS)
    assert "own label in own camera left out" in tried.acceptance.protocol
    assert any("mAP" in name for name in tried.acceptance.metrics)
    tried.acceptance.raise_if_failed()


def test_a_flip_names_picture_and_both_labels(tmp_path: Path, cache: Path) -> None:
    trial = plan_trial(draw(tmp_path, "recognition"))
    tried = try_export(trial, Colours(), Colours("marked"), LIMITS["int8"], cache=cache, **OPTIONS)
    flips = flips_table(tried)
    (changed,) = flips[flips["answer changes"].astype(bool)].itertuples(index=False)
    assert tuple(changed)[:3] == ("red_3.png", "red", "green")
    assert tried.acceptance.metrics["exported/accuracy@1"].value == pytest.approx(5 / 6)
    assert worst_pictures(tried, num=1)[0][0].path.name == "red_3.png"


def test_cards_that_say_nothing_are_refused(tmp_path: Path) -> None:
    catalog = draw(tmp_path, "recognition")
    card = replace(catalog.cards["template"], protocol={})
    with pytest.raises(ValueError, match="which images are references"):
        plan_trial(Catalog(catalog.frame, catalog.roots, {"template": card}, {}))
