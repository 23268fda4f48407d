import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.training.identity_sampling import IdentitySampler
from workbench.training.sampling import BalancedSampler, share_with_positive

COUNTS = [7, 1, 4, 3, 9]


def _labels(counts: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=9),
    num_identities=st.integers(2, 4),
    each=st.integers(2, 5),
    passes=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_every_batch_is_p_identities_with_k_images(
    counts: list[int], num_identities: int, each: int, passes: int, seed: int
) -> None:
    label_N, size = _labels(counts), num_identities * each
    if len(counts) < num_identities:
        with pytest.raises(ValueError, match=f"wants {num_identities} identities; there are {len(counts)}"):
            IdentitySampler(label_N, size, each, seed=seed)
        return
    sampler = IdentitySampler(label_N, size, each, depth=passes * each, seed=seed)
    batches_a_pass = -(-len(counts) // num_identities)
    assert sampler.num_samples == passes * batches_a_pass * size
    batches = list(sampler.batches(0, size, 2 * passes * batches_a_pass))
    for batch in batches:
        row_PK = np.array([row for row, _, _ in batch]).reshape(num_identities, each)
        identities = [set(label_N[rows].tolist()) for rows in row_PK]
        assert all(len(found) == 1 for found in identities)
        assert len(set.union(*identities)) == num_identities
        for rows in row_PK:  # all different, or as evenly repeated as can be
            times = np.unique(rows, return_counts=True)[1]
            there = int((label_N == label_N[rows[0]]).sum())
            assert len(times) == min(each, there)
            assert times.max() - times.min() <= 1
    for start in range(0, len(batches), batches_a_pass):  # each pass has every identity, and few of them twice
        drawn = np.concatenate([[row for row, _, _ in batch] for batch in batches[start : start + batches_a_pass]])
        visits = np.bincount(label_N[drawn], minlength=len(counts)) / each
        assert set(visits.tolist()) <= {1.0, 2.0}
    spots = [(epoch, spot) for batch in batches for _, epoch, spot in batch]
    assert len(set(spots)) == len(spots)  # a repeated image is augmented anew


def test_the_position_alone_decides_what_comes() -> None:
    label_N = _labels(COUNTS)
    whole = list(IdentitySampler(label_N, 8, 4, depth=8, seed=3).batches(0, 8, 20))
    for taken in (0, 1, 5, 6, 7, 19):
        assert list(IdentitySampler(label_N, 8, 4, depth=8, seed=3).batches(8 * taken, 8, 20 - taken)) == whole[taken:]
    assert list(IdentitySampler(label_N, 8, 4, depth=8, seed=4).batches(0, 8, 20)) != whole
    first, second = (IdentitySampler(label_N, 8, 4, seed=3).epoch_rows(epoch).tolist() for epoch in (0, 1))
    assert first != second


@pytest.mark.parametrize("sampler", ["identity", "balanced"])
def test_processes_share_a_batch_without_repetition(sampler: str) -> None:
    label_N = _labels(COUNTS)
    domains = np.full(len(label_N), "real")
    planned = IdentitySampler(label_N, 8, 2) if sampler == "identity" else BalancedSampler(label_N, domains)
    alone = list(planned.batches(16, 8, 5))
    parts = [list(planned.batches(16, 8, 5, rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == alone
    if sampler == "identity":
        for batch in (batch for part in parts for batch in part):
            assert len({label_N[row] for row, _, _ in batch}) == 2
        with pytest.raises(ValueError, match="cannot be shared out to 3 processes"):
            next(planned.batches(0, 8, 1, 0, 3))
    else:
        with pytest.raises(ValueError, match="does not divide into 3 parts"):
            next(planned.batches(0, 8, 1, 0, 3))


def test_images_are_counted_as_they_are_seen() -> None:
    table = IdentitySampler(_labels(COUNTS), 8, 4, depth=8).images_per_class(np.array(["a", "b", "c", "d", "e"]))
    assert table["before"].tolist() == COUNTS
    # two passes of three batches with two identities: five and one more
    assert sorted(table["after"].tolist())[:3] == [8, 8, 8]
    assert table["after"].sum() == 48


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        IdentitySampler(np.empty(0, dtype=np.int64), 8, 4)
    with pytest.raises(ValueError, match="multiples of images_per_identity"):
        IdentitySampler(_labels(COUNTS), 10, 4)
    with pytest.raises(ValueError, match="multiples of images_per_identity"):
        IdentitySampler(_labels(COUNTS), 8, 4, depth=6)
    sampler = IdentitySampler(_labels(COUNTS), 8, 4)
    with pytest.raises(ValueError, match="Batches of 8 were planned; asked for 4"):
        next(sampler.batches(0, 4, 1))
    with pytest.raises(ValueError, match="after 3 samples"):
        next(sampler.batches(3, 8, 1))


def test_how_many_meet_another_of_their_class() -> None:
    # two pairs, batches of two: the other one is one of three
    assert share_with_positive(np.array([0, 0, 1, 1]), 2) == pytest.approx(1 / 3)
    assert share_with_positive(np.array([0, 0, 1, 1]), 3) == pytest.approx(2 / 3)
    assert share_with_positive(np.array([0, 0, 1]), 9) == pytest.approx(2 / 3)  # the lone one never does
    assert share_with_positive(np.arange(5), 5) == 0
    label_M, rng = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 9]), np.random.default_rng(0)
    met = [
        np.mean(np.bincount(batch)[batch] > 1) for batch in (rng.choice(label_M, 7, replace=False) for _ in range(4000))
    ]
    # 4000 batches of 7: the standard error is about 0.003
    assert share_with_positive(label_M, 7) == pytest.approx(np.mean(met), abs=0.015)
