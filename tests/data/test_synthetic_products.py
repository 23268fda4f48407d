import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from workbench.data.card import read_card
from workbench.data.synthetic import products
from workbench.data.synthetic.artwork import barcode_modules
from workbench.data.synthetic.drawing import encode_jpeg, lettering, mix, paste, warp
from workbench.data.synthetic.products import draw_products, synthetic_folder
from workbench.data.synthetic.skus import FORMS, NUM_BRANDS, Sku, check_digit, design_skus
from workbench.data.synthetic.views import (
    MOST_OCCLUDED,
    MOST_TRUNCATED,
    View,
    _place,
    draw_product,
    draw_shelf_view,
)

SMALL = {
    "num_train_skus": 4,
    "num_test_skus": 6,
    "train_views": 2,
    "val_views": 1,
    "reference_views": 2,
    "query_views": 3,
}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("digits", "expected"),
    [("400638133393", "1"), ("003600029145", "2"), ("590123412345", "7"), ("000000000000", "0")],
)
def test_check_digit_of_known_codes(digits: str, expected: str) -> None:
    assert check_digit(digits) == expected


@given(st.text("0123456789", min_size=12, max_size=12), st.integers(0, 11), st.integers(1, 9))
def test_check_digit_reveals_every_wrong_digit(digits: str, place: int, shift: int) -> None:
    wrong = digits[:place] + str((int(digits[place]) + shift) % 10) + digits[place + 1 :]
    assert check_digit(wrong) != check_digit(digits)


def test_barcode_of_a_known_code() -> None:
    # Worked by hand from the tables of the standard: 4 006381 333931, parity L G L L G G.
    left = "0001101" + "0100111" + "0101111" + "0111101" + "0001001" + "0110011"
    right = "1000010" * 3 + "1110100" + "1000010" + "1100110"
    assert barcode_modules("4006381333931") == "101" + left + "01010" + right + "101"


@given(st.integers(0, 9), st.integers(3, 60), st.integers(0, NUM_BRANDS - 100))
def test_designed_products_are_siblings_of_distinct_brands(seed: int, num_skus: int, first_brand: int) -> None:
    skus = design_skus(seed, num_skus, first_brand)
    assert len(skus) == num_skus
    assert len({sku.label for sku in skus}) == num_skus
    assert all(len(sku.label) == 13 and sku.label[-1] == check_digit(sku.label[:12]) for sku in skus)
    brands = {sku.brand.number: [other for other in skus if other.brand == sku.brand] for sku in skus}
    assert len({sku.brand.name for sku in skus}) == len(brands)
    for siblings in brands.values():
        assert 3 <= len(siblings) <= 5
        assert len({sku.word for sku in siblings}) == len(siblings)
        for part in ("band_colour", "picture"):
            differs = part.removesuffix("_colour") in siblings[0].brand.changes
            assert len({getattr(sku, part) for sku in siblings}) == (len(siblings) if differs else 1)


def test_every_brand_number_has_its_own_name_and_some_labels_begin_with_zero() -> None:
    skus = design_skus(0, 2000)
    assert len({sku.brand.name for sku in skus}) == len({sku.brand.number for sku in skus})
    assert any(sku.label.startswith("0") for sku in skus)
    assert {sku.brand.form for sku in skus} == set(FORMS)


@pytest.mark.parametrize("num_skus", [-1, 0, 2])
def test_too_few_products_are_refused(num_skus: int) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        design_skus(0, num_skus)


def test_brand_numbers_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="has no name"):
        design_skus(0, 6, NUM_BRANDS - 1)


def test_siblings_differ_in_little_and_other_brands_in_much() -> None:
    skus = design_skus(3, 32)
    packshots = [draw_product(sku, 96, np.random.default_rng(0)).astype(int) for sku in skus]

    def share_of_changed_pixels(first: int, second: int) -> float:
        inside = (packshots[first] < 250).any(2) | (packshots[second] < 250).any(2)
        changed = np.abs(packshots[first] - packshots[second]).max(2) > 24
        return float(changed.sum() / inside.sum())

    siblings: list[float] = []
    strangers: list[float] = []
    for first in range(len(skus)):
        for second in range(first):
            same = skus[first].brand == skus[second].brand
            (siblings if same else strangers).append(share_of_changed_pixels(first, second))
    assert min(siblings) > 0.005
    assert max(siblings) < 0.5
    assert np.median(siblings) < 0.25 < 0.6 < np.median(strangers)


def test_a_sibling_changes_only_where_its_variant_is_printed() -> None:
    brands = [sku.brand for sku in design_skus(0, 200) if sku.brand.form == "pouch" and sku.brand.changes == ("band",)]
    brand = next(brand for brand in brands if brand.band in ("across", "foot"))
    first = Sku("0000000000017", brand, "Mild", (200, 30, 30), "apple")
    second = Sku("0000000000024", brand, "Hot", (30, 30, 200), "apple")
    pictures = [draw_product(sku, 128, np.random.default_rng(0)) for sku in (first, second)]
    rows = np.flatnonzero(np.any(pictures[0] != pictures[1], axis=(1, 2)))
    top, bottom = (5, 123)  # a package fills 92 % of the frame's height
    assert rows.min() > top + 0.7 * (bottom - top)
    assert rows.max() <= bottom


@pytest.mark.parametrize("form", FORMS)
def test_a_packshot_stands_alone_on_white(form: str) -> None:
    sku = next(sku for sku in design_skus(1, 40) if sku.brand.form == form)
    picture = draw_product(sku, 128, np.random.default_rng(0))
    assert picture.dtype == np.uint8
    border = np.concatenate([picture[:2].reshape(-1, 3), picture[:, :2].reshape(-1, 3), picture[:, -2:].reshape(-1, 3)])
    assert border.min() >= 250
    inked = np.any(picture < 240, axis=2)
    assert (
        115 <= np.flatnonzero(np.any(inked, axis=1)).size <= 126
        or 115 <= np.flatnonzero(np.any(inked, axis=0)).size <= 126
    )


def test_hands_and_tags_hide_at_most_the_stated_share() -> None:
    hidden, seen = [], []
    for number, sku in enumerate(design_skus(5, 40) * 5):
        picture, product_HW, occluded_HW = draw_shelf_view(sku, 64, np.random.default_rng([7, number]))
        assert picture.shape == (64, 64, 3)
        assert not (occluded_HW & ~product_HW).any()
        hidden.append(occluded_HW.sum() / product_HW.sum())
        seen.append(product_HW.mean())
    assert max(hidden) <= MOST_OCCLUDED
    assert 0.02 < np.mean(hidden) < MOST_OCCLUDED / 2
    assert max(hidden) > 0.15
    assert min(seen) > 0.1


def test_truncation_leaves_most_of_the_product_in_the_frame() -> None:
    package = Image.new("RGBA", (50, 80), (255, 0, 0, 255))
    seen = []
    for number in range(200):
        placed = _place(package, 64, np.random.default_rng(number))
        scale = 64 * np.random.default_rng(number).uniform(0.78, 1.12) / 80  # the first number that is drawn
        seen.append((np.asarray(placed)[..., 3] > 127).sum() / (50 * 80 * scale**2))
    assert min(seen) > 1 - MOST_TRUNCATED - 0.1  # the keystone adds or takes a little
    assert min(seen) < 0.95


def test_same_seed_same_picture_and_another_seed_another() -> None:
    sku = design_skus(0, 3)[0]
    first, again, other = (draw_product(sku, 64, np.random.default_rng(seed), "shelf") for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    assert design_skus(0, 20) == design_skus(0, 20) != design_skus(1, 20)


def test_folders_are_equal_to_the_byte_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for name, workers, seed in (("one", 1, 0), ("four", 4, 0), ("other", 1, 1)):
        draw_products(tmp_path / name, seed=seed, size_px=48, num_workers=workers, **SMALL)
    one, four, other = (read_files(tmp_path / name) for name in ("one", "four", "other"))
    assert one == four
    assert set(one.values()).isdisjoint(set(other.values()))


def test_more_views_leave_the_others_as_they_were(tmp_path: Path) -> None:
    draw_products(tmp_path / "few", size_px=48, **SMALL)
    draw_products(tmp_path / "more", size_px=48, **{**SMALL, "query_views": 5})
    few, more = read_files(tmp_path / "few"), read_files(tmp_path / "more")
    assert {name: more[name] for name in few if name != "catalog.csv"} == {
        name: content for name, content in few.items() if name != "catalog.csv"
    }


def test_catalog_lists_every_picture_once_and_keeps_brands_apart(tmp_path: Path) -> None:
    draw_products(tmp_path / "set", size_px=48, **SMALL)
    table = pd.read_csv(tmp_path / "set" / "catalog.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["path", "label", "split", "camera", "group", "domain"]
    assert sorted(table["path"]) == sorted(name for name in read_files(tmp_path / "set") if name.endswith(".jpg"))
    counts = table.groupby(["split", "domain"]).size().to_dict()
    assert counts == {
        ("train", "packshot"): 4,
        ("train", "synthetic"): 8,
        ("val", "synthetic"): 4,
        ("reference", "packshot"): 6,
        ("reference", "synthetic"): 12,
        ("query", "synthetic"): 18,
    }
    brands = {split: set(rows["group"]) for split, rows in table.groupby("split")}
    assert brands["train"] == brands["val"]
    assert brands["reference"] == brands["query"]
    assert brands["train"].isdisjoint(brands["query"])
    assert all(re.fullmatch(r"\d{13}", label) for label in table["label"])


def test_the_card_states_the_counts_of_its_options(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "draw_product", lambda sku, size_px, rng, view: np.zeros((1, 1, 3), np.uint8))
    card = read_card("synthetic_products")
    table = pd.read_csv(synthetic_folder(card.options) / "catalog.csv", dtype=str)
    drawn = {split: (len(rows), rows["label"].nunique()) for split, rows in table.groupby("split")}
    assert drawn == {split: (count.images, count.labels) for split, count in card.splits.items()}


def test_cache_is_used_again_and_named_by_the_options(outputs: Path) -> None:
    folder = synthetic_folder({**SMALL, "size_px": 48})
    (folder / "mark").touch()
    assert synthetic_folder({"size_px": 48, **SMALL, "seed": 0}) == folder
    assert (folder / "mark").exists()
    other = synthetic_folder({**SMALL, "size_px": 48, "seed": 1})
    assert other != folder
    assert other.parent == folder.parent == outputs / "cache" / "synthetic"


def test_a_killed_drawing_leaves_nothing_half_made(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.fork()
    if pid == 0:  # the child dies without any clean-up in the midst of its drawing, as with kill -9
        drawn = 0

        def draw_then_die(sku: Sku, size_px: int, rng: np.random.Generator, view: View) -> np.ndarray:
            nonlocal drawn
            drawn += 1
            if drawn > 7:
                os._exit(9)
            return draw_product(sku, size_px, rng, view)

        monkeypatch.setattr(products, "draw_product", draw_then_die)
        synthetic_folder({**SMALL, "size_px": 48})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left_behind = list((outputs / "cache" / "synthetic").iterdir())
    assert [path.name[0] for path in left_behind] == ["."]
    assert list(left_behind[0].rglob("*.jpg"))
    folder = synthetic_folder({**SMALL, "size_px": 48})
    draw_products(outputs / "direct", size_px=48, **SMALL)
    assert read_files(folder) == read_files(outputs / "direct")


def test_when_another_process_was_first_its_folder_is_taken(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**SMALL, "size_px": 48}
    first = synthetic_folder(options)
    kept = outputs / "kept"
    shutil.move(first, kept)

    def other_is_first(folder: Path, **_: int) -> None:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        shutil.copytree(kept, first)

    monkeypatch.setattr(products, "draw_products", other_is_first)
    assert synthetic_folder(options) == first
    assert read_files(first) == read_files(kept)
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_test_sku": 6}, "Did you mean 'num_test_skus'"),
        ({"folder": 1}, "folder"),
        ({"num_workers": 2}, "num_workers"),
        ({"seed": "0"}, "seed='0'"),
        ({"size_px": 128.0}, "size_px=128.0"),
        ({"seed": True}, "seed=True"),
        ({"seed": -1}, "seed is -1"),
        ({"size_px": 16}, "size_px is 16"),
        ({"query_views": -1}, "query_views is -1"),
        ({"num_train_skus": 2}, "at least 3"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_drawn(outputs: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic_folder(options)
    assert not list(outputs.rglob("*.jpg"))


def test_warp_puts_the_corners_where_they_are_asked_for() -> None:
    image = Image.new("RGBA", (20, 20), (10, 200, 30, 255))
    warped = np.asarray(warp(image, ((10, 5), (30, 8), (28, 35), (12, 30)), (40, 40)))
    polygon = Image.new("L", (40, 40))
    ImageDraw.Draw(polygon).polygon([(10, 5), (30, 8), (28, 35), (12, 30)], fill=255)
    wrong = (np.asarray(polygon) > 0) != (warped[..., 3] > 127)
    assert wrong.sum() < 70  # the outline, within a pixel
    np.testing.assert_array_equal(warped[20, 20], (10, 200, 30, 255))


def test_warp_by_a_shift_is_a_shift() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    pixels[..., 3] = 255
    warped = np.asarray(warp(Image.fromarray(pixels), ((3, 2), (10, 2), (10, 11), (3, 11)), (16, 16)))
    np.testing.assert_allclose(warped[2:11, 3:10], pixels, atol=1)  # Pillow rounds down
    assert warped[..., 3].sum() == 255 * 63


@pytest.mark.parametrize(("left", "top"), [(0, 0), (-3, 2), (6, 7), (20, 0), (0, -20)])
def test_paste_mixes_by_alpha_and_cuts_at_the_edge(left: int, top: int) -> None:
    layer = Image.new("RGBA", (4, 4), (200, 100, 0, 51))  # a fifth
    image_HWC = np.full((8, 8, 3), 50, np.float32)
    paste(image_HWC, layer, left, top)
    for y in range(8):
        for x in range(8):
            inside = 0 <= x - left < 4 and 0 <= y - top < 4
            np.testing.assert_allclose(image_HWC[y, x], (80, 60, 40) if inside else (50, 50, 50), atol=1e-3)


@pytest.mark.parametrize("text", ["Alpine", "i", "WWWWWWWWWWWWWW", "9.99"])
def test_lettering_fits_its_box_and_leaves_ink(text: str) -> None:
    ink = lettering(text, (60, 20), (250, 0, 0), bold=0.05, slant=0.2, stretch=1.2)
    assert ink.width <= 60
    assert ink.height <= 20
    assert ink.width == 60 or ink.height == 20
    pixels = np.asarray(ink)
    assert (pixels[..., 3] > 200).mean() > 0.1
    assert (pixels[..., :3] == (250, 0, 0)).all()
    assert not np.asarray(lettering("", (60, 20), (0, 0, 0)))[..., 3].any()


def test_mix_goes_from_one_colour_to_the_other() -> None:
    assert [mix((0, 100, 200), (100, 0, 200), share) for share in (0, 0.25, 1)] == [
        (0, 100, 200),
        (25, 75, 200),
        (100, 0, 200),
    ]


def test_jpeg_keeps_the_picture() -> None:
    picture = draw_product(design_skus(0, 3)[0], 64, np.random.default_rng(0))
    content = encode_jpeg(picture)
    assert content[:3] == b"\xff\xd8\xff"
    read = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(read.astype(int) - picture).mean() < 6


def test_a_colour_histogram_does_not_solve_it() -> None:
    skus = design_skus(0, 40, NUM_BRANDS // 2)

    def histogram(picture: np.ndarray) -> np.ndarray:
        bins = (picture.astype(int) // 32) @ np.array([64, 8, 1])
        return np.sqrt(np.bincount(bins.ravel(), minlength=512) / bins.size)

    references = np.stack([histogram(draw_product(sku, 96, np.random.default_rng(0))) for sku in skus])
    hits = []
    for place, sku in enumerate(skus):
        for view in range(6):
            query = histogram(draw_product(sku, 96, np.random.default_rng([place, view]), "shelf"))
            hits.append(np.argmax(references @ query) == place)
    assert 1 / len(skus) < np.mean(hits) < 0.4
