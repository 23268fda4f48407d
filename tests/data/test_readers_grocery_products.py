from pathlib import Path

import pytest
from layouts import LONG_NAME, Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

BOX = ("box_x", "box_y", "box_width", "box_height")
TRAINING = (
    "\ufeffTraining/Food/Bakery/1.jpg\r\n\r\nTraining/Food/Bakery/01.JPG\r\n"
    f"Training/Food/Café, Tee/{LONG_NAME}\r\nTraining/Background/1.png"
)
# The second box leaves any picture on the right, the third on the left; the comma belongs to a folder's name.
S1_10 = f"Food/Bakery/01.jpg,100,20,130,90\r\n\r\n/Food/Bakery/1.JPG, 0, 0, 99999, 10\nFood/Café, Tee/{LONG_NAME},-4,1,6,3.5"
S1_9 = "Training/Food/Bakery/1.jpg,1,2,3,4\n"


@pytest.fixture
def grocery(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "grocery_products")
    layout.write("TrainingFiles.txt", TRAINING)
    layout.write("Training/classes.csv", "Class,Id\nFood/Bakery,1\n")
    layout.write("Annotations/s1_10.csv", S1_10)
    layout.write("Annotations/s1_9.csv", S1_9)
    layout.fill("Training/Food/Bakery/1.jpg", "Training/Food/Bakery/01.JPG", f"Training/Food/Café, Tee/{LONG_NAME}")
    layout.fill("Training/Background/1.png", "Training/Food/Bakery/originals/1.jpg", "Annotations/README.txt")
    layout.fill("Testing/store1/images/store1_10.jpg", "Testing/store1/images/9.JPG", "Testing/store1/images/19.jpg")
    return layout


def test_packshots_and_boxes(grocery: Layout) -> None:
    catalog = grocery.open()
    assert rows(catalog.frame, "path", "label", "split", "group", "domain") == [
        ("Training/Food/Bakery/1.jpg", "Food/Bakery/1.jpg", "reference", "Food/Bakery", "packshot"),
        ("Training/Food/Bakery/01.JPG", "Food/Bakery/01.jpg", "reference", "Food/Bakery", "packshot"),
        (
            f"Training/Food/Café, Tee/{LONG_NAME}",
            f"Food/Café, Tee/{LONG_NAME}",
            "reference",
            "Food/Café, Tee",
            "packshot",
        ),
        ("Training/Background/1.png", "Background/1.png", "background", "Background", "real"),
        ("Testing/store1/images/9.JPG", "Food/Bakery/1.jpg", "query", "Food/Bakery", "real"),
        ("Testing/store1/images/store1_10.jpg", "Food/Bakery/01.jpg", "query", "Food/Bakery", "real"),
        ("Testing/store1/images/store1_10.jpg", "Food/Bakery/1.jpg", "query", "Food/Bakery", "real"),
        ("Testing/store1/images/store1_10.jpg", f"Food/Café, Tee/{LONG_NAME}", "query", "Food/Café, Tee", "real"),
    ]
    assert rows(catalog.frame, *BOX) == [
        *[(None, None, None, None)] * 4,
        (1.0, 2.0, 2.0, 2.0),
        (100.0, 20.0, 30.0, 70.0),
        (0.0, 0.0, 99999.0, 10.0),
        (-4.0, 1.0, 10.0, 2.5),
    ]
    assert catalog.notes == ()


def test_products_that_come_with_the_boxes(grocery: Layout) -> None:
    grocery.write(
        "Annotations/s1_9.csv", "Food/Extra/2.jpg,1,2,3,4\nFood/Extra/2.jpg,5,2,8,4\nFood/Extra/3.jpg,1,2,3,9\n"
    )
    assert grocery.open().notes == (
        "sample: 3 boxes are of 2 products without a packshot: Food/Extra/2.jpg, Food/Extra/3.jpg; the folder "
        "extra_products, which comes with the boxes, may have them",
    )
    grocery.fill("extra_products/Food/Extra/2.jpg", "extra_products/Food/Extra/3.JPG", "extra_products/readme.txt")
    catalog = grocery.open()
    assert catalog.notes == ()
    assert rows(catalog.select(split="reference").frame, "path", "label", "group")[3:] == [
        ("extra_products/Food/Extra/2.jpg", "Food/Extra/2.jpg", "Food/Extra"),
        ("extra_products/Food/Extra/3.JPG", "Food/Extra/3.jpg", "Food/Extra"),
    ]


def test_lines_that_are_no_box_are_left_out_and_noted(grocery: Layout) -> None:
    faulty = (
        "Food/Bakery/1.jpg,5,2,5,4\nFood/Bakery/1.jpg,1,2,3\nFood/Bakery/1.jpg,1,2,3,four\nFood/Bakery/1.jpg,1,2,3,4\n"
    )
    grocery.write("Annotations/s1_9.csv", S1_9 + "\n" + faulty)
    catalog = grocery.open()
    assert rows(catalog.frame, "path", *BOX)[4:6] == [
        ("Testing/store1/images/9.JPG", 1.0, 2.0, 2.0, 2.0),
        ("Testing/store1/images/store1_10.jpg", 100.0, 20.0, 30.0, 70.0),
    ]
    assert catalog.notes == (
        "sample: 4 lines of Annotations are no boxes and left out: s1_9.csv line 3, s1_9.csv line 4, s1_9.csv line 5, "
        "s1_9.csv line 6",
    )


def test_packshots_without_boxes(grocery: Layout, tmp_path: Path) -> None:
    (grocery.root / "Annotations").rename(tmp_path / "away")
    catalog = grocery.open("splits: {reference: {images: 3, labels: 3}, query: null}")
    assert catalog.missing_splits == {"sample": ["query"]}
    assert catalog.frame["path"].tolist() == [
        *(f"Training/Food/{name}" for name in ("Bakery/1.jpg", "Bakery/01.JPG")),
        (f"Training/Food/Café, Tee/{LONG_NAME}"),
        "Training/Background/1.png",
    ]
    (grocery.root / "TrainingFiles.txt").unlink()
    with pytest.raises(MissingDataError, match=r"no TrainingFiles.txt in it"):
        grocery.open()


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "TrainingFiles.txt",
            "Training/Food/Bakery/7.jpg\n",
            r"1 of 1 files listed in TrainingFiles.txt .*Bakery/7\.jpg",
        ),
        ("TrainingFiles.txt", "../Training/1.jpg\n", "do not stay inside the data set"),
        (
            "TrainingFiles.txt",
            "Training/Food/Bakery/1.jpg\n" * 2,
            r"several packshots of 1 products: Food/Bakery/1\.jpg",
        ),
        ("Annotations/shelf1.csv", "", r"Annotations holds shelf1\.csv\. Wanted: lists of boxes named like s1_14\.csv"),
        ("Annotations/s2_1.csv", S1_9, r"Testing/store2/images has no picture 1\.jpg, of which s2_1\.csv lists boxes"),
        ("Annotations/s1_1.csv", S1_9, r"Testing/store1/images has no picture 1\.jpg"),
    ],
)
def test_what_is_missing_or_misnamed_is_an_error(grocery: Layout, path: str, text: str, message: str) -> None:
    grocery.write(path, text)
    with pytest.raises(LayoutError, match=message):
        grocery.open()


@pytest.mark.parametrize("folder", ["Training/Food", "Testing/store1/images", "Annotations"])
def test_links_out_of_the_set_are_refused(grocery: Layout, tmp_path: Path, folder: str) -> None:
    (grocery.root / folder).rename(tmp_path / "outside")
    (grocery.root / folder).symlink_to(tmp_path / "outside")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        grocery.open()


def test_there_is_no_option(grocery: Layout) -> None:
    with pytest.raises(CardError, match="Allowed: none"):
        grocery.open("options: {boxes: true}")
