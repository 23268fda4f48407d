from pathlib import Path

import pytest
from layouts import LONG_NAME, Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

TRAIN = f"\ufeffname,class,group\r\n00120.jpg,007,3\r\n\r\n{LONG_NAME},7,3\r\n2.JPG , 8,12\r\n"
TEST = "name,class,Usage\n1.jpg,8,Public\n\n2.jpg,9,Private\n"


@pytest.fixture
def products(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "products10k")
    layout.write("train.csv", TRAIN)
    layout.write("test_kaggletest.csv", TEST)
    layout.fill("train/00120.jpg", f"train/{LONG_NAME}", "train/2.JPG", "test/1.jpg", "test/2.jpg")
    return layout


def test_the_groups_of_the_training_list_hold_for_the_test_list(products: Layout) -> None:
    assert rows(products.open().frame, "path", "label", "split", "group", "domain") == [
        ("train/00120.jpg", "007", "train", "3", "real"),
        (f"train/{LONG_NAME}", "7", "train", "3", "real"),
        ("train/2.JPG", "8", "train", "12", "real"),
        ("test/1.jpg", "8", "test", "12", "real"),
        ("test/2.jpg", "9", "test", None, "real"),
    ]


def test_groups_of_the_test_list(products: Layout) -> None:
    products.write("test_kaggletest.csv", "name,class,group\n1.jpg,8,12\n2.jpg,9,5\n")
    assert rows(products.open().frame, "label", "group")[3:] == [("8", "12"), ("9", "5")]
    products.write("test_kaggletest.csv", "name,class,group\n1.jpg,8,11\n2.jpg,9,5\n")
    with pytest.raises(LayoutError, match=r"put 1 classes into several groups: 8\."):
        products.open()


def test_one_list_alone_and_none(products: Layout) -> None:
    (products.root / "train.csv").unlink()
    assert rows(products.open().frame, "path", "label", "group") == [
        ("test/1.jpg", "8", None),
        ("test/2.jpg", "9", None),
    ]
    (products.root / "test_kaggletest.csv").unlink()
    with pytest.raises(MissingDataError, match=r"none of the lists train.csv, test_kaggletest.csv"):
        products.open()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\n1.jpg,8\n2.jpg\n", r"has 1 rows with an empty field, the first being '2\.jpg,'"),
        ("name,class\n1.jpg,8\n,9\n", r"has 1 rows with an empty field, the first being ',9'"),
        ("name,class\n1.jpg,8,3\n2.jpg,9,3\n", "cannot be read as a table"),
        ("1.jpg,8\n2.jpg,9\n", "has no column 'name'"),
        ("", "cannot be read as a table"),
        ("name,class\n1.jpg,8\n1.jpg,8\n", r"more than once: test/1\.jpg"),
        ("name,class\n1.jpg,8\n3.jpg,8\n", r"1 of 2 files listed in test_kaggletest.csv are not in .*: test/3\.jpg"),
        ("name,class\n../train/2.JPG,8\n", r"do not stay inside the data set: test/\.\./train/2\.JPG"),
        ("name,class\n2.JPG,8\n", r"not in .*: test/2\.JPG"),
    ],
)
def test_faulty_lists_are_refused(products: Layout, text: str, message: str) -> None:
    products.write("test_kaggletest.csv", text)
    with pytest.raises(LayoutError, match=message):
        products.open()


def test_links_and_options(products: Layout, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="Allowed: none"):
        products.open("options: {split: train}")
    (products.root / "test").rename(tmp_path / "outside")
    (products.root / "test").symlink_to(tmp_path / "outside")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        products.open()
