import pytest
import torch
from torch import nn

from workbench.models.classifier import Classifier
from workbench.models.embedder import Embedder, build_embedder
from workbench.models.interpolation import interpolate


class _Linear(nn.Module):
    """A trunk of one weight, with a norm behind it whose statistics count too."""

    def __init__(self, weight: list[float], mean: float, variance: float, num_batches: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.norm = nn.BatchNorm1d(1)
        self.norm.running_mean.fill_(mean)  # type: ignore[union-attr]
        self.norm.running_var.fill_(variance)  # type: ignore[union-attr]
        self.norm.num_batches_tracked.fill_(num_batches)  # type: ignore[union-attr]


def _tiny(weight: list[float], bias: float, mean: float, variance: float, num_batches: int) -> Embedder:
    whole = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    head = nn.Linear(2, 1)
    head.weight.data = torch.tensor([[bias, -bias]])
    head.bias.data = torch.tensor([bias])
    described = {**whole.described, "head": "linear", "embedding_dim": 1, "num_features": 2}
    return Embedder(_Linear(weight, mean, variance, num_batches), head, whole.preprocessing, described)  # type: ignore[arg-type]


def test_by_hand() -> None:
    before, after = _tiny([2.0, -4.0], 1.0, 0.0, 1.0, 3), _tiny([6.0, 0.0], 3.0, 8.0, 5.0, 9)
    half, quarter = interpolate(before, after, 0.5), interpolate(before, after, 0.25)
    assert half.get_parameter("trunk.weight").tolist() == [4.0, -2.0]
    assert half.get_parameter("head.weight").tolist() == [[2.0, -2.0]]
    assert half.get_parameter("head.bias").tolist() == [2.0]
    assert half.get_buffer("trunk.norm.running_mean").tolist() == [4.0]
    assert half.get_buffer("trunk.norm.running_var").tolist() == [3.0]
    assert half.get_buffer("trunk.norm.num_batches_tracked").item() == 9
    assert quarter.get_parameter("trunk.weight").tolist() == [3.0, -3.0]
    assert quarter.get_buffer("trunk.norm.running_var").tolist() == [2.0]
    assert quarter.get_buffer("trunk.norm.num_batches_tracked").item() == 3
    assert before.get_parameter("trunk.weight").tolist() == [2.0, -4.0]
    assert after.get_parameter("trunk.weight").tolist() == [6.0, 0.0]
    assert not half.training


def _pair(**options: object) -> tuple[Embedder, Embedder]:
    first, second = (
        build_embedder("timm:test_vit", "random", image_size=(32, 32), seed=seed, **options)  # type: ignore[arg-type]
        for seed in (0, 1)
    )
    return first, second


def test_the_ends_are_the_ends_bit_for_bit() -> None:
    before, after = _pair(head="bnneck", embedding_dim=8)
    after.attach_classifier(Classifier(torch.ones(2, 8)), ("a", "b"))
    assert before.fingerprint() != after.fingerprint()
    assert interpolate(before, after, 0).fingerprint() == before.fingerprint()
    assert interpolate(before, after, 1).fingerprint() == after.fingerprint()
    assert interpolate(before, after, 0.999).fingerprint() not in (before.fingerprint(), after.fingerprint())


def test_a_classifier_is_mixed_where_both_know_the_same_classes() -> None:
    before, after = _pair()
    for embedder, value in ((before, 1.0), (after, 2.0)):
        embedder.attach_classifier(Classifier(torch.full((2, 64), value), torch.zeros(2)), ("a", "b"))
    mixed = interpolate(before, after, 0.5)
    assert mixed.classifier is not None
    assert mixed.classifier.weight.unique().tolist() == [1.5]
    assert mixed.classes == ("a", "b")
    after.attach_classifier(Classifier(torch.ones(2, 64), torch.zeros(2)), ("a", "c"))
    assert interpolate(before, after, 0.5).classifier is None
    after.attach_classifier(Classifier(torch.ones(2, 64), cosine=True), ("a", "b"))
    assert interpolate(before, after, 0.5).classifier is None


def test_what_cannot_be_mixed_is_refused() -> None:
    before, _ = _pair()
    with pytest.raises(ValueError, match=r"share lies in \[0, 1\]"):
        interpolate(before, before, 1.5)
    with pytest.raises(ValueError, match=r"embedding_dim is 64 before and 8 after .*head='keep'"):
        interpolate(before, _pair(head="linear", embedding_dim=8)[0], 0.5)
    with pytest.raises(ValueError, match="trunk is timm:test_vit before and timm:test_vit2"):
        interpolate(before, build_embedder("timm:test_vit2", "random", image_size=(32, 32)), 0.5)
    with pytest.raises(ValueError, match="preprocessing"):
        interpolate(before, build_embedder("timm:test_vit", "random", image_size=(32, 32), resize="pad"), 1)
