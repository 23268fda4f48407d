"""Pairs of hashes against every pair; planted copies found among different pictures, and no different pictures taken for copies."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from workbench.data import hamming, near_duplicates
from workbench.data.audit import measure_images
from workbench.data.catalog import Catalog
from workbench.data.hamming import hamming_distance, pairs_within
from workbench.data.images import load_image
from workbench.data.near_duplicates import (
    MAX_DIFFERENCE,
    MAX_DISTANCE_BITS,
    Fingerprints,
    NearDuplicates,
    colour_difference,
    find_near_duplicates,
    fingerprint_images,
    hash_picture,
)
from workbench.data.synthetic.products import draw_products

Found = set[tuple[int, int, int]]


def every_pair(hashes: list[int], radius: int, others: list[int] | None = None) -> Found:
    """The oracle: each hash against each, bit by bit."""
    found = set()
    for first, one in enumerate(hashes):
        for second, other in enumerate(hashes if others is None else others):
            distance = bin(one ^ other).count("1")
            if distance <= radius and (others is not None or first < second):
                found.add((first, second, distance))
    return found


def searched(hashes: list[int], radius: int, others: list[int] | None = None) -> Found:
    second = None if others is None else np.array(others, dtype=np.uint64)
    found = [
        pair
        for chunk in pairs_within(np.array(hashes, dtype=np.uint64), radius, second)
        for pair in zip(*(part.tolist() for part in chunk), strict=True)
    ]
    assert len(found) == len(set(found)), "a pair was found twice"
    return set(found)


def families(seed: int, num: int) -> list[int]:
    """Hashes of which many are few flips apart, in one band or spread over all."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, num, dtype=np.uint64).tolist()
    for number in range(1, num):
        if rng.random() < 0.7:
            width = 64 if rng.random() < 0.5 else 16
            flips = rng.integers(0, width, rng.integers(0, 18)) + rng.integers(0, 64 - width + 1)
            hashes[number] = hashes[rng.integers(number)] ^ sum(1 << int(bit) for bit in set(flips.tolist()))
    return hashes


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 7, 8, 12, 15])
def test_pairs_are_those_of_brute_force(radius: int) -> None:
    hashes, others = families(radius, 120), families(99 + radius, 40) + families(radius, 60)
    assert len(every_pair(hashes, radius)) > 5
    assert searched(hashes, radius) == every_pair(hashes, radius)
    assert searched(hashes, radius, others) == every_pair(hashes, radius, others)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 63), max_size=6), max_size=12), st.integers(0, 9))
def test_pairs_of_any_hashes(bits: list[set[int]], radius: int) -> None:
    hashes = [sum(1 << bit for bit in ones) for ones in bits]
    assert searched(hashes, radius) == every_pair(hashes, radius)


def test_pairs_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = families(5, 90) + [7] * 40
    whole = searched(hashes, 7)
    monkeypatch.setattr(hamming, "_CANDIDATES_A_CHUNK", 13)
    assert searched(hashes, 7) == whole == every_pair(hashes, 7)


def test_few_candidates_are_looked_at() -> None:
    # 20,000 even hashes have 2e8 pairs; by the formula of the docstring about 2e8 * 2 * 34 / 65536 = 207,500 are looked at.
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    looked_at = 0
    count = hamming._chunks

    def counting(size_N: np.ndarray) -> object:
        nonlocal looked_at
        looked_at += int(size_N.sum())
        return count(size_N)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_chunks", counting)
        list(pairs_within(hashes, 7))
    assert looked_at == pytest.approx(20_000**2 * 68 / 65536 + 4 * 20_000, rel=0.01)  # both ways round, and each itself


def test_hamming_by_hand_and_refusals() -> None:
    top = 2**64 - 1
    ones = np.array([0, 1, 0b1011, top], dtype=np.uint64)
    assert hamming_distance(ones, np.zeros(4, dtype=np.uint64)).tolist() == [0, 1, 3, 64]
    assert searched([], 7) == set()
    assert searched([5], 7) == set()
    assert searched([top, top], 0) == {(0, 1, 0)}
    assert searched([top, 0], 15) == set()
    with pytest.raises(ValueError, match="from 0 to 15, found 16"):
        list(pairs_within(ones, 16))
    with pytest.raises(ValueError, match="uint64 with one axis, found int64"):
        list(pairs_within(np.array([1, 2]), 3))


# Hashes of pictures


def test_hash_by_hand() -> None:
    # Half a cosine across: bright at the left, dark at the right; only the lowest frequency across is there.
    across = np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    left = Image.fromarray(np.broadcast_to(np.round(128 + 100 * across), (32, 32)).astype(np.uint8)).convert("RGB")
    place = near_duplicates._ORDER.index((0, 1))
    assert hash_picture(left) == (1 << place, 0)
    assert hash_picture(ImageOps.mirror(left)) == (0, 1 << place)
    turned = left.transpose(Image.Transpose.ROTATE_270)  # bright above: the same coefficient downwards, not mirrored
    below = near_duplicates._ORDER.index((1, 0))
    assert hash_picture(turned) == (1 << below, 1 << below)
    assert hash_picture(Image.new("RGB", (50, 40), (9, 99, 9))) == (0, 0)
    assert near_duplicates._ORDER[:2] in ([(0, 1), (1, 0)], [(1, 0), (0, 1)])
    assert len(set(near_duplicates._ORDER)) == 64
    assert (0, 0) not in near_duplicates._ORDER
    assert max(down + right for down, right in near_duplicates._ORDER) == 10


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.6, 1.0), st.integers(0, 40))
def test_light_and_mirroring_hardly_change_the_hash(seed: int, gain: float, offset: int) -> None:
    picture = leaves(seed)
    first, mirror = hash_picture(picture)
    assert hash_picture(ImageOps.mirror(picture)) == (mirror, first)
    # Rounded to whole levels once more: a bit whose coefficient lies at the threshold may flip.
    lit = picture.point(lambda value: round(gain * value + offset))
    assert bin(hash_picture(lit)[0] ^ first).count("1") <= MAX_DISTANCE_BITS


def test_a_package_that_is_its_own_mirror_image_has_a_stable_hash() -> None:
    can = Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(can)
    draw.rectangle((60, 20, 139, 179), fill=(180, 30, 30))
    draw.ellipse((75, 60, 124, 110), fill=(250, 240, 90))
    first, mirror = hash_picture(can)
    assert bin(first ^ mirror).count("1") <= 2  # Pillow's ellipse is not quite its own mirror image
    for altered in alterations(can).values():
        assert bin(hash_picture(altered)[0] ^ first).count("1") <= MAX_DISTANCE_BITS


def test_colour_difference_by_hand() -> None:
    grey = np.full((1, 16, 16, 3), 100, dtype=np.uint8)
    half = grey.copy()
    half[:, :8] = 140  # two levels, 40 apart: mean 120, deviation 20
    lighter = half + 50
    stronger = np.where(half == 140, 150, 100).astype(np.uint8)  # deviation 25
    inverted = np.where(half == 140, 100, 140).astype(np.uint8)
    steep = np.where(half == 140, 200, 100).astype(np.uint8)  # deviation 50, 2.5 times as much
    assert colour_difference(half, half)[0] == 0
    assert colour_difference(half, lighter)[0] == pytest.approx(0, abs=1e-9)
    assert colour_difference(half, stronger)[0] == pytest.approx(0, abs=1e-9)
    assert colour_difference(half, inverted)[0] == pytest.approx(2 * 20)  # standardised +1 against -1, contrast 20
    assert colour_difference(half, steep)[0] == np.inf
    assert colour_difference(half, grey)[0] == colour_difference(grey, grey)[0] == np.inf
    one = leaves_cells(1)
    two = np.clip(one + np.random.default_rng(0).integers(-40, 41, one.shape), 0, 255).astype(np.uint8)
    assert colour_difference(one, two)[0] == pytest.approx(by_loops(one[0], two[0]))
    assert colour_difference(one, two)[0] == colour_difference(two, one)[0]
    assert colour_difference(half[:0], half[:0]).shape == (0,)


def leaves_cells(seed: int) -> np.ndarray:
    return np.asarray(leaves(seed).resize((16, 16), Image.Resampling.BOX))[None]


def by_loops(first: np.ndarray, second: np.ndarray) -> float:
    parts = [[float(value) for value in part.ravel()] for part in (first, second)]
    means = [sum(part) / len(part) for part in parts]
    spreads = [
        (sum((value - mean) ** 2 for value in part) / len(part)) ** 0.5 for part, mean in zip(parts, means, strict=True)
    ]
    largest = 0.0
    for down in range(15):
        for right in range(15):
            for channel in range(3):
                total = 0.0
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    place = ((down + y) * 16 + right + x) * 3 + channel
                    total += (parts[0][place] - means[0]) / spreads[0] - (parts[1][place] - means[1]) / spreads[1]
                largest = max(largest, abs(total) / 4 * (spreads[0] * spreads[1]) ** 0.5)
    return largest


# Planted copies


def leaves(seed: int, side: int = 128) -> Image.Image:
    """Large and small ellipses over one another."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side), tuple(rng.integers(0, 200, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = rng.integers(-10, side, 2).tolist()
        across, down = (6 + rng.pareto(1.5, 2) * 12).tolist()
        draw.ellipse((x, y, x + across, y + down), fill=tuple(rng.integers(0, 200, 3).tolist()))
    return picture


def recompressed(picture: Image.Image, scale: float, quality: int) -> Image.Image:
    size = (round(picture.width * scale), round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def alterations(picture: Image.Image) -> dict[str, Image.Image]:
    """What happens to pictures between a shop's web page and a data set."""
    return {
        "half": recompressed(picture, 0.5, 75),
        "double": recompressed(picture, 2, 90),
        "quality 30": recompressed(picture, 1, 30),
        "darker": ImageEnhance.Brightness(recompressed(picture, 1, 90)).enhance(0.85),
        "lighter": ImageEnhance.Brightness(recompressed(picture, 0.7, 60)).enhance(1.1),
    }


def catalog_of(root: Path, rows: list[tuple[str, str, str]]) -> Catalog:
    frame = pd.DataFrame(rows, columns=["path", "label", "split"], dtype="str")
    frame["camera"] = pd.array([pd.NA] * len(rows), dtype="Int64")
    frame["group"] = pd.Series([None] * len(rows), dtype="str")
    frame["domain"], frame["source"] = "real", "here"
    return Catalog(frame=frame, roots={"here": root}, cards={}, missing_splits={})


def found_in(catalog: Catalog, **options: bool) -> NearDuplicates:
    measures, _ = measure_images(catalog)
    return find_near_duplicates(catalog, measures, fingerprint_images(catalog), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """60 different pictures, and copies of some of them in every guise."""
    root = tmp_path_factory.mktemp("planted")
    rows = []
    for number in range(60):
        leaves(number).save(root / f"{number}.png")
        rows.append((f"{number}.png", f"sku {number}", ("reference", "train")[number % 2]))
    for name, altered in alterations(leaves(0)).items():
        altered.save(root / f"0 {name}.png")
        rows.append((f"0 {name}.png", "sku 0", "query"))
    alterations(leaves(1))["half"].save(root / "1 other label.png")
    rows.append(("1 other label.png", "sku 99", "train"))
    ImageOps.mirror(recompressed(leaves(2), 0.5, 75)).save(root / "2 mirrored.png")
    rows.append(("2 mirrored.png", "sku 2", "query"))
    alterations(leaves(3))["darker"].save(root / "3 darker.png")
    rows.append(("3 darker.png", "sku 3", "query"))
    (root / "4 same bytes.png").write_bytes((root / "4.png").read_bytes())
    rows.append(("4 same bytes.png", "sku 4", "query"))
    for name in ("white", "whiter"):
        Image.new("RGB", (60, 60), (254, 254, 254) if name == "white" else (255, 255, 255)).save(root / f"{name}.png")
        rows.append((f"{name}.png", "empty", "train"))
    (root / "broken.png").write_bytes(b"no picture")
    return catalog_of(root, [*rows, ("broken.png", "sku 5", "train")])


def test_planted_copies_are_found_and_nothing_else(planted: Catalog) -> None:
    found = found_in(planted)
    pairs = {(one, other) for one, other in zip(found.table["path"], found.table["other_path"], strict=True)}
    same = ["0.png", *(f"0 {name}.png" for name in alterations(leaves(0)))]
    wanted = {(one, other) for place, one in enumerate(same) for other in same[place + 1 :]}
    wanted |= {("1.png", "1 other label.png"), ("2.png", "2 mirrored.png"), ("3.png", "3 darker.png")}
    assert pairs == wanted
    table = found.table.set_index("other_path")
    assert table["mirrored"].loc["2 mirrored.png"]
    assert int(table["mirrored"].sum()) == 1
    assert not table["same_label"].loc["1 other label.png"]
    assert list(table.loc["3 darker.png", ["split", "other_split"]]) == ["train", "query"]
    assert (found.num_compared, found.num_flat, found.complete) == (60 + 5 + 3, 2, True)
    assert found.num_across == 5 + 1 + 1
    assert f"at most {MAX_DISTANCE_BITS} bits" in found.protocol
    assert "n = 68 pictures compared" in found.protocol
    # Between references and queries, then across other splits, then within one: different labels first, then the nearest.
    rank = [0] * 6 + [1] + [2] * 11
    across = {("reference", "query"): 0, ("train", "query"): 1}
    assert [across.get(ends, 2) for ends in zip(found.table["split"], found.table["other_split"], strict=True)] == rank
    assert found.table["other_path"][7] == "1 other label.png"
    assert found.table["difference"][:6].is_monotonic_increasing
    assert found.table["difference"][8:].is_monotonic_increasing


def test_mirror_images_can_be_left_alone(planted: Catalog) -> None:
    found = found_in(planted, mirrored=False)
    assert "2 mirrored.png" not in set(found.table["other_path"])
    assert len(found.table) == 17
    assert "without mirror images" in found.protocol


def test_a_picture_that_is_its_own_mirror_image_is_no_pair(tmp_path: Path) -> None:
    half = leaves(1)
    both = Image.new("RGB", (256, 128))
    both.paste(half, (0, 0))
    both.paste(ImageOps.mirror(half), (128, 0))
    both.save(tmp_path / "both.png")
    both.resize((128, 64)).save(tmp_path / "small.png")
    found = found_in(catalog_of(tmp_path, [("both.png", "a", "train"), ("small.png", "a", "train")]))
    assert found.table[["row", "other_row"]].to_numpy().tolist() == [[0, 1]], "near both ways, but one pair"


def test_boxes_of_one_file_are_pictures_of_their_own(tmp_path: Path) -> None:
    shelf = Image.new("RGB", (384, 128))
    for place, seed in enumerate((1, 2, 1)):
        shelf.paste(leaves(seed), (128 * place, 0))
    shelf.save(tmp_path / "shelf.png")
    catalog = catalog_of(tmp_path, [("shelf.png", label, "train") for label in "aba"])
    catalog.frame["box_x"] = [0.0, 128.0, 256.0]
    catalog.frame[["box_y", "box_width", "box_height"]] = [0.0, 128.0, 128.0]
    measures = pd.DataFrame({"sha256": ["one file"] * 3})
    found = find_near_duplicates(catalog, measures, fingerprint_images(catalog))
    assert found.table[["row", "other_row", "difference"]].to_numpy().tolist() == [[0, 2, 0]]
    assert found.table["path"][0] != found.table["other_path"][0], "told apart by the box"


def test_empty_sets(tmp_path: Path) -> None:
    for rows in (list[tuple[str, str, str]](), [("missing.png", "a", "train")]):
        found = found_in(catalog_of(tmp_path, rows))
        assert found.table.empty
        assert found.table["same_label"].dtype == bool
        assert found.num_compared == found.num_across == 0


def test_a_flood_of_copies_is_cut_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    thumb = leaves_cells(1)[0]
    num = 60
    copies = Fingerprints(
        np.arange(num), np.full(num, 9, np.uint64), np.full(num, 2**60, np.uint64), np.stack([thumb] * num)
    )
    catalog = catalog_of(tmp_path, [(f"{number}.png", "a", "train") for number in range(num)])
    measures = pd.DataFrame({"sha256": [str(number) for number in range(num)]})
    whole = find_near_duplicates(catalog, measures, copies)
    assert len(whole.table) == num * (num - 1) // 2
    assert whole.complete
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 100)
    monkeypatch.setattr(hamming, "_CANDIDATES_A_CHUNK", 300)
    cut = find_near_duplicates(catalog, measures, copies)
    assert 100 <= len(cut.table) < len(whole.table)
    assert not cut.complete
    assert "more than 100 pairs" in cut.protocol


def test_no_two_drawn_products_are_taken_for_one(tmp_path: Path) -> None:
    """The rate that the docstring states: packshots of 120 different products, in brands of look-alikes, 7,140 pairs."""
    draw_products(
        tmp_path, num_train_skus=80, num_test_skus=40, train_views=0, val_views=0, reference_views=0, query_views=0
    )
    rows = pd.read_csv(tmp_path / "catalog.csv", dtype=str)[["path", "label", "split"]]
    catalog = catalog_of(tmp_path, [tuple(row) for row in rows.to_numpy().tolist()])
    prints = fingerprint_images(catalog)
    proposed = sum(len(first) for first, _, _ in pairs_within(prints.hash_N, MAX_DISTANCE_BITS))
    measures = pd.DataFrame({"sha256": catalog.frame["path"]})
    assert len(catalog) == catalog.frame["label"].nunique() == 120
    assert proposed > 50, "the hash alone would be wrong this often"
    assert find_near_duplicates(catalog, measures, prints).table.empty
    # An altered packshot is still its copy.
    rows_8 = np.arange(0, len(catalog), 8)
    pictures = [load_image(catalog.pictures()[row]) for row in rows_8]
    for altered in zip(*(alterations(picture).values() for picture in pictures), strict=True):
        cells = np.stack([np.asarray(one.resize((16, 16), Image.Resampling.BOX)) for one in altered])
        assert (colour_difference(prints.thumb_NSSC[rows_8], cells) <= MAX_DIFFERENCE).all()
        hashes = np.array([hash_picture(one)[0] for one in altered], dtype=np.uint64)
        assert (hamming_distance(prints.hash_N[rows_8], hashes) <= MAX_DISTANCE_BITS).all()
