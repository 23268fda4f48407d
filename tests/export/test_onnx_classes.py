"""An embedder with a classifier is exported with both of its outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from workbench.export import onnx as exporting
from workbench.export.folder import ExportError, read_described
from workbench.export.onnx import export_onnx
from workbench.export.runtimes import open_exported
from workbench.export.sessions import RUNTIMES, open_session
from workbench.models.classifier import Classifier
from workbench.models.embedder import Embedder, build_embedder

CLASSES = ["apple", "ähre", "corn"]
HEADS: dict[str, dict[str, Any]] = {
    "bnneck": {"head": "bnneck", "embedding_dim": 16, "neck_feature": "before"},
    "adaptors": {"head": "adaptors", "embedding_dim": 16},
    "lca": {"head": "lca", "embedding_dim": 16},
}


def _trained(head: dict[str, Any], trunk: str = "timm:test_vit") -> Embedder:
    """An embedder whose classifier tells random images apart, and whose neck and adaptors are not at their start."""
    embedder = build_embedder(trunk, "random", image_size=(32, 48), seed=1, **head)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in embedder.head.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    weight = torch.randn(3, embedder.classified_dim, generator=generator)
    if head.get("head") == "adaptors":
        embedder.attach_classifier(Classifier(0.3 * weight, torch.tensor([0.1, 0.0, -0.1])), CLASSES)
    else:
        sub_centers = torch.stack([weight, weight.flip(1)], dim=1)
        embedder.attach_classifier(Classifier(sub_centers, cosine=True, scale=64.0), CLASSES)
    return embedder


def _images(embedder: Embedder, num_images: int = 5) -> torch.Tensor:
    return torch.randn(num_images, 3, *embedder.preprocessing.image_size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "head",
    [pytest.param(head, id=name, marks=pytest.mark.slow if name != "bnneck" else ()) for name, head in HEADS.items()],
)
def test_both_outputs_answer_as_torch(head: dict[str, Any], tmp_path: Path) -> None:
    embedder = _trained(head)
    folder = export_onnx(embedder, tmp_path / "export")
    model = onnx.load(str(folder / "model.onnx"))
    shapes = {
        one.name: [size.dim_param or size.dim_value for size in one.type.tensor_type.shape.dim]
        for one in model.graph.output
    }
    assert shapes == {"embeddings": ["batch", 16], "probs": ["batch", 3]}
    images_NCHW = _images(embedder)
    with torch.no_grad():
        expected_ND, expected_NC = embedder(images_NCHW).numpy(), embedder.classify(images_NCHW).numpy()
    assert np.ptp(expected_NC, axis=0).max() > 1e-3  # the images are not all one to the classifier
    for runtime in RUNTIMES:
        found_ND, found_NC = (
            open_session(folder / "model.onnx", runtime, output=number)(images_NCHW.numpy()) for number in (0, 1)
        )
        np.testing.assert_allclose(found_ND, expected_ND, atol=1e-5)
        np.testing.assert_allclose(found_NC, expected_NC, atol=1e-4)
    described = read_described(folder)
    assert described["classes"] == CLASSES
    assert {entry.key: entry.value for entry in model.metadata_props}["classes"] == json.dumps(CLASSES)
    for figures in described["checked_against_torch"].values():
        assert 0 <= figures["max_difference_of_probs"] <= 1e-4


@pytest.mark.slow
def test_an_opened_export_answers_with_embeddings_alone(tmp_path: Path) -> None:
    embedder = _trained(HEADS["bnneck"], "timm:test_resnet")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    folder = export_onnx(embedder, tmp_path / "export", "fp16", "uint8")
    with torch.no_grad():
        expected_ND = embedder(embedder.preprocessing.normalise(torch.from_numpy(images))).numpy()
    opened = open_exported(folder)
    assert opened.embedding_dim == 16
    np.testing.assert_allclose(open_session(folder / "model.onnx", half=True)(images), expected_ND, atol=2e-2)
    figures = read_described(folder)["checked_against_torch"]["batch_3"]
    assert 0 < figures["max_difference_of_probs"] < 1  # told, and no limit set: the trunk computes in 16 bit


def test_probabilities_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting.answer_apart

    def swapped(model: Path, batches: list[np.ndarray], *, half: bool, output: int = 0) -> list[np.ndarray]:
        answers = real(model, batches, half=half, output=output)
        return [np.roll(answer, 1, axis=1) for answer in answers] if output == 1 else answers

    monkeypatch.setattr(exporting, "answer_apart", swapped)
    with pytest.raises(ExportError, match=r"probabilities differ from torch's by up to .* at batch 1"):
        export_onnx(_trained(HEADS["adaptors"]), tmp_path / "export")
    assert not (tmp_path / "export").exists()
