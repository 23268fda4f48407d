from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import catalog_of

from workbench.training.sampling import BalancedSampler, balance_validation, hold_out, sample_rng

LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2])
REAL = np.array(["real"] * 8)


def test_depth_over_and_undersamples_every_class() -> None:
    sampler = BalancedSampler(LABELS, REAL, depth=3)
    assert sampler.num_samples == 9
    for epoch in range(5):
        rows = sampler.epoch_rows(epoch)
        assert np.bincount(LABELS[rows]).tolist() == [3, 3, 3]
        many = rows[LABELS[rows] == 0]
        assert len(set(many)) == 3  # without replacement
        assert sorted(Counter(rows[LABELS[rows] == 1]).values()) == [1, 2]  # both, then one of them again
        assert rows[LABELS[rows] == 2].tolist() == [7, 7, 7]


def test_undersampling_draws_anew_each_epoch() -> None:
    sampler = BalancedSampler(LABELS, REAL, depth=3)
    seen = {row for epoch in range(20) for row in sampler.epoch_rows(epoch) if LABELS[row] == 0}
    assert seen == {0, 1, 2, 3, 4}


def test_without_depth_each_image_comes_once() -> None:
    sampler = BalancedSampler(LABELS, REAL)
    assert sorted(sampler.epoch_rows(3)) == list(range(8))
    assert sampler.epoch_rows(0).tolist() != sampler.epoch_rows(1).tolist()


def test_images_per_class_before_and_after() -> None:
    table = BalancedSampler(LABELS, REAL, depth=4).images_per_class(np.array(["007", "8", "9"]))
    assert table["label"].tolist() == ["007", "8", "9"]
    assert table["before"].tolist() == [5, 2, 1]
    assert table["after"].tolist() == [4, 4, 4]


def test_domain_weights_share_out_each_class() -> None:
    labels = np.array([0] * 6 + [1] * 4 + [2] * 2)
    domains = np.array(["real", "real"] + ["synthetic"] * 4 + ["real"] + ["synthetic"] * 3 + ["real"] * 2)
    sampler = BalancedSampler(labels, domains, depth=8, domain_weights={"real": 3, "synthetic": 1})
    rows = sampler.epoch_rows(0)
    counts = Counter(zip(labels[rows].tolist(), domains[rows].tolist(), strict=True))
    assert counts == {(0, "real"): 6, (0, "synthetic"): 2, (1, "real"): 6, (1, "synthetic"): 2, (2, "real"): 8}


def test_domain_weights_without_depth_share_out_the_epoch() -> None:
    domains = np.array(["real"] * 2 + ["synthetic"] * 8)
    sampler = BalancedSampler(np.arange(10) % 2, domains, domain_weights={"real": 1, "synthetic": 1})
    rows = sampler.epoch_rows(0)
    assert Counter(domains[rows].tolist()) == {"real": 5, "synthetic": 5}
    assert len({row for row in rows if row >= 2}) == 5


def test_shares_that_do_not_divide_go_to_the_largest_remainder() -> None:
    domains = np.array(["packshot", "real", "synthetic"])
    weights = {"packshot": 1, "real": 1, "synthetic": 1}
    sampler = BalancedSampler(np.array([0, 0, 0]), domains, depth=5, domain_weights=weights)
    assert Counter(domains[sampler.epoch_rows(0)].tolist()) == {"packshot": 2, "real": 2, "synthetic": 1}


@pytest.mark.parametrize(
    ("weights", "depth", "message"),
    [
        ({"real": 1.0}, None, "training images have the domains real, synthetic"),
        ({"real": 1.0, "synthetic": 1.0, "packshot": 1.0}, None, "domains real, synthetic"),
        ({"real": 1.0, "synthetic": 0.5}, 4, "would change nothing"),
    ],
)
def test_domain_weights_that_mean_nothing_are_refused(
    weights: dict[str, float], depth: int | None, message: str
) -> None:
    labels, domains = np.array([0, 0, 1, 1]), np.array(["real", "real", "synthetic", "synthetic"])
    with pytest.raises(ValueError, match=message):
        BalancedSampler(labels, domains, depth, weights)


def test_batches_run_on_across_epochs_and_drop_nothing() -> None:
    sampler = BalancedSampler(LABELS, REAL)
    batches = list(sampler.batches(0, 3, 8))
    assert [len(batch) for batch in batches] == [3] * 8
    flat = [sample for batch in batches for sample in batch]
    assert [(epoch, position) for _, epoch, position in flat] == [divmod(number, 8) for number in range(24)]
    for epoch in range(3):
        assert sorted(row for row, which, _ in flat if which == epoch) == list(range(8))


@given(taken=st.integers(0, 60), batch=st.integers(1, 20), depth=st.one_of(st.none(), st.integers(1, 7)))
def test_a_saved_position_goes_on_with_the_same_samples(taken: int, batch: int, depth: int | None) -> None:
    whole = BalancedSampler(LABELS, REAL, depth, seed=4)
    flat = [sample for part in whole.batches(0, 1, taken + 3 * batch) for sample in part]
    resumed = BalancedSampler(LABELS, REAL, depth, seed=4).batches(taken, batch, 3)
    assert [sample for part in resumed for sample in part] == flat[taken:]


def test_the_generator_of_a_sample_depends_on_where_it_is_seen() -> None:
    draws = {
        (seed, epoch, position): sample_rng(seed, (5, epoch, position)).integers(2**62)
        for seed in (0, 1)
        for epoch in (0, 1)
        for position in (0, 1)
    }
    assert len(set(draws.values())) == 8
    assert sample_rng(1, (5, 0, 1)).integers(2**62) == sample_rng(1, (6, 0, 1)).integers(2**62) == draws[1, 0, 1]


def test_hold_out_takes_equally_many_and_leaves_one() -> None:
    rows = [
        (f"{label}/{number}.png", label, "train")
        for label, count in (("a", 5), ("b", 3), ("c", 2))
        for number in range(count)
    ]
    train, val = hold_out(catalog_of(Path("/nowhere"), rows), 2, seed=3)
    assert Counter(val.labels.tolist()) == {"a": 2, "b": 2}
    assert Counter(train.labels.tolist()) == {"a": 3, "b": 1, "c": 2}
    assert set(train.frame["path"]) | set(val.frame["path"]) == {row[0] for row in rows}
    assert not set(train.frame["path"]) & set(val.frame["path"])
    with pytest.raises(ValueError, match="more than 9 images"):
        hold_out(catalog_of(Path("/nowhere"), rows), 9)


def test_validation_holds_seen_classes_equally() -> None:
    rows = [
        (f"{label}/{number}.png", label, "val")
        for label, count in (("a", 4), ("b", 1), ("c", 2), ("new", 4))
        for number in range(count)
    ]
    catalog = catalog_of(Path("/nowhere"), rows)
    seen = np.array(["a", "b", "c", "elsewhere"])
    balanced, num_short = balance_validation(catalog, seen, 2)
    assert Counter(balanced.labels.tolist()) == {"a": 2, "c": 2}
    assert num_short == 1
    everything, num_short = balance_validation(catalog, seen, None)
    assert (Counter(everything.labels.tolist()), num_short) == ({"a": 4, "b": 1, "c": 2}, 0)
    with pytest.raises(ValueError, match="None of the 11 validation images has a class seen in training"):
        balance_validation(catalog, np.array(["x", "y"]), None)
    with pytest.raises(ValueError, match="No class has 5 validation images"):
        balance_validation(catalog, seen, 5)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        BalancedSampler(np.array([], dtype=np.int64), np.array([], dtype=str))


def test_seeds_differ() -> None:
    orders = {tuple(BalancedSampler(LABELS, REAL, seed=seed).epoch_rows(0).tolist()) for seed in range(5)}
    assert len(orders) == 5
    first = next(BalancedSampler(LABELS, REAL, seed=1).batches(0, 8, 1))
    assert tuple(row for row, _, _ in first) in orders
