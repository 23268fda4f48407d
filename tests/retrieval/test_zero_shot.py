import numpy as np
import pytest

from workbench.retrieval.baseline import chance_accuracy
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.zero_shot import Prompts, build_prompts, evaluate_zero_shot

PEARS = {"a": "Conference", "b": "Green Pear"}


def test_prompts_by_hand() -> None:
    prompts = build_prompts(
        PEARS,
        {"a": "Pear", "b": "Pear"},
        {"a": "A pear with a long neck. Eat it soon.", "b": "  "},
        ("a photo of {}.", "{} on a shelf."),
    )
    assert prompts.sentences == (
        "a photo of Conference, a kind of pear.",
        "Conference, a kind of pear on a shelf.",
        "Conference, a kind of pear: A pear with a long neck.",
        "a photo of Green Pear.",
        "Green Pear on a shelf.",
    )
    assert prompts.labels == ("a", "a", "a", "b", "b")
    assert prompts.described == (
        "2 templates averaged (a photo of {}. | {} on a shelf.), class names, with their groups, "
        "and the first sentence of 1 descriptions"
    )
    plain = build_prompts(PEARS, templates=("{}",))
    assert plain.sentences == ("Conference", "Green Pear")
    assert plain.described == "1 templates averaged ({}), class names"


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",), ("{name}",), ("{} {0}",)])
def test_templates_without_one_place_for_the_name_are_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"templates with one \{\} each"):
        build_prompts(PEARS, templates=templates)
    with pytest.raises(ValueError, match="at least one name"):
        build_prompts({})


PROMPTS = Prompts(("a1", "a2", "b1", "c1"), ("a", "a", "b", "c"), "two kinds of prompts")
# class a is the mean of (1, 0) and (0, 1) once both have length 1: the diagonal; b lies along the first axis, c is opposite
PROMPT_PD = np.array([[10.0, 0.0], [0.0, 0.1], [5.0, 0.0], [-1.0, -1.0]])


def test_the_mean_of_the_normalised_prompts_answers() -> None:
    query_QD = np.array([[1.0, 1.0], [3.0, 0.1], [0.1, 2.0], [-2.0, -1.0], [1.0, 0.0]])
    found = evaluate_zero_shot(PROMPT_PD, PROMPTS, query_QD, ["a", "b", "a", "c", "a"], FewShotProtocol(top=(1, 2)))
    # cosines of the last query: a 0.707, b 1, c -0.707; without normalising, a's mean (5, 0.05) would lie beside b
    assert found.predictions["predicted"].tolist() == ["a", "b", "a", "c", "b"]
    assert found.predictions["prompt"].tolist()[1:] == [2, 1, 3, 2]
    assert found.predictions["similarity"].tolist() == pytest.approx(
        [1, 3 / np.hypot(3, 0.1), 2.1 / np.sqrt(2) / np.hypot(0.1, 2), 3 / np.sqrt(10), 1], abs=1e-6
    )
    assert found.metrics["zero_shot/accuracy@1/micro"].value == pytest.approx(4 / 5)
    assert found.metrics["zero_shot/accuracy@1/macro"].value == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found.metrics["zero_shot/accuracy@2/micro"].value == 1
    assert set(found.metrics) == {f"zero_shot/accuracy@{k}/{average}" for k in (1, 2) for average in ("micro", "macro")}
    assert found.hits["zero_shot/accuracy@1"].tolist() == [[1, 1, 1, 1, 0]]
    assert found.hit_labels.tolist() == ["a", "b", "a", "c", "a"]
    metric = found.metrics["zero_shot/accuracy@1/micro"]
    assert metric.low < metric.value < metric.high
    assert metric.n == 5
    assert metric.protocol.startswith("zero-shot by text: two kinds of prompts; nearest class mean, cosine similarity")
    assert "3 labels" in metric.protocol
    assert "references" not in metric.protocol


def test_prompts_that_say_the_same_tie() -> None:
    prompts = Prompts(("x", "x", "y"), ("a", "b", "c"), "one name for two classes")
    found = evaluate_zero_shot(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), prompts, np.array([[2.0, 1.0]]), ["b"])
    assert found.hits["zero_shot/accuracy@1"].tolist() == [[0.5]]


def test_unrelated_vectors_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    labels = [f"c{number}" for number in range(10)]
    prompts = build_prompts({label: f"thing {label}" for label in labels})
    query_labels = np.repeat(labels, 200)
    query_QD = rng.normal(size=(2000, 32))
    hits = [
        evaluate_zero_shot(rng.normal(size=(40, 32)), prompts, query_QD, query_labels).hits["zero_shot/accuracy@1"]
        for _ in range(5)
    ]
    # 10,000 answers at 1 in 10: the standard error is 0.003, and more as the answers of one set of prompts hang together
    assert np.mean(hits) == pytest.approx(chance_accuracy(labels, query_labels, 1)[0], abs=0.02)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="one width"):
        evaluate_zero_shot(PROMPT_PD, PROMPTS, np.ones((1, 3)), ["a"])
    with pytest.raises(ValueError, match="label without a reference"):
        evaluate_zero_shot(PROMPT_PD, PROMPTS, np.ones((1, 2)), ["pear"])
    with pytest.raises(ValueError, match="reference_labels"):
        evaluate_zero_shot(PROMPT_PD[:2], PROMPTS, np.ones((1, 2)), ["a"])
