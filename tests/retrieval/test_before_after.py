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
from workbench.report.verdict import judge_headline
from workbench.retrieval.before_after import (
    changes_hits,
    changes_metrics,
    changes_table,
    classifier_metrics,
    compare_embedders,
    evaluation_plan,
    seen_plan,
    validation_table,
)
from workbench.retrieval.identification import IdentificationPlan
from workbench.retrieval.recognition import RecognitionPlan
from workbench.runs.hits import save_hits

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


def _made(folder: Path, task: str) -> Catalog:
    """Three colours; in re-identification each is seen by two cameras."""
    rows, rng = [], np.random.default_rng(0)
    splits = ("train", "reference", "query") if task == "recognition" else ("train", "gallery", "query")
    for split in splits:
        for label, colour in COLOURS.items():
            for number in range(2):
                name = f"{split}-{label}-{number}.png"
                pixels = np.clip(np.array(colour) + rng.integers(-15, 16, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name)
                trained = f"trained {label}" if split == "train" else label
                rows.append((name, trained, split, int(split == "gallery")))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "camera"]).astype({"camera": "Int64"})
    frame = frame.assign(domain="real", source="set", group=pd.Series([None] * len(rows), dtype="str"))
    protocols: dict[str, dict[str, object]] = {
        "recognition": {"reference_sets": ["reference:real"], "query_split": "query", "shots": [1, 2]},
        "reid": {"query_split": "query", "gallery_split": "gallery"},
    }
    card = replace(read_card("grocery_store"), task=task, protocol=protocols[task])
    return Catalog(frame=frame, roots={"set": folder}, cards={"set": card}, missing_splits={})


class _Colours(torch.nn.Module):
    """A trunk that sees the mean colour (right), or only how many pixels there are (nothing)."""

    def __init__(self, sees: bool) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0 if sees else 0.0))

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.scale * images_NCHW.mean(dim=(2, 3)) + (1 - self.scale) * torch.ones(len(images_NCHW), 3)


def _embedder(sees: bool) -> Embedder:
    whole = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    described = {**whole.described, "embedding_dim": 3, "num_features": 3}
    return Embedder(_Colours(sees), torch.nn.Identity(), whole.preprocessing, described)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(tmp_path / "outputs"))


def test_each_image_among_all_the_others_before_and_after(tmp_path: Path) -> None:
    catalog = _made(tmp_path, "recognition")
    card = catalog.cards["set"]
    left_out = replace(card, protocol=card.protocol | {"leave_one_out": ["reference", "query"]})
    plan, classes = evaluation_plan(replace(catalog, cards={"set": left_out}), {"trained red"})
    assert classes == "unseen"
    changes = compare_embedders(plan, _embedder(False), _embedder(True), classes, progress=None, device="cpu")
    assert [change.name for change in changes] == ["recall@1/micro", "MAP@R/micro"]
    first = changes[0]
    assert first.question == "unseen classes, each image searches all the others, recall@1"
    # four images of a colour; before, all others tie
    assert (first.before.value, first.after.value, first.chance.value) == pytest.approx((3 / 11, 1, 3 / 11))
    assert first.after.n == 12
    assert first.difference.value == pytest.approx(8 / 11)
    assert list(changes_hits(changes)) == ["recall@1/micro", "MAP@R/micro"]


def test_recognition_before_and_after_on_classes_that_training_never_saw(tmp_path: Path) -> None:
    catalog = _made(tmp_path, "recognition")
    plan, classes = evaluation_plan(catalog, {"trained red"})
    assert isinstance(plan, RecognitionPlan)
    assert classes == "unseen"
    changes = compare_embedders(plan, _embedder(False), _embedder(True), classes, draws=3, progress=None, device="cpu")
    assert [change.name for change in changes] == ["accuracy@1/shots=1/micro", "accuracy@1/shots=2/micro"]
    for change in changes:
        # All references tie for an embedder that sees nothing: a third of the expected answers is right.
        assert change.before.value == pytest.approx(1 / 3)
        assert change.after.value == 1
        assert change.difference.value == pytest.approx(2 / 3)
        assert change.difference.low <= 2 / 3 <= change.difference.high
        assert change.after.n == 6
    metrics = changes_metrics(changes)
    assert next(iter(metrics)) == "accuracy@1/shots=1/micro"
    assert metrics["untuned/accuracy@1/shots=2/micro"] == changes[1].before
    assert metrics["difference/accuracy@1/shots=2/micro"] == changes[1].difference
    assert metrics["chance/accuracy@1/shots=2/micro"].value == pytest.approx(1 / 3)
    assert (
        len(judge_headline({name: vars(one) for name, one in metrics.items()})) == 2
    )  # chance and the untuned embedder
    table = changes_table(changes)
    assert table["baseline"].tolist() == [True, False, True, False]
    assert table["value"].tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1])
    hits = changes_hits(changes)
    assert list(hits) == ["accuracy@1/shots=1/micro", "accuracy@1/shots=2/micro"]
    assert hits["accuracy@1/shots=1/micro"].hit_DQ.tolist() == [[1] * 6] * 3
    assert dict(
        zip(hits["accuracy@1/shots=2/micro"].query_Q, hits["accuracy@1/shots=2/micro"].label_Q, strict=True)
    ) == {f"set/query-{label}-{number}.png": label for label in COLOURS for number in range(2)}
    assert save_hits(tmp_path, hits).is_file()


def test_re_identification_before_and_after(tmp_path: Path) -> None:
    plan, classes = evaluation_plan(_made(tmp_path, "reid"), {"trained red"})
    assert isinstance(plan, IdentificationPlan)
    changes = compare_embedders(plan, _embedder(False), _embedder(True), classes, progress=None, device="cpu")
    assert [change.name for change in changes] == ["mAP", "rank-1"]
    by_name = {change.name: change for change in changes}
    # by hand: six in random order, two match; H = 1 + 1/2 + ... + 1/6 = 2.45, (H + (6 - H) / 5) / 6
    by_chance = (2.45 + 3.55 / 5) / 6
    assert by_name["mAP"].before.value == pytest.approx(by_chance)  # all six tie, so that every order is as likely
    assert by_name["mAP"].after.value == 1
    assert by_name["mAP"].chance.value == pytest.approx(by_chance)
    assert by_name["rank-1"].chance.value == pytest.approx(2 / 6)
    assert by_name["mAP"].difference.value == pytest.approx(1 - by_chance)
    assert by_name["mAP"].hits.hit_DQ.tolist() == [[1] * 6]
    assert sorted(by_name["rank-1"].hits.query_Q) == sorted(
        f"set/query-{label}-{number}.png" for label in COLOURS for number in range(2)
    )
    assert save_hits(tmp_path, changes_hits(changes)).is_file()


def test_what_training_saw_is_named_so(tmp_path: Path) -> None:
    catalog = _made(tmp_path, "recognition")
    assert evaluation_plan(catalog, set(COLOURS))[1] == "seen"
    plan, classes = evaluation_plan(catalog, {"red"})
    assert classes == "partly seen"
    changes = compare_embedders(plan, _embedder(True), _embedder(True), classes, draws=1, progress=None, device="cpu")
    assert changes[0].name == "partly_seen/accuracy@1/shots=1/micro"
    assert changes[0].difference.value == 0


def test_seen_classes_are_asked_among_the_training_images(tmp_path: Path) -> None:
    catalog = _made(tmp_path, "recognition")
    reference, query = catalog.select(split="reference", label=["red", "blue"]), catalog.select(split="query")
    plan = seen_plan(reference, query)
    assert list(plan.references) == ["training images"]
    assert sorted(set(plan.queries.labels)) == ["blue", "red"]


def test_validation_has_an_interval_over_classes() -> None:
    images = pd.DataFrame(
        {
            "step": [5] * 6 + [9] * 6,
            "label": ["a", "a", "b", "b", "c", "c"] * 2,
            "correct": [True, True, True, False, False, False, True, True, True, True, True, False],
        }
    )
    table = validation_table(images)
    assert table["step"].tolist() == [5, 9]
    assert table["value"].tolist() == pytest.approx([1 / 2, 5 / 6])
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
    assert table["n"].tolist() == [6, 6]


def test_the_classifier_stands_beside_by_query_and_by_class() -> None:
    judged = pd.DataFrame({"step": [5, 9], "answers_by": "classifier"})
    # step 9: of class a three of three are right, of class b none of one
    images = pd.DataFrame(
        {"step": [5, 9, 9, 9, 9], "label": list("aaaab"), "correct": [False, True, True, True, False]}
    )
    metrics = classifier_metrics(judged, images, 9)
    assert {name: (one.value, one.n) for name, one in metrics.items()} == {
        "classifier/accuracy@1/micro": (0.75, 4),
        "classifier/accuracy@1/macro": (0.5, 4),
    }
    for one in metrics.values():
        assert one.low < one.value < one.high
        assert "answered by the classifier" in one.protocol
    assert classifier_metrics(judged.assign(answers_by="class means"), images, 9) == {}
    assert classifier_metrics(judged.iloc[:0], images.iloc[:0], None) == {}
    table = changes_table([], metrics)
    assert list(table["label"]) == list(metrics)
    assert list(table["value"]) == [0.75, 0.5]
    assert not table["baseline"].any()
