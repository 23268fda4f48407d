"""The gap between domains: planted, absent, and confounded with the labels."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.guidelines import COLUMNS
from workbench.retrieval import domain_gap
from workbench.retrieval.domain_gap import _won as won
from workbench.retrieval.domain_gap import cross_domains, measure_domain_gaps, separate_domains
from workbench.retrieval.embedding_checks import check_embeddings, doubts_as_pairs, embedding_metrics
from workbench.retrieval.label_errors import suspected_label_errors
from workbench.retrieval.near_neighbours import near_neighbours
from workbench.retrieval.stats import Metric

PAIR = ("packshot", "real")


def embeddings(num_labels: int, num_each: int, shift: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Vectors around a centre a label; those of the second domain are shifted by `shift` along one direction."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_labels, 16))
    vectors, labels, domains = [], [], []
    for label in range(num_labels):
        for domain in PAIR:
            for _ in range(num_each):
                offset = shift * (domain == PAIR[1]) * np.eye(16)[0]
                vectors.append(centres[label] + 0.3 * rng.normal(size=16) + offset)
                labels.append(f"label {label}")
                domains.append(domain)
    return np.array(vectors), labels, domains


def test_a_shift_is_found_and_none_is_not_invented() -> None:
    found = separate_domains(*embeddings(20, 4, 6.0), PAIR)
    assert found is not None
    assert found.num_labels == 20
    assert found.accuracy.value > 0.97
    assert found.auroc.value > 0.99
    assert found.accuracy.n == 160
    assert found.accuracy.low < found.accuracy.value <= found.accuracy.high
    assert "5 folds by label, 20 labels" in found.accuracy.protocol
    for seed in range(3):
        nothing = separate_domains(*embeddings(20, 4, 0.0, seed), PAIR)
        assert nothing is not None
        assert nothing.accuracy.low < 0.5 < nothing.accuracy.high
        assert nothing.auroc.low < 0.5 < nothing.auroc.high


def test_what_is_known_of_a_label_does_not_leak() -> None:
    # In each label the domains are apart along a direction of its own: known labels are told, unknown ones are not.
    rng = np.random.default_rng(0)
    vectors, labels, domains = [], [], []
    for label in range(16):
        centre, way = 4 * rng.normal(size=64), 4 * rng.normal(size=64)
        for number in range(12):
            domain = PAIR[number % 2]
            vectors.append(centre + (way if domain == "real" else -way) + 0.1 * rng.normal(size=64))
            labels.append(str(label))
            domains.append(domain)
    found = separate_domains(np.array(vectors), labels, domains, PAIR)
    unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    mixed = StratifiedKFold(5, shuffle=True, random_state=0)
    leaky = cross_val_score(LogisticRegression(max_iter=5000, C=100), unit, domains, cv=mixed).mean()
    assert leaky > 0.9, "folds over pictures would claim a gap"
    assert found is not None
    assert found.accuracy.low < 0.5 < found.accuracy.high


def test_a_majority_tells_nothing() -> None:
    # 30 real pictures for one packshot of each label: as many of each are taken.
    rng = np.random.default_rng(0)
    labels = [str(label) for label in range(20) for _ in range(31)]
    domains = [("packshot" if number == 0 else "real") for _ in range(20) for number in range(31)]
    found = separate_domains(rng.normal(size=(620, 8)), labels, domains, PAIR)
    assert found is not None
    assert found.accuracy.n == 40
    assert found.accuracy.value < 0.75


def test_too_few_shared_labels_are_not_compared() -> None:
    assert separate_domains(*embeddings(4, 3, 5.0), PAIR) is None
    vectors, labels, domains = embeddings(10, 1, 5.0)
    apart = [f"{label} {domain}" for label, domain in zip(labels, domains, strict=True)]
    assert separate_domains(vectors, apart, domains, PAIR) is None, "no label has both"
    with pytest.raises(ValueError, match="two different domains"):
        separate_domains(vectors, labels, domains, ("real", "real"))


def test_auroc_within_a_label_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    decision, second = np.round(rng.normal(size=12), 1), rng.random(12) < 0.5
    second[:2] = [True, False]
    value = won(decision, second, np.array(["a"] * 12, dtype=object))
    assert value[second].mean() == pytest.approx(roc_auc_score(second, decision))
    assert value[~second].mean() == pytest.approx(roc_auc_score(second, decision))


def crossing_set() -> tuple[np.ndarray, pd.DataFrame]:
    """Six labels in the plane, 60 degrees apart. Real references are right; packshots stand at the next label."""
    rows: list[tuple[float, str, str, str]] = []
    for label in range(6):
        rows.append((60 * (label + 1) + 1, f"l{label}", "reference", "packshot"))
        rows.append((60 * label + 2, f"l{label}", "train", "real"))
        rows += [(60 * label + 0.1 * number, f"l{label}", "query", "real") for number in range(3)]
    frame = pd.DataFrame(rows, columns=["degrees", "label", "split", "domain"])
    angle = np.deg2rad(frame["degrees"].to_numpy())
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), frame


def test_crossing_by_hand() -> None:
    vectors, frame = crossing_set()
    found = cross_domains(vectors, frame["label"], frame["domain"], frame["split"] == "query", PAIR)
    assert found is not None
    assert (found.crossed.value, found.own.value, found.loss.value) == pytest.approx((0, 1, 1))
    assert found.chance.value == pytest.approx(1 / 6)
    assert found.shots == 1
    assert found.crossed.n == found.own.n == 18
    assert "references packshot, queries real" in found.crossed.protocol


def test_both_sides_get_the_same_number_of_references() -> None:
    vectors, frame = crossing_set()
    more = pd.concat([frame, frame[frame["split"] == "train"], frame[frame["domain"] == "packshot"].iloc[:3]])
    found = cross_domains(vectors[more.index], more["label"], more["domain"], more["split"] == "query", PAIR)
    assert found is not None
    assert found.shots == 1, "half of the labels have one packshot"
    only = more[~((more["domain"] == "packshot") & (more["label"] > "l2"))]
    assert cross_domains(vectors[only.index], only["label"], only["domain"], only["split"] == "query", PAIR) is None


def test_the_gaps_of_a_set_say_what_was_compared() -> None:
    vectors, frame = crossing_set()
    gaps = measure_domain_gaps(vectors, frame, ["reference", "train"], "query")
    assert gaps.accuracies["value"].tolist() == [0, 1]
    assert gaps.chance == pytest.approx(1 / 6)
    assert set(gaps.metrics) == {
        f"domain_gap/packshot/{name}" for name in ("told", "auroc", "crossed", "own", "loss", "chance")
    }
    assert "accuracy@1 falls by 100.0 points" in gaps.words
    assert gaps.table["compared"].unique().tolist() == ["packshot"]
    one = measure_domain_gaps(vectors[:0], frame.iloc[:0], [], "query")
    assert one.metrics == {}
    real = frame["domain"] == "real"
    alone = measure_domain_gaps(vectors[real], frame[real], ["train"], "query")
    assert alone.words == "All pictures are of one domain (real): there is no gap to measure."
    assert alone.table.empty
    unasked = measure_domain_gaps(vectors, frame.assign(split="all"), [], "")
    assert "No accuracy" in unasked.words
    swapped = measure_domain_gaps(vectors, frame.replace({"packshot": "real", "real": "packshot"}), ["train"], "query")
    assert "real is told from packshot" in swapped.words


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ((0.0, -0.02, 0.02), "falls by 0.0 points [-2.0, 2.0]"),
        ((0.2, -0.05, 0.3), "falls by 20.0 points [-5.0, 30.0]"),
        ((-0.2, -0.3, 0.05), "rises by 20.0 points [-5.0, 30.0]"),
        ((-0.2, -0.3, -0.1), "rises by 20.0 points [10.0, 30.0]"),
        ((-0.0002, -0.0004, 0.0001), "rises by 0.0 points [0.0, 0.0]"),
        ((1.0, 1.0, 1.0), "falls by 100.0 points [100.0, 100.0]"),
    ],
)
def test_a_change_is_said_with_its_interval_in_order(loss: tuple[float, float, float], words: str) -> None:
    assert domain_gap._change(Metric(*loss, 18, "")) == words


def test_where_all_is_lost_on_both_sides_the_interval_holds_the_difference() -> None:
    vectors, frame = crossing_set()
    moved = vectors[
        np.where(frame["split"] == "train", (np.arange(len(frame)) + 5) % len(frame), np.arange(len(frame)))
    ]
    words = measure_domain_gaps(moved, frame, ["reference", "train"], "query").words
    found = re.search(r"falls by 0\.0 points \[(.*), (.*)\]", words)
    assert found is not None
    assert float(found[1]) < 0 < float(found[2])


def test_a_gain_is_called_a_rise() -> None:
    vectors, frame = crossing_set()
    other = frame.copy()
    other.loc[frame["split"] == "train", "domain"] = "packshot"
    other.loc[frame["split"] == "reference", "domain"] = "real"
    words = measure_domain_gaps(vectors, other, ["train", "reference"], "query").words
    assert "accuracy@1 rises by 100.0 points" in words


def test_verdicts_and_pairs_from_embeddings() -> None:
    vectors, frame = crossing_set()
    gaps = measure_domain_gaps(vectors, frame, ["reference", "train"], "query")
    doubts = suspected_label_errors(vectors, frame["label"])
    near = near_neighbours(vectors, frame["label"], frame["split"])
    rows = pd.DataFrame(check_embeddings(near, doubts, gaps, "angles"))
    assert tuple(rows.columns) == COLUMNS
    assert rows["verdict"].tolist()[2] == "not met"
    assert rows["num_failing"].tolist() == [int(near.table["across_splits"].sum()), len(doubts.table), 1]
    assert rows["verdict"].tolist()[1] == "look"
    pairs = doubts_as_pairs(doubts, frame)
    assert len(pairs) == len(doubts.table) >= 6, "each packshot stands among pictures of the next label"
    for pair in pairs.itertuples():
        both = np.array([pair.row, pair.other_row], dtype=np.int64)
        assert frame["label"].iloc[both].tolist() == [pair.label, pair.other_label]
        assert frame["split"].iloc[both].tolist() == [pair.split, pair.other_split]
    assert "leave_one_out" in embedding_metrics(doubts, gaps)


def test_no_gap_is_for_the_eye() -> None:
    vectors, frame = crossing_set()
    real = frame["domain"] == "real"
    gaps = measure_domain_gaps(vectors[real], frame[real], ["train"], "query")
    doubts = suspected_label_errors(vectors[real], frame.loc[real, "label"])
    near = near_neighbours(vectors[real], frame.loc[real, "label"], frame.loc[real, "split"])
    assert [row["verdict"] for row in check_embeddings(near, doubts, gaps, "angles")][1:] == ["met", "look"]
    assert doubts_as_pairs(doubts, frame[real]).empty


def test_splits_come_from_the_card() -> None:
    from workbench.data.set_checks import find_tested_splits

    frame = pd.DataFrame({"label": "a", "split": ["train", "reference", "val"], "domain": "real", "source": "g"})
    catalog = Catalog(frame, {}, {"g": read_card("grocery_store")}, {"g": []})
    assert find_tested_splits(catalog) == (["train", "reference"], "val")
    assert find_tested_splits(catalog, "val", "train") == (["val"], "train")
    with pytest.raises(ValueError, match="No image has the split 'tset'"):
        find_tested_splits(catalog, "tset")
    reid = Catalog(frame, {}, {"g": read_card("market1501")}, {"g": []})
    assert find_tested_splits(reid) == ([], ""), "neither gallery nor query is there"
