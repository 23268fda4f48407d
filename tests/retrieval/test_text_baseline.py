"""When text answers and when it says why not, with a CLIP model of 24 dimensions and random weights."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import Image
from small_sets import catalog_of
from tiny_clip import TINY

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.models.embedder import build_embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.text_baseline import recognise_by_text

CLIP = "open_clip:tiny"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)


def draw(root: Path, labels: tuple[str, ...]) -> Catalog:
    rng, rows = np.random.default_rng(0), []
    for label in labels:
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / f"{label}_{number}.png")
            rows.append((f"{label}_{number}.png", label, "val"))
    drawn = catalog_of(root, rows)
    return Catalog(drawn.frame, drawn.roots, {"template": read_card("template")}, {})


def test_names_are_asked_and_ids_are_refused_with_the_reason(tmp_path: Path) -> None:
    named = draw(tmp_path, ("Royal-Gala", "Oat-Milk", "Red_Onion"))
    embedder = build_embedder(CLIP, "random", seed=3)
    queries = embed_catalog(embedder, named, cache=tmp_path / "cache", device="cpu", num_workers=1, progress=None)
    protocol = FewShotProtocol(("all",))
    metrics, words = recognise_by_text(CLIP, "random", embedder, named, queries, protocol, seed=3)
    assert metrics["zero_shot/accuracy@1/micro"].n == 6
    assert "class names" in words
    assert "Random weights give chance" in words
    (tmp_path / "ids").mkdir()
    ids = draw(tmp_path / "ids", ("4006381333931", "5449000000996"))
    metrics, words = recognise_by_text(CLIP, "random", embedder, ids, queries, protocol)
    assert metrics == {}
    assert words.startswith("Zero-shot by text: not measured. ")


def test_other_trunks_and_other_spaces_have_no_text(tmp_path: Path) -> None:
    named = draw(tmp_path, ("Royal-Gala", "Oat-Milk"))
    plain = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    options = {"device": "cpu", "num_workers": 1, "progress": None}
    queries = embed_catalog(plain, named, cache=tmp_path / "cache", **options)  # type: ignore[arg-type]
    metrics, words = recognise_by_text("timm:test_vit", "random", plain, named, queries, FewShotProtocol(("all",)))
    assert (metrics, words.count("open_clip:...")) == ({}, 1)
    pooled = build_embedder(CLIP, "random", pooling="mean")  # tokens before the projection: another space
    metrics, words = recognise_by_text(CLIP, "random", pooled, named, queries, FewShotProtocol(("all",)))
    assert metrics == {}
    assert words.startswith("Zero-shot by text: not measured. ")
