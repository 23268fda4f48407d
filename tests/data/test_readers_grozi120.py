from pathlib import Path

import pytest
from layouts import Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError


@pytest.fixture
def grozi(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "grozi120")
    layout.fill(
        "inVitro/1/info.txt",
        "inVitro/1/web/JPEG/web1.jpg",
        "inVitro/1/web/PNG/web1.png",
        "inVitro/1/web/masks/mask1.png",
        "inVitro/10/web/JPEG/web10.JPG",
        "inVitro/10/web/JPEG/web9.jpg",
        "inVitro/10/web/JPEG/Thumbs.db",
        "inVitro/2/web/JPEG/web1.jpeg",
        "inSitu/2/coordinates.txt",
        "inSitu/2/video/video2.png",
        "inSitu/2/video/video10.PNG",
        "inSitu/10/video/video1.png",
        "inSitu/1/video/video1.png",
        "Index/UPC_index.txt",
        "Video/Shelf_1.avi",
    )
    return layout


def test_products_and_pictures_come_in_the_order_of_their_numbers(grozi: Layout) -> None:
    frame = grozi.open().frame
    assert rows(frame, "path", "label", "split", "domain", "group", "camera") == [
        ("inVitro/1/web/JPEG/web1.jpg", "1", "reference", "packshot", None, None),
        ("inVitro/2/web/JPEG/web1.jpeg", "2", "reference", "packshot", None, None),
        ("inVitro/10/web/JPEG/web9.jpg", "10", "reference", "packshot", None, None),
        ("inVitro/10/web/JPEG/web10.JPG", "10", "reference", "packshot", None, None),
        ("inSitu/1/video/video1.png", "1", "query", "real", None, None),
        ("inSitu/2/video/video2.png", "2", "query", "real", None, None),
        ("inSitu/2/video/video10.PNG", "2", "query", "real", None, None),
        ("inSitu/10/video/video1.png", "10", "query", "real", None, None),
    ]


def test_a_number_with_leading_zeros_stays_another_label(grozi: Layout) -> None:
    grozi.fill("inSitu/002/video/video1.png")
    assert grozi.open().frame["label"].tolist()[-5:] == ["1", "002", "2", "2", "10"]


def test_one_half_of_the_set_can_be_read(grozi: Layout, tmp_path: Path) -> None:
    (grozi.root / "inVitro").rename(tmp_path / "away")
    catalog = grozi.open("splits: {reference: null, query: {images: 4, labels: 3}}")
    assert catalog.missing_splits == {"sample": ["reference"]}
    (grozi.root / "inSitu").rename(tmp_path / "away too")
    with pytest.raises(MissingDataError, match="neither a folder inVitro nor a folder inSitu"):
        grozi.open()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("inVitro/masks/web/JPEG/web1.jpg", r"inVitro holds masks\. Wanted: the folders 1 to 120"),
        ("inVitro/1/web/JPEG/mask1.jpg", r"JPEG holds mask1\.jpg\. Wanted: pictures named like web"),
        ("inVitro/1/web/JPEG/web1.jpg.part", r"JPEG holds web1\.jpg\.part"),
        ("inSitu/1/video/videoü.png", r"video holds videoü\.png"),
        ("inVitro/3/info.txt", r"inVitro/3/web/JPEG is not there: a product without pictures"),
        ("inVitro/3/web/JPEG/Thumbs.db", r"JPEG holds no picture"),
    ],
)
def test_what_does_not_belong_there_is_named(grozi: Layout, path: str, message: str) -> None:
    grozi.fill(path)
    with pytest.raises(LayoutError, match=message):
        grozi.open()


@pytest.mark.parametrize("place", ["inVitro/1/web/JPEG/web2.jpg", "inVitro/3", "inSitu/1/video", "inSitu"])
def test_links_out_of_the_set_are_refused(grozi: Layout, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    if (grozi.root / place).exists():
        (grozi.root / place).rename(outside)
    elif place.endswith(".jpg"):
        outside.write_bytes(b"")
    else:
        outside.mkdir()
    (grozi.root / place).symlink_to(outside)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        grozi.open()


def test_there_is_no_option(grozi: Layout) -> None:
    with pytest.raises(CardError, match=r"unknown option 'boxes'.*Allowed: none"):
        grozi.open("options: {boxes: true}")
