from pathlib import Path

import pytest
from layouts import LONG_NAME, Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

HEAD = "4\nimage_name item_id evaluation_status\n"
LINES = (
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg                id_00000002 train\n"
    f"img/WOMEN/Dresses/id_00000004/{LONG_NAME} id_00000004 query\n"
    "img/WOMEN/Dresses/id_00000004/02_2_side.JPG\tid_00000004  gallery\n"
    "img/MEN/Tees_Tanks/id_00000007/01_7_additional.jpg id_00000007 gallery\n"
)
NAMES = [line.split()[0] for line in LINES.splitlines()]


@pytest.fixture
def shop(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "in_shop")
    layout.write("list_eval_partition.txt", HEAD + LINES)
    layout.fill(*NAMES)
    return layout


def expected(prefix: str) -> list[tuple[object, ...]]:
    return [
        (f"{prefix}img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train", "WOMEN/Dresses"),
        (f"{prefix}img/WOMEN/Dresses/id_00000004/{LONG_NAME}", "id_00000004", "query", "WOMEN/Dresses"),
        (f"{prefix}img/WOMEN/Dresses/id_00000004/02_2_side.JPG", "id_00000004", "gallery", "WOMEN/Dresses"),
        (f"{prefix}img/MEN/Tees_Tanks/id_00000007/01_7_additional.jpg", "id_00000007", "gallery", "MEN/Tees_Tanks"),
    ]


def test_the_list_as_it_is(shop: Layout) -> None:
    frame = shop.open().frame
    assert rows(frame, "path", "label", "split", "group") == expected("")
    assert frame["domain"].tolist() == ["real"] * 4


def test_byte_order_mark_windows_lines_and_blank_lines(shop: Layout) -> None:
    text = "\ufeff\r\n" + (HEAD + "\n" + LINES).replace("\n", "\r\n") + " \r\n"
    shop.write("list_eval_partition.txt", text)
    assert rows(shop.open().frame, "path", "label", "split", "group") == expected("")


def test_the_folders_of_the_archive(shop: Layout) -> None:
    (shop.root / "Eval").mkdir()
    (shop.root / "Img").mkdir()
    (shop.root / "list_eval_partition.txt").rename(shop.root / "Eval/list_eval_partition.txt")
    (shop.root / "img").rename(shop.root / "Img/img")
    assert rows(shop.open().frame, "path", "label", "split", "group") == expected("Img/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES, "does not begin with the number of images and the line 'image_name item_id evaluation_status'"),
        (HEAD.removeprefix("4\n") + LINES, "does not begin with the number of images"),
        ("4\n" + LINES, "does not begin with the number of images"),
        ("", "does not begin with the number of images"),
        (HEAD + "".join(LINES.splitlines(keepends=True)[:3]), "says 4 images and lists 3"),
        (HEAD + LINES.replace("id_00000004  gallery", "id_00000004"), "line 5: wanted 'path item_id status'"),
        (HEAD + LINES.replace(" train", " val"), "line 3: wanted the status train, query, gallery, found 'val'"),
        (
            HEAD + LINES.replace("02_1_front", "02_9_front"),
            r"1 of 4 files listed in list_eval_partition.txt .*02_9_front",
        ),
        (HEAD + LINES.replace(NAMES[0], NAMES[3]), "1 images of 'sample' are there more than once"),
        (HEAD + LINES.replace(NAMES[0], "/etc/passwd"), "do not stay inside the data set: /etc/passwd"),
    ],
)
def test_faulty_lists_are_refused(shop: Layout, text: str, message: str) -> None:
    shop.write("list_eval_partition.txt", text)
    with pytest.raises(LayoutError, match=message):
        shop.open()


def test_links_places_and_options(shop: Layout, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="Allowed: none"):
        shop.open("options: {boxes: true}")
    (shop.root / "img/MEN").rename(tmp_path / "outside")
    (shop.root / "img/MEN").symlink_to(tmp_path / "outside")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        shop.open()
    (shop.root / "img").rename(tmp_path / "img")
    with pytest.raises(MissingDataError, match="neither a folder img nor a folder Img/img"):
        shop.open()
    (shop.root / "list_eval_partition.txt").unlink()
    with pytest.raises(MissingDataError, match=r"neither list_eval_partition.txt nor Eval/list_eval_partition.txt"):
        shop.open()
