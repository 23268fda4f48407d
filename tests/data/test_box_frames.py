"""Boxes of the picture as stored, and as EXIF shows it: what is cut is what was marked, or the list is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workbench.data.box_frames import to_shown_frame
from workbench.data.boxes import Box, turn_box
from workbench.data.catalog import open_catalog
from workbench.data.images import load_image, stored_size
from workbench.data.inputs import gather_inputs
from workbench.data.readers.listing import LayoutError

# A box 10 wide and 5 high at (4, 3) of a picture of 30 x 20 px as stored: 16 px lie to its right, 12 below it. Worked by hand.
STORED = Box(4, 3, 10, 5)
SHOWN = {
    1: (4, 3, 10, 5),
    2: (16, 3, 10, 5),  # mirrored left to right
    3: (16, 12, 10, 5),  # turned by half
    4: (4, 12, 10, 5),  # mirrored top to bottom
    5: (3, 4, 5, 10),  # mirrored at the diagonal: x and y change places
    6: (12, 4, 5, 10),  # a quarter clockwise: what lay below is to the left
    7: (12, 16, 5, 10),  # mirrored at the other diagonal
    8: (3, 16, 5, 10),  # a quarter anticlockwise: what lay to the right is above
}


def save(path: Path, orientation: int, size: tuple[int, int] = (30, 20)) -> None:
    """White, and red in `STORED` of the picture as it lies in the file."""
    picture_HWC = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
    picture_HWC[3:8, 4:14] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture_HWC).save(path, exif=exif)


def is_red(picture: Image.Image) -> bool:
    return picture.size in ((10, 5), (5, 10)) and bool((np.asarray(picture) == (255, 0, 0)).all())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_turned_with_its_picture(orientation: int) -> None:
    assert turn_box(STORED, 30, 20, orientation) == SHOWN[orientation]


def test_an_orientation_that_is_none_turns_nothing() -> None:
    assert turn_box(STORED, 30, 20, 0) == turn_box(STORED, 30, 20, 9) == STORED


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_the_stored_size_and_the_orientation_of_a_file(tmp_path: Path, suffix: str) -> None:
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.{suffix}"
        save(path, orientation)
        assert stored_size(path) == (30, 20, orientation)
        shown = (20, 30) if orientation >= 5 else (30, 20)
        assert load_image(path).size == shown


def coco_set(folder: Path, pictures: list[tuple[str, int, tuple[int, int], Box]], **changed: Any) -> str:
    """A card of COCO's json: name, EXIF's orientation, stated width and height, and box of each picture."""
    for name, orientation, _, _ in pictures:
        save(folder / "shelf" / name, orientation)
    content = {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            for number, (name, _, size, _) in enumerate(pictures)
        ],
        "categories": [{"id": 1, "name": "tin"}],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": list(box)} for number, (*_, box) in enumerate(pictures)
        ],
    }
    (folder / "shelf" / "boxes.json").write_text(json.dumps(content | changed))
    card = folder / "shelf.md"
    card.write_text(
        "---\ntitle: s\ntask: recognition\nreader: coco\noptions: {annotations: {train: boxes.json}}\nlicence: none\n"
        "source: here\nlayout: json\n---\n"
    )
    return str(card)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("frame", ["stored", "shown"])
def test_the_size_tells_of_which_frame_the_box_is(tmp_path: Path, orientation: int, frame: str) -> None:
    size, box = ((30, 20), STORED) if frame == "stored" else ((20, 30), Box(*SHOWN[orientation]))
    catalog = open_catalog(coco_set(tmp_path, [("a.png", orientation, size, box)]), tmp_path)
    (picture,) = catalog.pictures()
    assert picture.box == SHOWN[orientation]
    assert is_red(load_image(picture))
    turned = "train: boxes are of the stored pictures, as their sizes say, and were turned along with 1 pictures that EXIF turns"
    assert catalog.notes == ((f"shelf: {turned}",) if frame == "stored" else ())
    (asked,), notes = gather_inputs([str(tmp_path / "shelf" / "boxes.json")])
    assert asked.box == SHOWN[orientation]
    assert len(notes) == (frame == "stored")


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_the_size_cannot_tell_the_other_pictures_do(tmp_path: Path, orientation: int) -> None:
    stored = ("turned.png", 6, (30, 20), STORED)
    shown = ("turned.png", 6, (20, 30), Box(*SHOWN[6]))
    card = coco_set(tmp_path / "1", [("open.png", orientation, (30, 20), STORED), stored])
    assert [is_red(load_image(picture)) for picture in open_catalog(card, tmp_path / "1").pictures()] == [True, True]
    card = coco_set(tmp_path / "2", [("open.png", orientation, (30, 20), Box(*SHOWN[orientation])), shown])
    assert [is_red(load_image(picture)) for picture in open_catalog(card, tmp_path / "2").pictures()] == [True, True]
    alone = open_catalog(
        coco_set(tmp_path / "3", [("open.png", orientation, (30, 20), Box(*SHOWN[orientation]))]), tmp_path / "3"
    )
    assert is_red(load_image(alone.pictures()[0]))
    assert "boxes are taken to be of them as shown" in alone.notes[0]
    other = ("other.png", 8, (20, 30), Box(*SHOWN[8]))
    card = coco_set(tmp_path / "4", [("open.png", orientation, (30, 20), STORED), stored, other])
    with pytest.raises(
        LayoutError, match=rf"box 1 \(open.png, tin\): EXIF turns .*orientation {orientation}.*cannot be told"
    ):
        open_catalog(card, tmp_path / "4")


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    """Boxes of pictures that were made smaller afterwards would be cut from another place."""
    card = coco_set(tmp_path, [("a.png", 1, (30, 20), STORED), ("b.png", 1, (300, 200), STORED)])
    with pytest.raises(
        LayoutError, match=r"1 of 2 boxes .* box 2 \(b.png, tin\): .* said to be 300 x 200 px and is 30 x 20 px"
    ):
        open_catalog(card, tmp_path)
    inputs, _ = gather_inputs([str(tmp_path / "shelf" / "boxes.json")])
    assert [bool(one.fault) for one in inputs] == [False, True]


@pytest.mark.parametrize("stated", [{}, {"width": 0, "height": 0}, {"width": None, "height": None}])
def test_without_a_size_boxes_are_of_the_picture_as_shown(tmp_path: Path, stated: dict[str, Any]) -> None:
    images = [{"id": 0, "file_name": "a.png", **stated}]
    card = coco_set(tmp_path, [("a.png", 6, (0, 0), Box(*SHOWN[6]))], images=images)
    assert is_red(load_image(open_catalog(card, tmp_path).pictures()[0]))


@pytest.mark.parametrize("stated", [{"width": "30", "height": "20"}, {"width": 30}, {"width": -1, "height": 4}])
def test_a_size_that_is_none_is_refused(tmp_path: Path, stated: dict[str, Any]) -> None:
    card = coco_set(tmp_path, [("a.png", 1, (30, 20), STORED)], images=[{"id": 0, "file_name": "a.png", **stated}])
    with pytest.raises(LayoutError, match=r"image 0 has the width and height .* wanted: px, or none of the two"):
        open_catalog(card, tmp_path)


def test_a_picture_that_cannot_be_read_is_left_to_the_decoding(tmp_path: Path) -> None:
    card = coco_set(tmp_path, [("a.png", 1, (30, 20), STORED)])
    (tmp_path / "shelf" / "a.png").write_bytes(b"no picture")
    assert open_catalog(card, tmp_path).pictures()[0].box == STORED


def table_set(
    folder: Path, rows: list[str], header: str = "path,label,split,x,y,width,height,image_width,image_height"
) -> str:
    save(folder / "goods" / "a.png", 6)
    (folder / "goods" / "rows.csv").write_text("\n".join([header, *rows, ""]))
    card = folder / "goods.md"
    card.write_text(
        "---\ntitle: g\ntask: recognition\nreader: table\noptions: {table: rows.csv}\nlicence: none\nsource: here\n"
        "layout: a table\n---\n"
    )
    return str(card)


def test_a_table_may_say_the_size_too(tmp_path: Path) -> None:
    rows = ["a.png,stored,t,4,3,10,5,30,20", "a.png,whole,t,,,,,30,20", "a.png,unsaid,t,12,4,5,11,,"]
    catalog = open_catalog(table_set(tmp_path, rows), tmp_path)
    assert [picture.box for picture in catalog.pictures()] == [Box(*SHOWN[6]), None, Box(12, 4, 5, 11)]
    assert is_red(load_image(catalog.pictures()[0]))
    assert catalog.notes[0].startswith("goods: boxes are of the stored pictures")
    inputs, notes = gather_inputs([str(tmp_path / "goods" / "rows.csv")])
    assert [one.box for one in inputs] == [Box(*SHOWN[6]), None, Box(12, 4, 5, 11)]
    assert "turned along with 1 pictures" in notes[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a.png,x,t,4,3,10,5,30,"], "image_width and image_height are px, both or none; row 1 has 30 x nan"),
        (["a.png,x,t,4,3,10,5,30,0"], "row 1 has 30 x 0"),
        (["a.png,x,t,4,3,10,5,30,wide"], "image_height wants numbers, px; row 1 has 'wide'"),
        (["a.png,x,t,4,3,10,5,40,20"], r"row 1 \(a.png\): its picture is said to be 40 x 20 px and is 30 x 20 px"),
    ],
)
def test_sizes_of_a_table_are_checked(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        open_catalog(table_set(tmp_path, rows), tmp_path)
    with pytest.raises(LayoutError, match="has no column 'image_height'"):
        open_catalog(
            table_set(tmp_path, ["a.png,x,t,4,3,10,5,30"], "path,label,split,x,y,width,height,image_width"), tmp_path
        )


SHARES = "one pixel at most; wanted are px, and these seem to be shares of the picture's sides, 0 to 1: multiply x and width by"


def test_shares_of_the_sides_are_never_cut_as_pixels(tmp_path: Path) -> None:
    header = "path,label,split,x,y,width,height"
    rows = ["a.png,x,t,0.5,0.5,0.25,0.4", "a.png,y,t,0,0,1,1", "a.png,z,t,0.1,0.2,1.0000001,0.3"]
    with pytest.raises(
        LayoutError, match=rf"3 of 3 boxes of 'goods' cannot be used: row 1 \(a.png\): the box is 0.25 x 0.4, {SHARES}"
    ):
        open_catalog(table_set(tmp_path, rows, header), tmp_path)
    inputs, _ = gather_inputs([str(tmp_path / "goods" / "rows.csv")])
    assert all(SHARES in one.fault for one in inputs)
    shares = [("a.png", 1, (30, 20), Box(0.1, 0.2, 0.3, 0.4))]
    with pytest.raises(
        LayoutError, match=rf"1 of 1 boxes cannot be used: box 1 \(a.png, tin\): the box is 0.3 x 0.4, {SHARES}"
    ):
        open_catalog(coco_set(tmp_path, shares), tmp_path)
    inputs, _ = gather_inputs([str(tmp_path / "shelf" / "boxes.json")])
    assert all(SHARES in one.fault for one in inputs)


def percentages(num: int, most: float = 100.0) -> np.ndarray:
    """Boxes spread over the whole picture, as percentages of its sides; the last one ends at `most`."""
    place_N = np.linspace(0, most - 20, num)
    return np.column_stack([place_N, place_N[::-1], np.full(num, 20.0), np.full(num, 20.0)])


def test_percentages_are_refused_where_the_pictures_are_known_to_be_large(tmp_path: Path) -> None:
    def turn(box_N4: np.ndarray, side: float) -> np.ndarray:
        paths = [tmp_path / "none.jpg"] * len(box_N4)
        return to_shown_frame(box_N4, np.full((len(box_N4), 2), side), paths, Path("boxes.json"))[0]

    with pytest.raises(
        LayoutError, match=r"boxes.json: all 20 boxes lie in the first 100 x 100 of pictures of at least 400 px"
    ):
        turn(percentages(20), 400)
    for box_N4, side in (
        (percentages(19), 400),  # too few to be sure
        (percentages(20), 399),  # the boxes may well be px of such a picture
        (percentages(20, 101), 400),  # no percentage is above 100
        (percentages(20, 89), 400),  # small objects in the upper left corner
        (percentages(20) - 1, 400),  # boxes that leave the picture are px
    ):
        assert np.array_equal(turn(box_N4, side), box_N4)
