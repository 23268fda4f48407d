"""Boxes of a catalog: what is cut is right to the pixel, and whatever opens a picture opens the crop."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workbench.data.audit import check_measures, find_exact_duplicates, measure_images
from workbench.data.boxes import BOX_COLUMNS, Box, box_fault, boxes_of, clip_box, widen_boxes
from workbench.data.card import CardError, read_card
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.images import ImageError, Picture, content_key, load_image
from workbench.data.inputs import gather_inputs
from workbench.data.readers.listing import LayoutError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# Left, top, right and bottom (both excluded) of three rectangles on a white picture of 60 x 40 px.
SHELF = {RED: (4, 5, 20, 25), GREEN: (20, 5, 41, 25), BLUE: (50, 30, 60, 40)}


def draw_shelf() -> Image.Image:
    picture_HWC = np.full((40, 60, 3), 255, dtype=np.uint8)
    for colour, (left, top, right, bottom) in SHELF.items():
        picture_HWC[top:bottom, left:right] = colour
    return Image.fromarray(picture_HWC)


def write_set(folder: Path, rows: list[str], header: str = "path,label,split,x,y,width,height", extra: str = "") -> str:
    """The path of a card of a table with these rows; its picture is shelf.png."""
    root = folder / "shelves"
    root.mkdir(exist_ok=True)
    draw_shelf().save(root / "shelf.png")
    (root / "boxes.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    card = folder / "shelves.md"
    card.write_text(
        "---\ntitle: s\ntask: recognition\nreader: table\noptions: {table: boxes.csv}\nlicence: none\nsource: here\n"
        f"layout: a table\n{extra}\n---\n"
    )
    return str(card)


def open_set(folder: Path, rows: list[str], **options: str) -> Catalog:
    return open_catalog(write_set(folder, rows, **options), folder)


ROWS = [
    "shelf.png,red,a,4,5,16,20",
    "shelf.png,green,a,20,5,21,20",
    "shelf.png,shelf,a,,,,",
    "shelf.png,blue,b,50,30,40,40",
]


def colours_of(picture: Image.Image) -> dict[tuple[int, ...], int]:
    values, counts = np.unique(np.asarray(picture).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(map(int, value)): int(count) for value, count in zip(values, counts, strict=True)}


def test_the_boxes_of_a_catalog_are_cut_to_the_pixel(tmp_path: Path) -> None:
    catalog = open_set(tmp_path, ROWS)
    cut = [load_image(picture) for picture in catalog.pictures()]
    assert [one.size for one in cut] == [(16, 20), (21, 20), (60, 40), (10, 10)]
    assert colours_of(cut[0]) == {RED: 16 * 20}
    assert colours_of(cut[1]) == {GREEN: 21 * 20}
    assert colours_of(cut[3]) == {BLUE: 100}, "what leaves the picture is clipped"
    assert np.array_equal(np.asarray(cut[2]), np.asarray(draw_shelf()))
    assert catalog.pictures()[0] == Picture(tmp_path / "shelves" / "shelf.png", Box(4, 5, 16, 20))
    assert catalog.pictures()[2].box is None
    assert list(catalog.names()) == [
        "shelf.png[4,5,16,20]",
        "shelf.png[20,5,21,20]",
        "shelf.png",
        "shelf.png[50,30,40,40]",
    ]
    assert catalog.image_paths() == [tmp_path / "shelves" / "shelf.png"] * 4
    assert [picture.box for picture in catalog.take(np.array([3, 0])).pictures()] == [
        Box(50, 30, 40, 40),
        Box(4, 5, 16, 20),
    ]
    assert catalog.select(split="b").pictures() == catalog.pictures()[3:]


def test_a_margin_is_of_the_boxs_own_sides_and_clipped_at_the_border(tmp_path: Path) -> None:
    cut = [load_image(picture) for picture in open_set(tmp_path, ROWS, extra="margin: 0.25").pictures()]
    # red: 4 px to each side of 16, 5 px above and below 20: 0..24 x 0..30, of which green has 20..24 x 5..25
    assert cut[0].size == (24, 30)
    assert colours_of(cut[0]) == {RED: 16 * 20, GREEN: 4 * 20, WHITE: 24 * 30 - 20 * 20}
    # green: 20 - 5.25 = 14.75 goes to 15; 41 + 5.25 = 46.25 to 46
    assert cut[1].size == (46 - 15, 30)
    assert colours_of(cut[1])[RED] == (20 - 15) * 20
    assert cut[2].size == (60, 40), "a whole picture has no margin"
    assert cut[3].size == (20, 20)
    assert colours_of(cut[3]) == {BLUE: 100, GREEN: 1 * 5, WHITE: 295}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    shelf = draw_shelf().resize((480, 320), Image.Resampling.NEAREST)
    # what lies in the file so that turning it by EXIF's rule gives the shelf
    lies = {
        1: shelf,
        2: shelf.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: shelf.transpose(Image.Transpose.ROTATE_180),
        4: shelf.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: shelf.transpose(Image.Transpose.TRANSPOSE),
        6: shelf.transpose(Image.Transpose.ROTATE_90),
        7: shelf.transpose(Image.Transpose.TRANSVERSE),
        8: shelf.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    lies.save(path, quality=95, subsampling=0, exif=exif)
    cut = load_image(Picture(path, Box(4 * 8 + 4, 5 * 8 + 4, 15 * 8, 19 * 8)), target_px=8)
    assert cut.size == (15 * 8, 19 * 8), "a large JPEG is not drafted to the size of the whole picture"
    assert np.abs(np.asarray(cut, dtype=int) - RED).max() < 12


def test_edges_go_to_the_nearest_pixel() -> None:
    assert clip_box(Box(2.5, 2.49, 4, 5), 20, 10) == ((3, 2, 7, 7), False)
    assert clip_box(Box(-1, 2, 3, 100), 20, 10) == ((0, 2, 2, 10), True)
    for box, words in (
        (Box(20, 0, 5, 5), "outside the picture of 20 x 10 px"),
        (Box(-5, 0, 5.4, 5), "outside"),
        (Box(3, 3, 0.9, 5), ""),
        (Box(3.6, 3, 0.8, 5), "less than a pixel"),
    ):
        if words:
            with pytest.raises(ValueError, match=words):
                clip_box(box, 20, 10)
        else:
            assert clip_box(box, 20, 10)[0] == (3, 3, 4, 8)


# Sixteenths of a pixel: sums are exact, so that the two ways of saying it agree on edges that meet a centre, too.
places, lengths = (st.integers(low, 640).map(lambda number: number / 16) for low in (-480, 1))


@given(places, places, lengths, lengths)
def test_a_pixel_is_in_the_crop_when_its_centre_is_in_the_box(x: float, y: float, width: float, height: float) -> None:
    """The rule said in another way: pixel i, whose centre is i + 0.5, is taken when x < i + 0.5 <= x + width."""
    columns = [i for i in range(20) if x < i + 0.5 <= x + width]
    rows = [i for i in range(10) if y < i + 0.5 <= y + height]
    if columns and rows:
        edges, is_clipped = clip_box(Box(x, y, width, height), 20, 10)
        assert edges == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert is_clipped == (x < -0.5 or y < -0.5 or x + width >= 20.5 or y + height >= 10.5)
    else:
        with pytest.raises(ValueError, match="the box"):
            clip_box(Box(x, y, width, height), 20, 10)


def test_margins_widen_boxes_and_leave_whole_pictures() -> None:
    box_N4 = np.array([[10.0, 20.0, 8.0, 4.0], [np.nan] * 4])
    widened_N4 = widen_boxes(box_N4, 0.5)
    np.testing.assert_array_equal(widened_N4, [[6.0, 18.0, 16.0, 8.0], [np.nan] * 4])
    np.testing.assert_array_equal(box_N4[0], [10, 20, 8, 4])


def test_frames_without_boxes() -> None:
    assert boxes_of(pd.DataFrame({"path": ["a"]})) is None
    assert boxes_of(pd.DataFrame([[np.nan] * 4], columns=list(BOX_COLUMNS))) is None


def test_fingerprints_know_boxes_and_stay_without(tmp_path: Path) -> None:
    plain = open_set(tmp_path, ["shelf.png,red,a"], header="path,label,split")
    older = plain.frame.drop(columns=list(BOX_COLUMNS))
    assert replace(plain, frame=older).fingerprint == plain.fingerprint
    blank = open_set(tmp_path, ["shelf.png,red,a,,,,"])
    assert blank.fingerprint == plain.fingerprint
    boxed = open_set(tmp_path, ["shelf.png,red,a,0,5,16,20"])
    base = hashlib.sha256()
    row = {"path": "shelf.png", "label": "red", "split": "a", "domain": "real", "source": "shelves"}
    for name in ("path", "label", "split", "camera", "group", "domain", "source"):
        length = len(row[name]) if name in row else -1
        base.update(f"{name}:1:".encode() + length.to_bytes(8, "little", signed=True) + row.get(name, "").encode())
    assert plain.fingerprint == base.hexdigest()
    base.update(b"boxes:1:" + np.array([0, 5, 16, 20], dtype="<f8").tobytes())
    assert boxed.fingerprint == base.hexdigest()
    assert open_set(tmp_path, ["shelf.png,red,a,-0.0,5,16,20"]).fingerprint == boxed.fingerprint
    assert open_set(tmp_path, ["shelf.png,red,a,0,5,16,20.5"]).fingerprint != boxed.fingerprint
    assert open_set(tmp_path, ["shelf.png,red,a,0,5,16,20"], extra="margin: 0.1").fingerprint != boxed.fingerprint


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["shelf.png,r,a,4,5,16,20", "shelf.png,g,b,4,5,16,20"], r"1 images \(or boxes of them\) .* more than once"),
        (["shelf.png,r,a,,,,", "shelf.png,g,a,,,,", "shelf.png,g,a,1,1,5,5"], "more than once: shelf.png"),
        (["shelf.png,r,a,0,5,16,20", "shelf.png,g,b,-0,5,16,20"], "more than once"),
        (["shelf.png,r,a,1,1,5,5", "shelf.png,r,a,4,5,16,"], r"row 2 \(shelf.png\): the box wants four finite numbers"),
        (["shelf.png,r,a,1,1,5,inf"], r"row 1 .* four finite"),
        (["shelf.png,r,a,1,1,5,0"], r"row 1 .* the box is empty: 5 x 0 px"),
        (["shelf.png,r,a,1,1,-5,5"], "the box is empty: -5 x 5 px"),
    ],
)
def test_boxes_that_are_none_are_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        open_set(tmp_path, rows)


def test_box_faults() -> None:
    assert box_fault(np.full(4, np.nan)) == ""
    assert box_fault(np.array([-3.0, 0, 0.5, 1.5])) == ""
    # One pixel at most shows nothing, and is what shares of the picture's sides look like.
    assert "seem to be shares of the picture's sides" in box_fault(np.array([-3.0, 0, 0.5, 1]))
    assert "seem to be shares" in box_fault(np.array([900.0, 700, 1.49, 1.49]))
    assert "four finite numbers" in box_fault(np.array([np.nan, 0, 1, 1]))


@pytest.mark.parametrize("margin", ["-0.1", "1.5", "wide", "true", ".nan"])
def test_margins_out_of_range_are_refused(tmp_path: Path, margin: str) -> None:
    with pytest.raises(CardError, match="margin"):
        read_card(write_set(tmp_path, ROWS, extra=f"margin: {margin}"))


def test_a_margin_without_a_box_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="no image of its set has a box"):
        open_set(tmp_path, ["shelf.png,red,a"], header="path,label,split", extra="margin: 0.1")


def test_a_box_outside_the_picture_says_which(tmp_path: Path) -> None:
    catalog = open_set(tmp_path, ["shelf.png,red,a,60,5,16,20.5"])
    with pytest.raises(
        ImageError, match=r"shelf\.png\[60,5,16,20\.5\]: the box lies outside the picture of 60 x 40 px"
    ):
        load_image(catalog.pictures()[0])


def test_files_of_two_sets_are_told_from_boxes_of_one(tmp_path: Path) -> None:
    one = write_set(tmp_path, ROWS)
    other = tmp_path / "again.md"
    other.write_bytes(Path(one).read_bytes())
    (tmp_path / "again").mkdir()
    for name in ("shelf.png", "boxes.csv"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "shelves" / name).read_bytes())
    both = open_catalog(f"{one} + {other}", tmp_path)
    assert len(both) == 8
    (tmp_path / "again" / "boxes.csv").unlink()
    (tmp_path / "again" / "shelf.png").unlink()
    (tmp_path / "again").rmdir()
    (tmp_path / "again").symlink_to(tmp_path / "shelves")
    with pytest.raises(LayoutError, match="belong to several of shelves, again"):
        open_catalog(f"{one} + {other}", tmp_path)


def test_the_audit_measures_the_crop(tmp_path: Path) -> None:
    catalog = open_set(tmp_path, [*ROWS, "shelf.png,gone,b,99,99,5,5"])
    measures, quarantine = measure_images(catalog, num_workers=2)
    assert list(zip(measures["width_px"], measures["height_px"], strict=True)) == [
        (16, 20),
        (21, 20),
        (60, 40),
        (10, 10),
    ]
    # the luma of pure red, green and blue (ITU-R BT.601): 0.299, 0.587, 0.114
    np.testing.assert_allclose(measures["brightness"][[0, 1, 3]], [0.299, 0.587, 0.114], atol=0.004)
    assert set(measures["sha256"]) == {hashlib.sha256((tmp_path / "shelves" / "shelf.png").read_bytes()).hexdigest()}
    assert list(measures["path"]) == list(catalog.names()[:4])
    assert quarantine.to_numpy().tolist() == [
        ["shelf.png[99,99,5,5]", "the box lies outside the picture of 60 x 40 px"]
    ]
    assert find_exact_duplicates(catalog, measures).empty, "boxes of one file are no duplicates"
    with pytest.raises(ValueError, match="not those of this catalog"):
        check_measures(catalog.take(np.array([1, 0, 2, 3, 4])), measures)


def test_the_same_box_of_two_copies_of_a_file_is_a_duplicate(tmp_path: Path) -> None:
    write_set(tmp_path, [])
    (tmp_path / "shelves" / "copy.png").write_bytes((tmp_path / "shelves" / "shelf.png").read_bytes())
    catalog = open_set(tmp_path, [*ROWS, "copy.png,pink,b,4,5,16,20", "copy.png,shelf,b,1,1,30,30"])
    (found,) = find_exact_duplicates(catalog, measure_images(catalog)[0]).itertuples()
    assert found.paths == ["shelf.png[4,5,16,20]", "copy.png[4,5,16,20]"]
    assert (found.labels, found.same_label, found.across_splits) == ("pink, red", False, True)


def test_a_card_with_boxes_can_be_recognised(tmp_path: Path) -> None:
    card = write_set(tmp_path, ROWS, extra="margin: 0.25")
    inputs, notes = gather_inputs([card], tmp_path, split="a")
    assert notes == []
    assert [(one.name, one.box, one.label) for one in inputs] == [
        ("shelf.png", Box(0, 0, 24, 30), "red"),
        ("shelf.png", Box(14.75, 0, 31.5, 30), "green"),
        ("shelf.png", None, "shelf"),
    ]


def test_keys_of_content() -> None:
    assert content_key(b"x") == hashlib.sha256(b"x").hexdigest()
    assert len({content_key(b"x"), content_key(b"x", Box(1, 2, 3, 4)), content_key(b"x", Box(1, 2, 3, 5))}) == 3
