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
from workbench.export.acceptance import Acceptance, AcceptanceError
from workbench.export.checks import Check
from workbench.export.trial import LIMITS, Tried, flips_table, plan_trial, try_export, worst_pictures
from workbench.export.trial_tables import collect_metrics, named_checks
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.embed import NotFiniteError
from workbench.retrieval.stats import Metric

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
    assert trial.words == f"queries against references references:real; {tried.acceptance.protocol}"
    assert "6 queries of 3 labels, 0 without a row of their label; 6 rows of 3 labels" in trial.words
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


class Overflows(Colours):
    """Gives NaN for pictures with a white corner, as fp16 does where a sum grows too large."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        moved_B = (super().forward(images) - Colours("none").forward(images)).abs().amax(dim=1) > 0.01
        return torch.where(moved_B[:, None], torch.nan, Colours("none").forward(images))


def test_an_export_that_overflows_fails_and_names_the_picture(tmp_path: Path, cache: Path) -> None:
    trial = plan_trial(draw(tmp_path, "recognition"))
    tried = try_export(trial, Colours(), Overflows("marked"), LIMITS["fp16"], cache=cache, **OPTIONS)
    with pytest.raises(AcceptanceError, match=r"rows without a direction: 1, wanted <= 0.*1 of 12 rows"):
        tried.acceptance.raise_if_failed()
    assert worst_pictures(tried, num=1)[0][0].path.name == "red_3.png"
    assert len(flips_table(tried)) == len(tried.acceptance.changes()) == 0
    assert collect_metrics({"ort": tried})["ort/check/rows_without_a_direction"].value == 1
    # torch itself has no such excuse
    with pytest.raises(NotFiniteError):
        try_export(trial, Overflows("marked"), Colours(), LIMITS["fp16"], cache=cache, **OPTIONS)


def test_individuals_are_not_answered_from_their_own_camera(tmp_path: Path, cache: Path) -> None:
    trial = plan_trial(draw(tmp_path, "reid"))
    assert trial.by_camera
    tried = try_export(trial, Colours(), Colours(), LIMITS["fp32"], cache=cache, **OPTIONS)
    assert "own label in own camera left out" in tried.acceptance.protocol
    assert trial.words == f"queries against the gallery; {tried.acceptance.protocol}"
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
    metrics = collect_metrics({"ort": tried})
    assert next(iter(metrics)) == "ort/torch/accuracy@1"
    # one of six queries answers green; its embedding alone has moved
    assert metrics["ort/check/label_flips"].value == pytest.approx(1 / 6)
    assert metrics["ort/check/top_1_agreement_nearest_row"].value <= 5 / 6
    assert metrics["ort/check/cosine_median"].value == pytest.approx(1)
    cosines = np.concatenate([tried.acceptance.cosine_N, tried.acceptance.cosine_Q])
    assert metrics["ort/check/cosine_min"].value == cosines.min() < metrics["ort/check/cosine_p01"].value < 0.95
    assert metrics["ort/check/rows_without_a_direction"].protocol.endswith("rows without a direction; wanted <= 0")
    assert {"ort/check/neighbour_overlap_at_6", "ort/check/drift_of_the_threshold_at_FAR_1"} <= set(metrics)
    for name, metric in metrics.items():
        if "/check/" in name:
            assert metric.low == metric.value == metric.high
            assert metric.n in (6, 12)
            assert tried.acceptance.protocol in metric.protocol
            assert "/check/change_of" not in name


def test_what_is_not_defined_is_no_metric_and_a_card_names_the_runtime_of_each_check() -> None:
    checks = (
        Check("rows without a direction", 2.0, "<= 0", False, 12, "2 of 12"),
        Check("drift of the threshold at FAR 1 %", float("nan"), "", None, 0, "nothing to refuse"),
    )
    acceptance = Acceptance(
        LIMITS["fp16"], checks, pd.DataFrame(), pd.DataFrame(), np.zeros(0), np.zeros(0), {}, "a line"
    )
    empty: Any = None
    tried = {"openvino": Tried(empty, empty, acceptance)}
    line = "a line; rows without a direction; wanted <= 0"
    assert collect_metrics(tried) == {"openvino/check/rows_without_a_direction": Metric(2, 2, 2, 12, line)}
    named = named_checks(tried, {"openvino": "openvino 2026.1"})
    assert named["check"].tolist() == [f"openvino 2026.1: {check.check}" for check in checks]
    assert named["passed"].tolist() == [False, pd.NA]
    assert tried["openvino"].acceptance.table()["check"].tolist() == [check.check for check in checks]


def test_cards_that_say_nothing_are_refused(tmp_path: Path) -> None:
    catalog = draw(tmp_path, "recognition")
    card = replace(catalog.cards["template"], protocol={})
    with pytest.raises(ValueError, match="which images are references"):
        plan_trial(Catalog(catalog.frame, catalog.roots, {"template": card}, {}))
