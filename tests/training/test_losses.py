"""Every loss against plain loops in float64, written from its paper. Axes: N images, C classes, D width."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as library
from pytorch_metric_learning import miners

from workbench.models.heads import HeadOutputs
from workbench.training.classifying import dynamic_margins
from workbench.training.losses import TrainingLoss, build_loss
from workbench.training.recipe import Recipe

RECIPE = Recipe("test", num_steps=10, batch_size=8, margin_deg=20.0, scale=10.0)
LABELS = [0, 2, 1, 1, 0, 2, 2, 0]
D, C = 6, 3


def _draw(num_images: int = len(LABELS), width: int = D, seed: int = 1) -> torch.Tensor:
    return torch.randn(num_images, width, generator=torch.Generator().manual_seed(seed))


def _same(vector_ND: torch.Tensor) -> HeadOutputs:
    return HeadOutputs(vector_ND, vector_ND, vector_ND)


def _value(loss: TrainingLoss, vector_ND: torch.Tensor, labels: Sequence[int] = LABELS) -> float:
    return float(loss(_same(vector_ND), torch.tensor(labels)).detach())


def _descend(parameters: Sequence[torch.Tensor], rate: float) -> None:
    """One step of plain gradient descent."""
    with torch.no_grad():
        for parameter in parameters:
            assert parameter.grad is not None
            parameter -= rate * parameter.grad
            parameter.grad = None


def _length(vector: np.ndarray) -> float:
    return math.sqrt(sum(float(x) ** 2 for x in vector))


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(first, second, strict=True))
    return dot / _length(first) / _length(second)


def _cross_entropy(logits: Sequence[float], label: int) -> float:
    return -logits[label] + math.log(sum(math.exp(value) for value in logits))


def _with_margin(cosine: float, margin: float) -> float:
    angle = math.acos(cosine)
    return math.cos(angle + margin) if angle <= math.pi - margin else cosine - margin * math.sin(margin)


def _arcface_by_loops(
    vector_ND: torch.Tensor, labels: Sequence[int], weight_CSD: np.ndarray, margin_C: Sequence[float], scale: float
) -> float:
    total = 0.0
    for row, label in zip(vector_ND.double().numpy(), labels, strict=True):
        logits = []
        for number, each_SD in enumerate(weight_CSD):
            cosine = max(_cosine(row, weight) for weight in each_SD)
            logits.append(scale * (_with_margin(cosine, margin_C[number]) if number == label else cosine))
        total += _cross_entropy(logits, label)
    return total / len(labels)


# ---- ArcFace and its kinds


def test_arcface_equals_its_formula_beyond_180_degrees_too() -> None:
    loss = build_loss(RECIPE, C, D)
    weight_DC = loss.get_parameter("parts.arcface.margin_loss.W").detach()
    vector_ND = _draw()
    vector_ND[0] = -3 * weight_DC[:, 0] + 0.05 * vector_ND[0]  # nearly opposite to its class
    expected = _arcface_by_loops(
        vector_ND, LABELS, weight_DC.T.double().numpy()[:, None], [math.radians(20)] * C, scale=10.0
    )
    assert _value(loss, vector_ND) == pytest.approx(expected, rel=1e-5)
    assert float(loss.terms["arcface"]) == pytest.approx(expected, rel=1e-5)


def test_arcface_is_bit_for_bit_the_library_s_on_embeddings_of_length_one() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RECIPE.seed)
        theirs = library.ArcFaceLoss(C, D, margin=20.0, scale=10.0)
    ours, vector_ND = build_loss(RECIPE, C, D), _draw()
    assert torch.equal(ours.get_parameter("parts.arcface.margin_loss.W"), theirs.W)
    embedding_ND = torch.nn.functional.normalize(vector_ND, dim=1)
    assert torch.equal(ours(_same(vector_ND), torch.tensor(LABELS)), theirs(embedding_ND, torch.tensor(LABELS)))


@pytest.mark.parametrize("term", ["arcface", "subcenter_arcface", "cross_entropy", "cross_entropy+triplet"])
def test_random_weights_depend_on_the_recipe_s_seed_alone(term: str) -> None:
    recipe = replace(RECIPE, loss=term)
    torch.manual_seed(1)
    first = build_loss(recipe, 5, 4).state_dict()
    torch.manual_seed(2)
    again, other = build_loss(recipe, 5, 4).state_dict(), build_loss(replace(recipe, seed=1), 5, 4).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_subcenter_arcface_takes_the_nearest_of_a_class_s_centers() -> None:
    loss = build_loss(replace(RECIPE, loss="subcenter_arcface", subcenters=2), C, D)
    weight_DM = loss.get_parameter("parts.subcenter_arcface.margin_loss.W").detach()
    assert weight_DM.shape == (D, C * 2)
    weight_CSD = weight_DM.T.double().numpy().reshape(C, 2, D)
    expected = _arcface_by_loops(_draw(), LABELS, weight_CSD, [math.radians(20)] * C, scale=10.0)
    assert _value(loss, _draw()) == pytest.approx(expected, rel=1e-5)


def test_dynamic_margins_by_hand() -> None:
    # n^(-1/4) of 1, 16, 81 is 1, 1/2, 1/3: heights over the range 1, 1/4, 0
    assert np.degrees(dynamic_margins(np.array([16, 1, 81]), (2.0, 30.0))) == pytest.approx([9.0, 30.0, 2.0])
    assert np.degrees(dynamic_margins(np.array([7, 7]), (2.0, 30.0))) == pytest.approx([16.0, 16.0])
    with pytest.raises(ValueError, match="at least one image of each class; found 0"):
        dynamic_margins(np.array([3, 0]), (2.0, 30.0))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20))
@settings(max_examples=50, deadline=None)
def test_larger_classes_never_have_larger_margins(counts: list[int]) -> None:
    margins = np.degrees(dynamic_margins(np.array(counts), (5.0, 25.0)))
    assert margins.min() >= 5 - 1e-9
    assert margins.max() <= 25 + 1e-9
    assert (np.diff(margins[np.argsort(counts, kind="stable")]) <= 1e-9).all()


def test_dynamic_arcface_gives_each_class_its_margin() -> None:
    recipe = replace(RECIPE, loss="dynamic_arcface", dynamic_margin_deg=(2.0, 60.0))
    loss = build_loss(recipe, C, D, num_images_C=[81, 1, 16])
    weight_DC = loss.get_parameter("parts.dynamic_arcface.margin_loss.W").detach()
    vector_ND = _draw()
    vector_ND[2] = -2 * weight_DC[:, 1] + 0.05 * vector_ND[2]
    margins = [math.radians(degrees) for degrees in (2.0, 60.0, 16.5)]
    expected = _arcface_by_loops(vector_ND, LABELS, weight_DC.T.double().numpy()[:, None], margins, scale=10.0)
    assert _value(loss, vector_ND) == pytest.approx(expected, rel=1e-5)
    # one margin for all is ArcFace itself
    equal = replace(recipe, dynamic_margin_deg=(20.0, 20.0))
    assert _value(build_loss(equal, C, D, num_images_C=[1, 2, 3]), vector_ND) == pytest.approx(
        _value(build_loss(RECIPE, C, D), vector_ND), rel=1e-6
    )
    for wrong in (None, [1, 2]):
        with pytest.raises(ValueError, match="number of images of 3 classes"):
            build_loss(recipe, C, D, num_images_C=wrong)


# ---- cross entropy


def _logits_by_loops(vector_ND: torch.Tensor, loss: TrainingLoss, term: str) -> list[list[float]]:
    weight_CD = loss.get_parameter(f"parts.{term}.linear.weight").detach().double().numpy()
    bias_C = loss.get_parameter(f"parts.{term}.linear.bias").detach().double().numpy()
    return [
        [float(sum(w * x for w, x in zip(weight, row, strict=True)) + bias) for weight, bias in zip(weight_CD, bias_C, strict=True)]
        for row in vector_ND.double().numpy()
    ]  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    loss = build_loss(replace(RECIPE, loss="cross_entropy", label_smoothing=smoothing), C, D)
    vector_ND, total = 5 * _draw(), 0.0
    for logits, label in zip(_logits_by_loops(vector_ND, loss, "cross_entropy"), LABELS, strict=True):
        for number in range(C):
            truth = smoothing / C + (1 - smoothing if number == label else 0)
            total += truth * _cross_entropy(logits, number)
    assert _value(loss, vector_ND) == pytest.approx(total / len(LABELS), rel=1e-5)


def test_max_entropy_is_cross_entropy_less_gamma_times_the_entropy() -> None:
    loss = build_loss(replace(RECIPE, loss="max_entropy", entropy_weight=0.7), C, D)
    vector_ND, total = 5 * _draw(), 0.0
    for logits, label in zip(_logits_by_loops(vector_ND, loss, "max_entropy"), LABELS, strict=True):
        norm = sum(math.exp(value) for value in logits)
        entropy = -sum(math.exp(value) / norm * math.log(math.exp(value) / norm) for value in logits)
        total += _cross_entropy(logits, label) - 0.7 * entropy
    assert _value(loss, vector_ND) == pytest.approx(total / len(LABELS), rel=1e-5)


def test_the_entropy_of_a_certain_prediction_is_0_and_not_nan() -> None:
    loss = build_loss(replace(RECIPE, loss="max_entropy", entropy_weight=0.7), 2, 1, classifier_bias=False)
    torch.nn.init.constant_(loss.get_parameter("parts.max_entropy.linear.weight")[:1], 1e4)
    vector_ND = torch.ones(1, 1, requires_grad=True)
    value = loss(_same(vector_ND), torch.tensor([0]))
    value.backward()
    assert float(value.detach()) == 0.0
    assert vector_ND.grad is not None
    assert torch.isfinite(vector_ND.grad).all()


def test_the_classifier_after_a_neck_has_no_bias_and_starts_small() -> None:
    recipe = replace(RECIPE, loss="cross_entropy")
    weights = dict(build_loss(recipe, 50, 64, classifier_bias=False).named_parameters())
    assert list(weights) == ["parts.cross_entropy.linear.weight"]
    assert float(weights["parts.cross_entropy.linear.weight"].detach().std()) == pytest.approx(0.001, rel=0.1)


# ---- triplets


def _euclidean(first: np.ndarray, second: np.ndarray) -> float:
    return _length(first - second)


def _cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    return 1 - _cosine(first, second)


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"euclidean": _euclidean, "cosine": _cosine_distance}


def _hinge(difference: float, margin: float | None) -> float:
    return math.log(1 + math.exp(difference)) if margin is None else max(0.0, difference + margin)


def _triplets_by_loops(
    vector_ND: torch.Tensor, labels: Sequence[int], distance: str, margin: float | None, miner: str
) -> float:
    rows, measure = vector_ND.double().numpy(), MEASURES[distance]
    values = []
    for anchor in range(len(labels)):
        positives = [k for k in range(len(labels)) if labels[k] == labels[anchor] and k != anchor]
        negatives = [k for k in range(len(labels)) if labels[k] != labels[anchor]]
        if not positives or not negatives:
            continue
        to_positive = [measure(rows[anchor], rows[k]) for k in positives]
        to_negative = [measure(rows[anchor], rows[k]) for k in negatives]
        if miner == "batch_hard":
            values.append(_hinge(max(to_positive) - min(to_negative), margin))
        else:
            each = [_hinge(p - n, margin) for p, n in itertools.product(to_positive, to_negative)]
            values += [value for value in each if value > 0]
    return sum(values) / len(values) if values else 0.0


def _triplet_loss(distance: str, margin: float | None, miner: str) -> TrainingLoss:
    recipe = replace(RECIPE, loss="triplet", triplet_distance=distance, triplet_margin=margin, miner=miner)  # type: ignore[arg-type]
    return build_loss(recipe, C, D)


@pytest.mark.parametrize("miner", ["batch_hard", "all"])
@pytest.mark.parametrize("margin", [None, 0.0, 0.3, 5.0])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_triplets_against_loops(distance: str, margin: float | None, miner: str) -> None:
    vector_ND = _draw()
    expected = _triplets_by_loops(vector_ND, LABELS, distance, margin, miner)
    assert _value(_triplet_loss(distance, margin, miner), vector_ND) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.sampled_from(["batch_hard", "all"]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_triplets_of_any_labels(labels: list[int], miner: str, seed: int) -> None:
    vector_ND = _draw(len(labels), seed=seed)
    for distance, margin in (("euclidean", 0.3), ("cosine", None)):
        loss = _triplet_loss(distance, margin, miner)
        expected = _triplets_by_loops(vector_ND, labels, distance, margin, miner)
        assert _value(loss, vector_ND, labels) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        anchors = [labels.count(label) > 1 and len(set(labels)) > 1 for label in labels]
        assert float(loss.terms["triplet_anchors"]) == pytest.approx(sum(anchors) / len(labels))


@pytest.mark.parametrize("miner", ["batch_hard", "all"])
@pytest.mark.parametrize("labels", [[0] * 5, [0, 1, 2, 3, 4]], ids=["one class", "one image a class"])
def test_a_batch_without_a_triplet_gives_zero_and_says_why(labels: list[int], miner: str) -> None:
    loss, vector_ND = _triplet_loss("euclidean", 0.3, miner), _draw(5).requires_grad_()
    value = loss(_same(vector_ND), torch.tensor(labels))
    value.backward()
    assert float(value.detach()) == 0.0
    assert vector_ND.grad is not None
    assert torch.equal(vector_ND.grad, torch.zeros(5, D))
    assert float(loss.terms["triplet_anchors"]) == 0.0


def test_the_same_image_twice_gives_a_finite_gradient() -> None:
    vector_ND = _draw(4)
    vector_ND[1] = vector_ND[0]  # an anchor at distance 0 of its positive: where the root has no slope
    vector_ND.requires_grad_()
    _triplet_loss("euclidean", 5.0, "batch_hard")(_same(vector_ND), torch.tensor([0, 0, 1, 1])).backward()
    assert vector_ND.grad is not None
    assert torch.isfinite(vector_ND.grad).all()


def test_distances_of_near_duplicates_far_from_the_origin_survive() -> None:
    # one part in 4,096 is a distance that float32 holds, and that its squares lose
    vector_ND = torch.full((40, 1), 4096.0, dtype=torch.float32).repeat(1, D)
    vector_ND[1::2, 0] += 1.0
    labels = [k // 2 % 20 for k in range(40)]
    expected = _triplets_by_loops(vector_ND, labels, "euclidean", 0.3, "batch_hard")
    assert expected == pytest.approx(1.3)
    assert _value(_triplet_loss("euclidean", 0.3, "batch_hard"), vector_ND, labels) == pytest.approx(1.3, rel=1e-6)


def test_fixture_d_of_the_protocols() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vector_ND, label_N = torch.randn(16, 8), torch.arange(4).repeat_interleave(4)
    ours = build_loss(replace(RECIPE, loss="triplet", triplet_margin=0.3), 4, 8)
    assert _value(ours, vector_ND, label_N.tolist()) == pytest.approx(2.563873, abs=1e-6)
    # the other figures are of the library's own defaults: they hold still as long as it does
    pairs = miners.MultiSimilarityMiner(epsilon=0.1)(vector_ND, label_N)
    assert [len(part) for part in pairs] == [44, 44, 161, 161]
    for smooth, expected in ((False, 0.442130), (True, 0.910156)):
        theirs = library.TripletMarginLoss(margin=0.3, smooth_loss=smooth)
        assert float(theirs(vector_ND, label_N, pairs)) == pytest.approx(expected, abs=1e-6)


# ---- centers


def test_center_loss_and_its_gradient_to_the_images() -> None:
    recipe = replace(RECIPE, loss="cross_entropy+center", center_weight=1.0)
    loss, vector_ND = build_loss(recipe, C, D), _draw().requires_grad_()
    (centers_CD,) = loss.center_parameters()
    with torch.no_grad():
        centers_CD.copy_(_draw(C, seed=7))
    loss(_same(vector_ND), torch.tensor(LABELS))
    rows, centers = vector_ND.detach().double().numpy(), centers_CD.detach().double().numpy()
    expected = sum(_length(row - centers[label]) ** 2 for row, label in zip(rows, LABELS, strict=True)) / len(LABELS)
    assert float(loss.terms["center"]) == pytest.approx(expected, rel=1e-5)
    term = loss.parts["center"](vector_ND, torch.tensor(LABELS))
    (gradient_ND,) = torch.autograd.grad(term, vector_ND)
    for row, label, gradient in zip(rows, LABELS, gradient_ND.numpy(), strict=True):
        assert gradient == pytest.approx(2 * (row - centers[label]) / len(LABELS), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("weight", "in_parts"), [(1.0, False), (5e-4, False), (5e-4, True)])
def test_a_center_moves_by_the_formula_of_its_paper(weight: float, in_parts: bool) -> None:
    recipe = replace(RECIPE, loss="cross_entropy+center", center_weight=weight)
    num_classes, rate = 4, 0.5  # class 3 is not in the batch
    loss, vector_ND = build_loss(recipe, num_classes, D), _draw()
    centers = loss.center_parameters()
    with torch.no_grad():
        centers[0].copy_(_draw(num_classes, seed=7))
    before = centers[0].detach().double().numpy().copy()
    parts = (vector_ND.split(3), torch.tensor(LABELS).split(3)) if in_parts else ((vector_ND,), (torch.tensor(LABELS),))
    for vectors, labels in zip(*parts, strict=True):
        loss(_same(vectors), labels)
    loss.give_centers_gradient(lambda _: None)
    _descend(centers, rate)
    for number in range(num_classes):
        own = [row for row, label in zip(vector_ND.double().numpy(), LABELS, strict=True) if label == number]
        step = np.array([sum(before[number][d] - row[d] for row in own) / (1 + len(own)) for d in range(D)])
        assert centers[0][number].detach().numpy() == pytest.approx(before[number] - rate * step, rel=1e-5, abs=1e-6)


def test_centers_reach_the_means_of_their_classes() -> None:
    loss, vector_ND = build_loss(replace(RECIPE, loss="cross_entropy+center", center_weight=1.0), C, D), _draw()
    centers = loss.center_parameters()
    for _ in range(40):
        loss(_same(vector_ND), torch.tensor(LABELS))
        loss.give_centers_gradient(lambda _: None)
        _descend(centers, rate=0.5)
    for number in range(C):
        mean = vector_ND[torch.tensor(LABELS) == number].mean(dim=0)
        torch.testing.assert_close(centers[0][number].detach(), mean, rtol=1e-4, atol=1e-5)


# ---- the sum


def test_terms_see_their_outputs_and_are_weighted() -> None:
    recipe = replace(
        RECIPE, loss="cross_entropy+triplet+center", classifier_weight=0.5, triplet_weight=3.0, center_weight=0.25
    )
    loss = build_loss(recipe, C, D, classified_dim=4)
    metric_ND, classified_NK = _draw(), _draw(width=4, seed=9)
    outputs = HeadOutputs(torch.full((8, D), math.nan), metric_ND, classified_NK)  # no term sees the embedding itself
    total = float(loss(outputs, torch.tensor(LABELS)).detach())
    crossed = sum(
        _cross_entropy(logits, label)
        for logits, label in zip(_logits_by_loops(classified_NK, loss, "cross_entropy"), LABELS, strict=True)
    )
    expected = {
        "cross_entropy": crossed / 8,
        "triplet": _triplets_by_loops(metric_ND, LABELS, "euclidean", 0.3, "batch_hard"),
        "center": float(metric_ND.double().square().sum()) / 8,
        "triplet_anchors": 1.0,
    }
    assert {name: float(value) for name, value in loss.terms.items()} == pytest.approx(expected, rel=1e-5)
    assert not any(value.requires_grad for value in loss.terms.values())
    assert total == pytest.approx(
        0.5 * expected["cross_entropy"] + 3 * expected["triplet"] + 0.25 * expected["center"], rel=1e-5
    )


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one label an image: 8 images"):
        build_loss(RECIPE, C, D)(_same(_draw()), torch.tensor([0, 1]))


LOSSES = [
    "arcface",
    "subcenter_arcface",
    "dynamic_arcface",
    "cross_entropy",
    "max_entropy+center",
    "cross_entropy+triplet",
]


def _any_loss(term: str) -> TrainingLoss:
    return build_loss(replace(RECIPE, loss=term, subcenters=2), C, D, num_images_C=[5, 1, 9])


@pytest.mark.parametrize("labels", [[1] * 8, [2], LABELS], ids=["one class", "one image", "three classes"])
@pytest.mark.parametrize("term", LOSSES)
def test_any_batch_gives_a_finite_loss_and_gradient(term: str, labels: list[int]) -> None:
    loss, vector_ND = _any_loss(term), _draw(len(labels)).requires_grad_()
    value = loss(_same(vector_ND), torch.tensor(labels))
    value.backward()
    assert torch.isfinite(value)
    assert vector_ND.grad is not None
    assert torch.isfinite(vector_ND.grad).all()
    assert float(vector_ND.grad.abs().sum()) > 0


@pytest.mark.parametrize("term", LOSSES)
def test_the_loss_falls_when_it_is_followed(term: str) -> None:
    loss, vector_ND = _any_loss(term), _draw().requires_grad_()
    values = []
    for _ in range(30):
        value = loss(_same(vector_ND), torch.tensor(LABELS))
        value.backward()
        loss.give_centers_gradient(lambda _: None)
        _descend([vector_ND, *loss.parameters()], rate=0.05)
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("term", LOSSES)
def test_half_precision_outputs_stay_finite_and_are_summed_in_float32(term: str) -> None:
    loss, vector_ND = _any_loss(term), 300 * _draw()  # squares of 300 overflow float16
    half_ND = vector_ND.half().requires_grad_()
    with torch.autocast("cpu", torch.float16):
        value = loss(_same(half_ND), torch.tensor(LABELS))
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert half_ND.grad is not None
    assert torch.isfinite(half_ND.grad).all()
    assert float(value.detach()) == pytest.approx(_value(loss, half_ND.detach().float()), rel=1e-6)


# ---- the classifier that is left


@pytest.mark.parametrize("term", ["arcface", "subcenter_arcface", "dynamic_arcface"])
def test_the_classifier_of_an_arcface_is_its_logits_without_the_margin(term: str) -> None:
    loss, vector_ND = _any_loss(term), _draw()
    classifier = loss.classifier()
    assert classifier is not None
    margin_loss = loss.parts[term].margin_loss
    theirs = margin_loss.get_logits(vector_ND)  # type: ignore[operator,union-attr]
    torch.testing.assert_close(classifier(vector_ND), theirs.detach())


def test_the_classifier_of_cross_entropy_is_its_linear_layer() -> None:
    for bias in (True, False):
        loss = build_loss(replace(RECIPE, loss="cross_entropy+triplet"), C, D, classifier_bias=bias)
        classifier = loss.classifier()
        assert classifier is not None
        torch.testing.assert_close(classifier(_draw()), loss.parts["cross_entropy"].linear(_draw()).detach())  # type: ignore[operator]
        assert (classifier.bias is not None) == bias


def test_a_triplet_loss_leaves_no_classifier_and_the_copy_does_not_move() -> None:
    assert _triplet_loss("cosine", 0.3, "batch_hard").classifier() is None
    assert _triplet_loss("cosine", 0.3, "batch_hard").center_parameters() == []
    loss = build_loss(RECIPE, C, D)
    classifier = loss.classifier()
    assert classifier is not None
    before = classifier.weight.clone()
    with torch.no_grad():
        loss.get_parameter("parts.arcface.margin_loss.W").add_(1)
    assert torch.equal(classifier.weight, before)


def test_a_loss_can_be_copied_after_a_step() -> None:
    for term in LOSSES:
        loss = _any_loss(term)
        expected = _value(loss, _draw())
        assert _value(copy.deepcopy(loss), _draw()) == expected
