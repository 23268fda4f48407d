"""Colour histograms on pictures of known colours, and chance levels against every possible guess."""

from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.data.card import read_card
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.images import QuarantineError
from workbench.retrieval.baseline import (
    chance_accuracy,
    chance_image_accuracy,
    chance_metrics,
    chance_reid,
    colour_histogram,
    embed_colour_histogram,
)
from workbench.retrieval.few_shot import evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.gallery import Gallery


def _halves(left: str, right: str, width_px: int = 64, height_px: int = 64) -> Image.Image:
    image = Image.new("RGB", (width_px, height_px), left)
    image.paste(right, (width_px // 2, 0, width_px, height_px))
    return image


def _catalog(folder: Path, images: dict[str, Image.Image | bytes]) -> Catalog:
    for name, image in images.items():
        if isinstance(image, bytes):
            (folder / name).write_bytes(image)
        else:
            image.save(folder / name)
    frame = pd.DataFrame({"path": list(images), "label": "a", "split": "train"}, dtype="str")
    frame["camera"] = pd.Series(pd.NA, index=frame.index, dtype="Int64")
    frame["group"] = pd.Series(pd.NA, index=frame.index, dtype="str")
    frame["domain"], frame["source"] = "real", "grocery_store"
    card = read_card("grocery_store")
    return Catalog(frame=frame, roots={card.name: folder}, cards={card.name: card}, missing_splits={})


def test_pure_colours_fill_one_cell() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (31, 32, 64)]
    embedding_ND = colour_histogram(Image.new("RGB", (50, 20), colour) for colour in colours)
    assert embedding_ND.shape == (6, 512)
    assert embedding_ND.dtype == np.float32
    # Cell (r * 8 + g) * 8 + b; 32 levels a cell, so that 31 is in cell 0, 32 in cell 1 and 64 in cell 2.
    cells = [7 * 64, 7 * 8, 7, 0, 511, 0 * 64 + 1 * 8 + 2]
    wanted_ND = np.zeros((6, 512), dtype=np.float32)
    wanted_ND[range(6), cells] = 1
    np.testing.assert_array_equal(embedding_ND, wanted_ND)


def test_square_roots_of_shares() -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (0, 0, 16, 64))  # a quarter blue
    row_D = colour_histogram([image])[0]
    assert {cell: float(row_D[cell]) for cell in np.flatnonzero(row_D)} == {7: 0.5, 448: float(np.float32(0.75**0.5))}
    # Bhattacharyya coefficient with half red, half blue: sqrt(1/4 * 1/2) + sqrt(3/4 * 1/2).
    assert row_D @ colour_histogram([_halves("red", "blue")])[0] == pytest.approx(0.125**0.5 + 0.375**0.5, abs=1e-6)


@pytest.mark.parametrize(("width_px", "height_px"), [(2, 1), (64, 64), (640, 64), (128, 1024)])
def test_size_and_aspect_ratio_do_not_count(width_px: int, height_px: int) -> None:
    small = colour_histogram([_halves("red", "white", width_px, height_px)])[0]
    np.testing.assert_array_equal(small, colour_histogram([_halves("red", "white")])[0])


def test_bins_and_other_modes() -> None:
    assert colour_histogram([Image.new("L", (9, 9), 255)], bins=4)[0].nonzero()[0].tolist() == [63]
    assert colour_histogram([_halves("red", "blue")], bins=1).tolist() == [[1.0]]
    assert colour_histogram([], bins=2).shape == (0, 8)
    for arguments in ({"bins": 0}, {"bins": 257}, {"size_px": 0}):
        with pytest.raises(ValueError, match=r"bins is 1\.\.256 and size_px at least 1"):
            colour_histogram([], **arguments)


_DIVISORS_OF_40 = st.sampled_from([1, 2, 4, 5, 8, 10, 20, 40])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 16), _DIVISORS_OF_40, _DIVISORS_OF_40)
def test_counts_of_a_plain_loop_wherever_a_colour_stands(seed: int, bins: int, width: int, height: int) -> None:
    # 40 px is a multiple of the size, so that each pixel weighs the same and none is mixed.
    pixels_HW3 = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels_HW3)
    turned = Image.fromarray(np.ascontiguousarray(pixels_HW3[::-1, ::-1]))
    rows = [colour_histogram([image], bins, size_px=40)[0] for image in (upright, turned)]
    counts = np.zeros((bins, bins, bins))
    for red, green, blue in pixels_HW3.reshape(-1, 3).tolist():
        counts[red * bins // 256, green * bins // 256, blue * bins // 256] += 1
    np.testing.assert_allclose(rows[0], np.sqrt(counts / counts.sum()).ravel(), atol=1e-7)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_catalog_in_its_order_with_a_quarantine(tmp_path: Path) -> None:
    images: dict[str, Image.Image | bytes] = {
        f"{n}.png": Image.new("RGB", (8, 8), (n, 255 - n, 0)) for n in range(0, 250, 10)
    }
    images = {"z.png": Image.new("RGB", (8, 8), "red"), "broken.jpg": b"\xff\xd8\xff no", **images, "a.png": b""}
    catalog = _catalog(tmp_path, images)
    found = embed_colour_histogram(catalog, num_workers=4, quarantine_limit=0.1)
    kept = [name for name in images if name not in ("broken.jpg", "a.png")]
    assert found.catalog.frame["path"].tolist() == kept
    assert found.source_N.tolist() == list(range(26))
    assert found.quarantine["path"].tolist() == ["broken.jpg", "a.png"]
    assert found.quarantine["reason"].tolist()[1] == "empty file (0 bytes)"
    opened = (Image.open(path) for path in found.catalog.image_paths())
    np.testing.assert_array_equal(found.embedding_ND, colour_histogram(opened))
    assert found.embedding_ND[0].nonzero()[0].tolist() == [448]
    with pytest.raises(QuarantineError, match="2 of 28 images"):
        embed_colour_histogram(catalog)


def test_nothing_to_embed(tmp_path: Path) -> None:
    found = embed_colour_histogram(_catalog(tmp_path, {}), bins=2)
    assert (found.embedding_ND.shape, len(found.catalog), len(found.quarantine)) == ((0, 8), 0, 0)


def test_chance_accuracy_hand_worked() -> None:
    references = ["cola", "cola", "cola", "tea", "milk", "007"]
    assert chance_accuracy(references, ["cola", "tea", "tea"], 1) == (0.25, 0.25)
    assert chance_accuracy(references, ["cola", "tea", "tea"], 3) == (0.75, 0.75)
    assert chance_accuracy(references, ["cola"], 50) == (1.0, 1.0)
    # "7" is not "007": of 4 queries 3 have their class in the gallery, of 2 classes one.
    assert chance_accuracy(references, ["cola", "cola", "cola", "7"], 2) == (0.375, 0.25)


def test_chance_of_labels_that_float32_cannot_tell_apart() -> None:
    assert chance_accuracy([16777216, 16777217], [16777217], 1) == (0.5, 0.5)


def test_chance_image_accuracy_hand_worked() -> None:
    # Of 6 references 3 are cola: 1 - (3 choose 2) / (6 choose 2) = 1 - 3 / 15; tea: 1 - (5 choose 2) / 15 = 1 / 3.
    micro, macro = chance_image_accuracy(["cola", "cola", "cola", "tea", "milk", "soap"], ["cola", "tea", "tea"], 2)
    assert micro == pytest.approx((0.8 + 2 / 3) / 3)
    assert macro == pytest.approx((0.8 + 1 / 3) / 2)
    # Two shots: cola keeps 2 references, of 5 then.
    assert chance_image_accuracy(["cola"] * 3 + ["tea", "milk", "soap"], ["cola"], 1, shots=2)[0] == pytest.approx(0.4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=7),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=6),
    st.integers(1, 8),
)
def test_chance_equals_the_mean_over_every_guess(references: list[str], queries: list[str], k: int) -> None:
    classes = sorted(set(references))
    by_class = list(combinations(classes, min(k, len(classes))))
    by_image = list(combinations(references, min(k, len(references))))
    for guesses, found in (
        (by_class, chance_accuracy(references, queries, k)),
        (by_image, chance_image_accuracy(references, queries, k)),
    ):
        hit = {label: Fraction(sum(label in guess for guess in guesses), len(guesses)) for label in set(queries)}
        micro = sum((hit[label] for label in queries), Fraction(0)) / len(queries)
        macro = sum(hit.values(), Fraction(0)) / len(hit)
        assert found == pytest.approx((float(micro), float(macro)), abs=1e-12)


def test_chance_metrics_stand_beside_each_accuracy_of_an_evaluation() -> None:
    rng = np.random.default_rng(0)
    labels = [f"{n % 4}" for n in range(16)] + ["3"] * 4
    protocol = FewShotProtocol(shots=(1, 2, "all"), draws=2, top=(1, 3), num_replicates=100)
    result = evaluate_few_shot(rng.standard_normal((20, 6)), labels, rng.standard_normal((20, 6)), labels, protocol)
    chance = chance_metrics(labels, labels, shots=protocol.shots, ks=protocol.top)
    assert set(chance) == {f"chance/{name}" for name in result.metrics}
    for metric in chance.values():
        assert metric.low == metric.value == metric.high
        assert metric.n == 20
        assert "exact" in metric.protocol
    assert chance["chance/accuracy@1/shots=2/micro"].value == 0.25
    assert chance["chance/accuracy@3/shots=all/macro"].value == 0.75
    # One of each of 4 classes: any 3 images are any 3 classes.
    assert chance["chance/image_accuracy@3/shots=1/micro"].value == pytest.approx(0.75)
    # 8 references of "3" among 20: 1 - (12 * 11 * 10) / (20 * 19 * 18); 4 of the others: 1 - (16 * 15 * 14) / 6840.
    many, few = 1 - 1320 / 6840, 1 - 3360 / 6840
    assert chance["chance/image_accuracy@3/shots=all/micro"].value == pytest.approx((8 * many + 12 * few) / 20)
    assert chance["chance/image_accuracy@3/shots=all/macro"].value == pytest.approx((many + 3 * few) / 4)


def test_chance_refuses_what_has_no_meaning() -> None:
    for references, queries, k in ((["a"], [], 1), ([], ["a"], 1), (["a"], ["a"], 0)):
        with pytest.raises(ValueError, match="At least one reference, one query and k >= 1"):
            chance_accuracy(references, queries, k)
    with pytest.raises(ValueError, match="shots must be at least 1 or None, found 0"):
        chance_image_accuracy(["a"], ["a"], 1, shots=0)
    with pytest.raises(ValueError, match="found 'many'"):
        chance_metrics(["a"], ["a"], shots=["many"])


def test_chance_reid_hand_worked() -> None:
    # One match among two: first or second, AP (1 + 1/2) / 2. Two among two: always 1. One among one: 1.
    metrics = chance_reid([1, 2, 1, 0], [2, 2, 1, 5], ranks=(1, 5))
    assert metrics["chance/mAP"].value == pytest.approx((0.75 + 1 + 1) / 3)
    assert metrics["chance/rank-1"].value == pytest.approx((0.5 + 1 + 1) / 3)
    assert metrics["chance/rank-5"].value == 1.0
    assert metrics["chance/mAP"].n == 3
    assert "1 queries without a match skipped" in metrics["chance/mAP"].protocol
    assert metrics["chance/mAP"].low == metrics["chance/mAP"].value == metrics["chance/mAP"].high


@pytest.mark.parametrize("num_gallery", range(1, 8))
def test_chance_reid_equals_the_mean_over_every_order(num_gallery: int) -> None:
    for num_relevant in range(1, num_gallery + 1):
        total, found, num_orders = Fraction(0), [0] * 3, 0
        for order in permutations(range(num_gallery)):
            hits = [rank for rank, item in enumerate(order) if item < num_relevant]
            total += sum((Fraction(n + 1, rank + 1) for n, rank in enumerate(hits)), Fraction(0)) / num_relevant
            found = [count + (hits[0] < rank) for count, rank in zip(found, (1, 2, 5), strict=True)]
            num_orders += 1
        metrics = chance_reid([num_relevant], num_gallery, ranks=(1, 2, 5))
        assert metrics["chance/mAP"].value == pytest.approx(float(total / num_orders), abs=1e-12)
        for rank, count in zip((1, 2, 5), found, strict=True):
            assert metrics[f"chance/rank-{rank}"].value == pytest.approx(count / num_orders, abs=1e-12)


def test_chance_reid_at_the_size_of_market1501() -> None:
    # Rank 1 is R / N; the expected AP of 26 matches among 19732 lies a little above that share.
    metrics = chance_reid([26] * 3, 19732, ranks=(1, 19732))
    assert metrics["chance/rank-1"].value == pytest.approx(26 / 19732)
    assert metrics["chance/rank-19732"].value == 1.0
    harmonic = sum(1 / rank for rank in range(1, 19733))
    assert metrics["chance/mAP"].value == pytest.approx((harmonic + 25 / 19731 * (19732 - harmonic)) / 19732, rel=1e-12)


def test_chance_reid_refuses_what_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="None of the 2 queries has a match"):
        chance_reid([0, 0], 5)
    with pytest.raises(ValueError, match="more matches than gallery items"):
        chance_reid([6], [5])
    with pytest.raises(ValueError, match="fewer than 0 matches"):
        chance_reid([-1], [5])
    with pytest.raises(ValueError, match="whole numbers"):
        chance_reid([0.5], [5])
    with pytest.raises(ValueError, match="ranks must be at least 1"):
        chance_reid([1], [5], ranks=(0, 1))


@pytest.mark.photographs
def test_colour_histogram_on_photographs_lies_well_above_chance(grocery_store_root: Path) -> None:
    catalog = open_catalog("grocery_store", grocery_store_root)
    train, val = catalog.select("train"), catalog.select("val")
    references, queries = embed_colour_histogram(train), embed_colour_histogram(val)
    assert (len(references.catalog), len(queries.catalog)) == (2640, 296)
    nearest = Gallery.build(references.embedding_ND, train.labels).search_labels(queries.embedding_ND, 1)
    accuracy = (nearest.label_QK[:, 0] == val.labels).mean()
    chance, _ = chance_accuracy(train.labels, val.labels, 1)
    # Measured 0.307 on 296 queries; the band is four standard errors of a binomial to either side, so that another
    # JPEG decoder does not matter but a wrong histogram or split does.
    assert 0.20 <= accuracy <= 0.42
    assert chance == pytest.approx(1 / 81)
