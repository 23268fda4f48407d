import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import ArrayLike
from PIL import Image

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.corruptions import Corruption, corrupt_image
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.identification import IdentificationPlan
from workbench.retrieval.recognition import RecognitionPlan
from workbench.retrieval.stats import cluster_interval, paired_difference
from workbench.retrieval.stress import (
    Answers,
    Stress,
    choose_corruptions,
    example_pictures,
    frame_px_of,
    plan_stress,
    run_stress,
    spread_queries,
)
from workbench.retrieval.stress_tables import Rule, difference_table, guidelines, stress_metrics, stress_table

BLUR = [Corruption("blur", severity) for severity in (0.5, 1, 2, 4)]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Four labels, told apart by their colour: two references and three queries each."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = []
    for label, colour in (("a", (200, 40, 40)), ("b", (40, 200, 40)), ("c", (40, 40, 200)), ("d", (200, 200, 40))):
        for number in range(5):
            name = f"{label}{number}.png"
            pixels = np.clip(np.array(colour) + rng.integers(-40, 41, (48, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            rows.append((name, label, "reference" if number < 2 else "query", number % 2))
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "camera"]).assign(domain="real", source="shop")
    frame["camera"] = frame["camera"].astype("Int64")
    frame["group"] = pd.Series([None] * len(frame), dtype="str")
    card = replace(
        read_card("grocery_store"),
        protocol={
            "reference_sets": ["reference:real"],
            "query_split": "query",
            "query_domain": "real",
            "shots": [1, 2],
        },
    )
    return Catalog(frame=frame, roots={"shop": folder}, cards={"shop": card}, missing_splits={})


def _options(folder: Path) -> dict[str, Any]:
    return {"cache": folder, "device": "cpu", "batch_size": 4}


def test_a_corrupted_set_is_the_embedding_of_the_corrupted_pictures_and_has_a_key_of_its_own(
    embedder: Embedder, catalog: Catalog, tmp_path: Path
) -> None:
    plain = embed_catalog(embedder, catalog, cache=tmp_path, device="cpu", progress=None)
    hidden = Corruption("visible", 40, seed=2)
    made = embed_catalog(embedder, catalog, corruption=hidden, cache=tmp_path, device="cpu", progress=None)
    rows = []
    for path in catalog.image_paths():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        pixels = embedder.preprocessing.apply(corrupt_image(Image.open(path).convert("RGB"), hidden, sha256))
        with torch.no_grad():
            rows.append(embedder(embedder.preprocessing.normalise(torch.from_numpy(pixels.copy())[None]))[0].numpy())
    np.testing.assert_allclose(made.embedding_ND, np.stack(rows), atol=1e-5)
    assert np.abs(made.embedding_ND - plain.embedding_ND).max() > 1e-3
    for other in (replace(hidden, severity=41), replace(hidden, seed=3), replace(hidden, frame_px=16)):
        embed_catalog(embedder, catalog, corruption=other, cache=tmp_path, device="cpu", progress=None)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 5
    again = embed_catalog(embedder, catalog, cache=tmp_path, device="cpu", progress=None)
    assert np.array_equal(again.embedding_ND, plain.embedding_ND)
    assert "corruption" not in plain.meta
    assert made.meta["corruption"]["kind"] == "visible"


def test_the_answers_are_those_of_the_evaluation_on_corrupted_queries(
    embedder: Embedder, catalog: Catalog, tmp_path: Path
) -> None:
    plan = plan_stress(catalog, shots="1")
    assert isinstance(plan, RecognitionPlan)
    assert plan.shots == (1,)
    corruptions = choose_corruptions("monochrome, visible", "few")
    protocol = FewShotProtocol(draws=3, seed=4)
    lines: list[str] = []
    names = {"first": embedder, "second": build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=2)}
    stress = run_stress(plan, names, corruptions, protocol, say=lines.append, **_options(tmp_path))
    assert list(stress.answers) == ["first", "second"]
    assert list(stress.answers["second"]) == [None, *corruptions]
    assert lines[1] == "first: visible done, 6 of 6 corruptions"
    assert len(lines) == 4
    assert stress.input_px == {"first": 32, "second": 32}
    options = {"cache": tmp_path, "device": "cpu", "progress": None}
    (part,) = plan.references.values()
    references = embed_catalog(embedder, part, **options)  # type: ignore[arg-type]
    for corruption in (None, corruptions[2], corruptions[5]):
        queries = embed_catalog(embedder, plan.queries, corruption=corruption, **options)  # type: ignore[arg-type]
        result = evaluate_few_shot(
            references.embedding_ND,
            part.labels,
            queries.embedding_ND,
            plan.queries.labels,
            replace(protocol, shots=(1,)),
        )
        found = stress.answers["first"][corruption]
        assert np.array_equal(found.value_DQ, result.hits["accuracy@1/shots=1"])
        assert found.name == "accuracy@1/shots=1/micro"
        assert found.chance == 0.25
        assert list(found.path_Q) == plan.queries.frame["path"].tolist()
        ours, theirs = cluster_interval(found.value_DQ, found.label_Q), result.metrics[found.name]
        assert [ours.value, ours.low, ours.high] == pytest.approx([theirs.value, theirs.low, theirs.high])


def test_reidentification_is_asked_by_average_precision(embedder: Embedder, catalog: Catalog, tmp_path: Path) -> None:
    card = replace(
        read_card("market1501"), protocol={"query_split": "query", "gallery_split": "reference", "junk": "none"}
    )
    plan = plan_stress(replace(catalog, cards={"shop": card}), num_queries=8)
    assert isinstance(plan, IdentificationPlan)
    assert len(plan.queries) == 8
    stress = run_stress(plan, {"one": embedder}, [Corruption("monochrome", 100)], **_options(tmp_path))
    clean, grey = stress.answers["one"].values()
    assert clean.quantity == clean.name == "mAP"
    assert clean.value_DQ.shape == (1, 8)
    # colour is all that tells these labels apart
    assert clean.value_DQ.mean() > 0.8 > grey.value_DQ.mean()
    assert "difference" not in " ".join(stress_metrics(stress))
    assert difference_table(stress).empty
    assert guidelines(stress, Rule())["lead"].isna().all()


def test_queries_are_spread_over_the_labels(catalog: Catalog) -> None:
    queries = catalog.select(split="query")
    assert spread_queries(queries, None) is queries
    assert spread_queries(queries, 12) is queries
    six = spread_queries(queries, 6, seed=1)
    counts = pd.Series(six.labels).value_counts()
    assert sorted(counts) == [1, 1, 2, 2]
    assert six.frame["path"].tolist() == sorted(six.frame["path"])
    seen = {tuple(spread_queries(queries, 6, seed=seed).frame["path"]) for seed in range(10)}
    assert len(seen) > 1
    with pytest.raises(ValueError, match="num_queries is at least 1"):
        plan_stress(catalog, num_queries=0)


def test_the_corruptions_that_are_asked_for() -> None:
    assert choose_corruptions("jpeg", "few", frame_px=99, seed=3) == [
        Corruption("jpeg", severity, 99, 3) for severity in (50, 20, 5)
    ]
    assert [one.kind for one in choose_corruptions("blur, size", "few")] == ["blur"] * 3 + ["size"] * 3
    assert len({one.kind for one in choose_corruptions("all", "all")}) == 10
    for kinds, severities, message in (
        ("blurr", "few", "Did you mean 'blur'"),
        ("blur, blur", "few", "different names"),
        ("", "few", "at least one"),
        ("blur", "some", 'severities is "few" or "all"'),
    ):
        with pytest.raises(ValueError, match=message):
            choose_corruptions(kinds, severities)  # type: ignore[arg-type]


def test_the_frame_takes_nothing_from_the_larger_trunk(embedder: Embedder) -> None:
    large = build_embedder("timm:test_resnet", "random", image_size=(320, 160))
    assert frame_px_of({"small": embedder}) == 256
    # its preprocessing wants more than it sees where it cuts the centre out
    assert frame_px_of({"small": embedder, "large": large}) == large.preprocessing.decode_px >= 320


def test_example_pictures_are_what_the_trunk_sees(embedder: Embedder, catalog: Catalog) -> None:
    picture = catalog.pictures()[0]
    row, shown = example_pictures(catalog, choose_corruptions("size, monochrome", "few"), embedder.preprocessing)
    assert row == 0
    assert [text for text, _ in shown] == [
        *("Object size: clean", "Object size: 48 px", "Object size: 24 px", "Object size: 10 px"),
        *("Monochrome: clean", "Monochrome: 50 % removed", "Monochrome: 90 % removed", "Monochrome: 100 % removed"),
    ]
    clean = embedder.preprocessing.apply(Image.open(picture.path).convert("RGB"))
    assert np.array_equal(shown[0][1], clean)
    assert np.array_equal(shown[4][1], clean)
    assert np.array_equal(shown[1][1], clean), "48 px is the picture's own size"
    assert np.ptp(shown[7][1].astype(int), axis=2).max() == 0


def test_the_example_is_the_first_query_that_can_be_decoded(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "1.png").write_bytes(b"cut off")
    Image.new("RGB", (48, 48), "red").save(tmp_path / "set" / "a" / "2.png")
    frame = pd.DataFrame({"path": ["a/1.png", "a/2.png"], "source": "set"}).assign(**dict.fromkeys(BOX_COLUMNS, np.nan))
    queries = Catalog(frame, {"set": tmp_path / "set"}, {}, {})
    row, shown = example_pictures(queries, choose_corruptions("monochrome", "few"), embedder.preprocessing)
    assert row == 1
    assert (shown[0][1] == (255, 0, 0)).all()
    with pytest.raises(ValueError, match="None of the 1 queries"):
        example_pictures(queries.take(np.array([0])), choose_corruptions("monochrome", "few"), embedder.preprocessing)


def _answers(correct_QS: ArrayLike, labels: Sequence[str], chance: float = 0.01) -> dict[Corruption | None, Answers]:
    """Answers of one draw: a column a severity, clean first, then BLUR."""
    paths = np.array([f"{row}.jpg" for row in range(len(labels))], dtype=object)
    columns = np.asarray(correct_QS, np.float64).T
    return {
        key: Answers(
            column[None],
            np.array(labels, dtype=object),
            paths,
            "accuracy@1",
            "accuracy@1/shots=1/micro",
            chance,
            "as asked",
        )
        for key, column in zip([None, *BLUR], columns, strict=False)
    }


def _noisy(
    accuracies: Sequence[float], num_labels: int = 60, num: int = 10, seed: int = 0
) -> dict[Corruption | None, Answers]:
    """Every query has a hardness: what is right at a severity is right at every milder one of a higher accuracy."""
    hardness = np.random.default_rng(seed).uniform(size=num_labels * num)
    labels = np.repeat([f"{label:02d}" for label in range(num_labels)], num)
    return _answers(np.stack([hardness < accuracy for accuracy in accuracies], axis=1).astype(float), labels.tolist())


def test_margin_and_verdict_are_those_of_the_rule() -> None:
    answers = _noisy([0.80, 0.79, 0.715, 0.5, 0.1])
    clean = answers[None]
    table = stress_table(Stress({"tuned": answers}, {"tuned": 96}), Rule(0.9))
    assert table["verdict"].tolist() == ["clean", "kept", "open", "lost", "lost"]
    assert table["severity"].tolist() == [0, 0.5, 1, 2, 4]
    accuracy = [float(one.value_DQ.mean()) for one in answers.values()]
    assert table["value"].tolist() == pytest.approx(accuracy)
    assert table["margin"].tolist()[1:] == pytest.approx([a - 0.9 * accuracy[0] for a in accuracy[1:]])
    expected = paired_difference(answers[BLUR[1]].value_DQ, 0.9 * clean.value_DQ, clean.label_Q)
    assert table["margin_low"][2] == pytest.approx(expected.low)
    assert table["threshold"].tolist() == pytest.approx([0.9 * accuracy[0]] * 5)
    assert table["n"].tolist() == [600] * 5
    in_points = stress_table(Stress({"tuned": answers}, {"tuned": 96}), Rule(1, 0.05))
    assert in_points["margin"].tolist()[1:] == pytest.approx([a - accuracy[0] + 0.05 for a in accuracy[1:]])
    assert in_points["verdict"].tolist() == ["clean", "kept", "lost", "lost", "lost"]


def test_a_guideline_is_a_sentence_with_measured_severities_only() -> None:
    stress = Stress(
        {"tuned": _noisy([0.80, 0.79, 0.715, 0.5, 0.1]), "untuned": _noisy([0.2] * 5)}, {"tuned": 96, "untuned": 64}
    )
    guide = guidelines(stress, Rule(0.9)).set_index("embedder")
    ours = guide.loc["tuned"]
    first, second = (answers[BLUR[0]] for answers in stress.answers.values())
    lead = paired_difference(first.value_DQ, second.value_DQ, first.label_Q)
    assert ours["limit"] == 0.5
    assert ours["broken"] == 2
    assert [ours["lead"], ours["lead_low"], ours["lead_high"]] == pytest.approx([lead.value, lead.low, lead.high])
    assert ours["value"] == pytest.approx(first.value_DQ.mean())
    assert ours["sentence"] == (
        "Out of focus: tuned keeps at least 90 % of its clean accuracy@1 up to a blur with a sigma of 0.5 % of the longer "
        "side (0.48 px of 96); at 1 % (0.96 px) this is not shown, and at 2 % (1.9 px) it is shown to keep less. "
        f"There tuned less untuned is {100 * lead.value:+.1f} points [{100 * lead.low:+.1f}, {100 * lead.high:+.1f}]."
    )
    assert guide.loc["untuned", "limit"] == 4
    assert guide["broken"].isna().tolist() == [False, True]
    assert (
        "up to a blur with a sigma of 4 % of the longer side (2.6 px of 64), the most severe that was measured."
        in str(guide.loc["untuned", "sentence"])
    )


def test_the_first_severity_that_is_not_kept_ends_the_range() -> None:
    # a dip in the middle: what comes after it is well again, and does not count
    guide = guidelines(Stress({"x": _noisy([0.8, 0.8, 0.4, 0.8, 0.8])}, {"x": 100}), Rule())
    assert guide["limit"].tolist() == [0.5]
    assert guide["broken"].tolist() == [1]
    assert guide["sentence"][0].endswith(
        "up to a blur with a sigma of 0.5 % of the longer side (0.5 px of 100); at 1 % (1 px) it is shown to keep less."
    )
    none = guidelines(Stress({"x": _noisy([0.8, 0.3, 0.8, 0.8, 0.8])}, {"x": 100}), Rule())
    assert none["limit"].isna().all()
    assert none["value"].tolist() == pytest.approx([_noisy([0.8])[None].value_DQ.mean()])
    assert "at no severity that was measured: already at a blur with a sigma of 0.5 %" in none["sentence"][0]


def test_who_is_no_better_than_chance_has_nothing_to_keep() -> None:
    answers = {key: replace(one, chance=0.8) for key, one in _noisy([0.8] * 5).items()}
    guide = guidelines(Stress({"x": answers}, {"x": 96}), Rule())
    assert guide["limit"].isna().all()
    assert "not shown to be above chance (80.0 %)" in guide["sentence"][0]


def test_few_queries_leave_it_open_rather_than_kept() -> None:
    labels = ["a", "a", "b", "b", "c", "c"]
    some = _answers([[1, 1], [1, 1], [1, 1], [0, 0], [1, 1], [1, 0]], labels)
    table = stress_table(Stress({"x": some}, {"x": 96}), Rule())
    assert table["verdict"].tolist() == ["clean", "open"]
    # by hand: 5/6 clean, 4/6 blurred; margin 4/6 - 0.9 * 5/6 = -1/12
    assert table["value"].tolist() == pytest.approx([5 / 6, 4 / 6])
    assert table["margin"][1] == pytest.approx(-1 / 12)


def test_every_number_has_a_name_an_interval_and_its_protocol() -> None:
    stress = Stress({"tuned": _noisy([0.8, 0.7]), "untuned": _noisy([0.2, 0.1])}, {"tuned": 96, "untuned": 96})
    metrics = stress_metrics(stress)
    name = "accuracy@1/shots=1/micro"
    chance = metrics.pop(f"chance/{name}")
    assert (chance.value, chance.low, chance.high, chance.n) == (0.01, 0.01, 0.01, 600)
    assert list(metrics) == [f"{p}{name}{s}" for p in ("", "untuned/", "difference/") for s in ("", "/blur=0.5")]
    for one in metrics.values():
        assert one.low < one.value < one.high
        assert one.n == 600
    blurred = metrics[f"difference/{name}/blur=0.5"]
    tuned, untuned = (answers[BLUR[0]].value_DQ.mean() for answers in stress.answers.values())
    assert blurred.value == pytest.approx(tuned - untuned)
    assert blurred.protocol == (
        "tuned less untuned, paired by query and draw; queries with a blur with a sigma of 0.5 % of the longer side "
        "(corruption blur, from at most 256 px on the shorter side, seed 0), references clean; as asked"
    )
    gaps = difference_table(stress)
    assert gaps["severity"].tolist() == [0, 0.5]
    assert gaps["value"].tolist() == pytest.approx([metrics[f"difference/{name}"].value, blurred.value])


def test_rules_without_meaning_are_refused() -> None:
    for keep, points in ((0, 0), (1.1, 0), (0.9, -0.1), (0.9, 1)):
        with pytest.raises(ValueError, match=r"keep lies in \(0, 1\]"):
            Rule(keep, points)
    assert Rule(1, 0.05).words("mAP") == "its clean mAP less 5 points"
    assert Rule(0.9).words("mAP") == "at least 90 % of its clean mAP"
