from pathlib import Path

import pytest
from layouts import LONG_NAME, Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

HEADER = "image_id class_id super_class_id path\n"
TRAIN = (
    "\ufeffimage_id class_id super_class_id path\r\n"
    "1 1 1 bicycle_final/111085122871_0.JPG\r\n\r\n"
    f"2 0001 1 bicycle_final/{LONG_NAME}\r\n"
    "3 11318 2 cabinet_final/a b_0.jpg"
)
TEST = HEADER + (
    "59552 11319 2 cabinet_final/9_0.JPG\n59553 11319 2 cabinet_final/9_1.JPG\n"
    "59554 22634 12 toaster_final/8_0.JPG\n59555 11319 2 cabinet_final/9_2.JPG\n"
)


@pytest.fixture
def online(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "online_products")
    layout.write("Ebay_train.txt", TRAIN)
    layout.write("Ebay_test.txt", TEST)
    layout.write("Ebay_info.txt", HEADER)
    layout.fill("bicycle_final/111085122871_0.JPG", f"bicycle_final/{LONG_NAME}", "cabinet_final/a b_0.jpg")
    layout.fill(*(f"cabinet_final/9_{number}.JPG" for number in range(3)), "toaster_final/8_0.JPG")
    return layout


def test_the_lists_as_they_are(online: Layout) -> None:
    assert rows(online.open().frame, "path", "label", "split", "group", "domain") == [
        ("bicycle_final/111085122871_0.JPG", "1", "train", "bicycle_final", "real"),
        (f"bicycle_final/{LONG_NAME}", "0001", "train", "bicycle_final", "real"),
        ("cabinet_final/a b_0.jpg", "11318", "train", "cabinet_final", "real"),
        ("cabinet_final/9_0.JPG", "11319", "test", "cabinet_final", "real"),
        ("cabinet_final/9_1.JPG", "11319", "test", "cabinet_final", "real"),
        ("toaster_final/8_0.JPG", "22634", "test", "toaster_final", "real"),
        ("cabinet_final/9_2.JPG", "11319", "test", "cabinet_final", "real"),
    ]


def test_references_are_taken_out_of_the_test_images(online: Layout) -> None:
    frame = online.open("options: {references_per_class: 1}").frame
    assert frame["split"].tolist() == ["train", "train", "train", "reference", "query", "reference", "query"]


def test_one_list_alone_and_none(online: Layout) -> None:
    (online.root / "Ebay_train.txt").unlink()
    assert online.open("splits: {train: null, test: {images: 4, labels: 2}}").missing_splits == {"sample": ["train"]}
    (online.root / "Ebay_test.txt").unlink()
    with pytest.raises(MissingDataError, match=r"none of the lists Ebay_train.txt, Ebay_test.txt"):
        online.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEST.removeprefix(HEADER), "does not begin with the header line 'image_id class_id super_class_id path'"),
        ("", "does not begin with the header line"),
        (HEADER + "\n1 11319 cabinet_final/9_0.JPG\n", r"line 3: wanted 'image_id .* path', found '1 11319 cabinet"),
        (HEADER + "1 11319 2 cabinet_final/9_3.JPG\n", r"1 of 1 files listed in Ebay_test.txt .*: cabinet_final/9_3"),
        (
            HEADER + "1 11319 2 cabinet_final/9_0.jpg\n",
            r"1 of 1 files listed in Ebay_test.txt .*: cabinet_final/9_0.jpg",
        ),
        (HEADER + "1 1 1 cabinet_final/9_0.JPG\n", r"1 classes are in both lists: 1\."),
        (TEST + TEST.removeprefix(HEADER), r"4 images of 'sample' are there more than once"),
        (HEADER + "1 11319 2 /etc/9_0.JPG\n", "do not stay inside the data set: /etc/9_0.JPG"),
    ],
)
def test_faulty_lists_are_refused(online: Layout, text: str, message: str) -> None:
    online.write("Ebay_test.txt", text)
    with pytest.raises(LayoutError, match=message):
        online.open()


def test_links_and_options(online: Layout, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"'references_per_class' wants a value of type int, none below 0; found -1"):
        online.open("options: {references_per_class: -1}")
    with pytest.raises(CardError, match="wants a value of type int, none below 0; found True"):
        online.open("options: {references_per_class: true}")
    picture = online.root / "toaster_final/8_0.JPG"
    picture.rename(tmp_path / "8_0.JPG")
    picture.symlink_to(tmp_path / "8_0.JPG")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        online.open()
