from pathlib import Path

import pytest
from layouts import Layout, rows

from workbench.data.card import CardError, read_card
from workbench.data.locate import MissingDataError, reader_of
from workbench.data.readers.listing import LayoutError

NAMES = ["001.Black_footed_Albatross", "100.Brown_Pelican", "101.White_Pelican", "200.Common_Yellowthroat"]
CLASSES = (
    "1 001.Black_footed_Albatross\r\n100 100.Brown_Pelican\r\n101 101.White_Pelican\r\n200 200.Common_Yellowthroat\r\n"
)
PATHS = [
    "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    "100.Brown_Pelican/Brown_Pelican_0003_94508.jpg",
    "101.White_Pelican/Wéiß_1.JPG",
    "101.White_Pelican/White_Pelican_0002_97017.jpg",
    "200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg",
]
IMAGES = "\ufeff" + "".join(f"{number} {path}\n" for number, path in enumerate(PATHS, 1))
LABELS = "1 1\n2 100\n3 101\n\n4 101\n5 200\n"
SPLIT = "1 0\n2 1\n3 1\n4 0\n5 0\n"
# The third box leaves its picture on the left; the fifth is wider than any picture of the set.
BOXES = "1 60.0 27.0 325.0 304.0\n2 1 2 3 4\n3 -5.5 0.0 20.0 10.0\n4 0 0 2 1\n5 10.0 10.0 9999.0 5.0\n"


@pytest.fixture
def birds(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "cub200")
    for name, text in [
        ("images.txt", IMAGES),
        ("image_class_labels.txt", LABELS),
        ("classes.txt", CLASSES),
        ("train_test_split.txt", SPLIT),
        ("bounding_boxes.txt", BOXES),
        ("README", ""),
    ]:
        layout.write(name, text)
    layout.fill(*(f"images/{path}" for path in PATHS))
    return layout


def test_the_split_by_classes_is_the_default(birds: Layout) -> None:
    frame = birds.open().frame
    assert rows(frame, "path", "label", "split", "domain", "box_x") == [
        (f"images/{PATHS[0]}", "001.Black_footed_Albatross", "train", "real", None),
        (f"images/{PATHS[1]}", "100.Brown_Pelican", "train", "real", None),
        (f"images/{PATHS[2]}", "101.White_Pelican", "test", "real", None),
        (f"images/{PATHS[3]}", "101.White_Pelican", "test", "real", None),
        (f"images/{PATHS[4]}", "200.Common_Yellowthroat", "test", "real", None),
    ]


def test_the_official_split_mixes_the_classes(birds: Layout) -> None:
    frame = birds.open("options: {split: official}").frame
    assert frame["split"].tolist() == ["test", "train", "train", "test", "test"]
    assert frame["label"].tolist() == [NAMES[0], NAMES[1], NAMES[2], NAMES[2], NAMES[3]]


def test_references_are_taken_out_of_the_test_images(birds: Layout) -> None:
    frame = birds.open("options: {references_per_class: 1}").frame
    assert frame["split"].tolist() == ["train", "train", "reference", "query", "reference"]


def test_boxes_are_given_as_listed(birds: Layout) -> None:
    frame = birds.open("options: {boxes: true}").frame
    assert rows(frame, "box_x", "box_y", "box_width", "box_height") == [
        (60.0, 27.0, 325.0, 304.0),
        (1.0, 2.0, 3.0, 4.0),
        (-5.5, 0.0, 20.0, 10.0),
        (0.0, 0.0, 2.0, 1.0),
        (10.0, 10.0, 9999.0, 5.0),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "image_class_labels.txt",
            "1 1\n2 100\n\n3\n4 101\n",
            r"image_class_labels.txt, line 4: wanted 'image_id class_id'",
        ),
        (
            "image_class_labels.txt",
            "1 1\n2 100\n4 101\n",
            r"image_class_labels.txt lacks 2 of the image_ids in use: 3, 5\.",
        ),
        ("image_class_labels.txt", LABELS + "5 1\n", r"line 7: the image_id 5 is there twice"),
        ("classes.txt", CLASSES.replace("101 ", "0101 "), r"classes.txt lacks 2 of the class_ids in use: 101, 101\."),
        (
            "train_test_split.txt",
            SPLIT.replace("4 0", "4 yes"),
            r"train_test_split.txt, line 4: wanted numbers, found 'yes'",
        ),
        ("train_test_split.txt", SPLIT.replace("4 0", "4 2"), r"train_test_split.txt has other marks than 0 and 1"),
        ("bounding_boxes.txt", BOXES.replace("2 1 2 3 4", "2 1 2 3"), r"line 2: wanted 'image_id box_x"),
        ("bounding_boxes.txt", BOXES.replace("2 1 2 3 4", "2 1 2 3 nan"), r"line 2: wanted numbers, found '1 2 3 nan'"),
        ("bounding_boxes.txt", BOXES.replace("2 1 2 3 4", "2 1 2 0 4"), r"the box is empty: 0 x 4 px"),
        ("images.txt", IMAGES + "6 1/none.jpg\n", r"image_class_labels.txt lacks 1 of the image_ids in use: 6\."),
        ("images.txt", IMAGES.replace("Wéiß_1.JPG", "Wéiß_1.jpg"), r"1 of 5 files listed in images.txt .*/Wéiß_1.jpg"),
        (
            "images.txt",
            IMAGES.replace(PATHS[3], PATHS[2]),
            r"images.txt, line 4: the path 101.White_Pelican/Wéiß_1.JPG is there twice",
        ),
        ("images.txt", IMAGES.replace(PATHS[3], "../README"), r"do not stay inside the data set: images/\.\./README"),
    ],
)
def test_faulty_lists_are_refused(birds: Layout, name: str, text: str, message: str) -> None:
    birds.write(name, text)
    with pytest.raises(LayoutError, match=message):
        birds.open("options: {split: official, boxes: true}")


def test_places_and_options(birds: Layout, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"unknown value of the option 'split': 'officia'. Did you mean 'official'"):
        birds.open("options: {split: officia}")
    with pytest.raises(CardError, match="'boxes' wants a value of type bool"):
        birds.open("options: {boxes: 1}")
    (birds.root / "images").rename(tmp_path / "outside")
    (birds.root / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        birds.open()
    (birds.root / "images.txt").unlink()
    with pytest.raises(MissingDataError, match=r"no images.txt in it"):
        birds.open()
    birds.fill("CUB_200_2011/images.txt")
    with pytest.raises(MissingDataError, match=r"the set is its folder .*set/CUB_200_2011"):
        birds.open()


def test_the_cards_say_which_split_they_mean(birds: Layout) -> None:
    disjoint, official = (
        reader_of(card).read(birds.root, card) for card in map(read_card, ("cub200", "cub200_official"))
    )
    assert disjoint["split"].tolist() == ["train", "train", "reference", "reference", "reference"]
    assert official["split"].tolist() == ["test", "train", "train", "test", "test"]
    assert "box_x" not in disjoint
