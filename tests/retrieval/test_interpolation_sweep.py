"""Colours that an embedder sees better, the nearer it is to the trained one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.before_after import compare_embedders, evaluation_plan
from workbench.retrieval.interpolation import SHARES, interpolation_metrics, sweep_interpolation
from workbench.retrieval.stats import Metric

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(tmp_path / "outputs"))
    rows, rng = [], np.random.default_rng(0)
    for split in ("reference", "query"):
        for label, colour in COLOURS.items():
            for number in range(2):
                name = f"{split}-{label}-{number}.png"
                pixels = np.clip(np.array(colour) + rng.integers(-15, 16, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
                rows.append((name, label, split))
    frame = pd.DataFrame(rows, columns=["path", "label", "split"]).assign(domain="real", source="set", group=None)
    frame["camera"] = pd.array([pd.NA] * len(rows), dtype="Int64")
    protocol = {"reference_sets": ["reference:real"], "query_split": "query", "shots": [1, 2]}
    card = replace(read_card("grocery_store"), protocol=protocol)
    return Catalog(frame.astype({"group": "str"}), {"set": tmp_path}, {"set": card}, {})


class _Colours(torch.nn.Module):
    """A trunk that answers `sees` times the mean colour plus a constant; a negative weight turns colours round."""

    def __init__(self, sees: float) -> None:
        super().__init__()
        self.sees = torch.nn.Parameter(torch.tensor(sees))

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.sees * images_NCHW.mean(dim=(2, 3)) + 1 - self.sees.abs()


def _embedder(sees: float) -> Embedder:
    whole = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    described = {**whole.described, "embedding_dim": 3, "num_features": 3}
    return Embedder(_Colours(sees), torch.nn.Identity(), whole.preprocessing, described)  # type: ignore[arg-type]


def test_a_row_a_share_and_number_equal_to_the_existing_evaluation(catalog: Catalog) -> None:
    plan, classes = evaluation_plan(catalog, ["other"])
    before, after = _embedder(-1.0), _embedder(1.0)  # at 0.5 every image is embedded alike
    table = sweep_interpolation(plan, before, after, classes, (0, 0.5, 1), draws=2, progress=None)
    one = table[table["name"] == "accuracy@1/shots=1/micro"]
    assert one["share"].tolist() == [0, 0.5, 1]
    assert one["value"].tolist() == pytest.approx([1, 1 / 3, 1])  # all tie in the middle: one of three by chance
    assert one["difference"].tolist() == pytest.approx([0, -2 / 3, 0])
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table["n"] == 6).all()
    assert table["name"].nunique() == 2
    assert table["question"].str.contains("unseen classes").all()
    assert table["protocol"].str.contains("few-shot gallery").all()
    for change in compare_embedders(plan, before, after, classes, draws=2, progress=None):
        rows = table[table["name"] == change.name].set_index("share")
        for share, metric in ((0, change.before), (1, change.after)):
            assert tuple(rows.loc[share, ["value", "low", "high", "n"]]) == (
                metric.value,
                metric.low,
                metric.high,
                metric.n,
            )


@pytest.mark.parametrize("shares", [(), (0.5, 0.5), (1, 0), (-0.1, 1), (0, 1.1)])
def test_shares_that_do_not_rise_are_refused(catalog: Catalog, shares: tuple[float, ...]) -> None:
    plan, classes = evaluation_plan(catalog, ["other"])
    with pytest.raises(ValueError, match="shares rise and lie within 0 to 1"):
        sweep_interpolation(plan, _embedder(0.0), _embedder(1.0), classes, shares)


def test_the_default_shares_are_tenths() -> None:
    assert SHARES == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def test_other_architectures_are_refused_before_anything_is_embedded(catalog: Catalog, tmp_path: Path) -> None:
    plan, classes = evaluation_plan(catalog, ["other"])
    other = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    with pytest.raises(ValueError, match="one architecture"):
        sweep_interpolation(plan, _embedder(0.0), other, classes)
    assert not (tmp_path / "outputs" / "cache").exists()


def test_the_numbers_of_one_share_are_those_of_its_rows() -> None:
    columns = ["share", "name", "value", "low", "high", "n", "protocol"]
    rows = [
        (0.0, "a", 0.1, 0.0, 0.2, 7, "line"),
        (0.5, "a", 0.4, 0.3, 0.5, 7, "line"),
        (0.5, "b", 0.6, 0.5, 0.7, 8, "two"),
    ]
    metrics = interpolation_metrics(pd.DataFrame(rows, columns=columns), 0.5)
    assert metrics == {
        "wise_ft=0.5/a": Metric(0.4, 0.3, 0.5, 7, "line"),
        "wise_ft=0.5/b": Metric(0.6, 0.5, 0.7, 8, "two"),
    }
    with pytest.raises(ValueError, match=r"0\.7 was not swept"):
        interpolation_metrics(pd.DataFrame(rows, columns=columns), 0.7)
