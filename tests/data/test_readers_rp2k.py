from pathlib import Path

import pytest
from layouts import LONG_NAME, Layout, rows

from workbench.data.card import CardError
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

OTHERS = "options: {others: [others]}"


@pytest.fixture
def rp2k(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "rp2k")
    layout.fill(
        "all/train/007/1.jpg",
        "all/train/7/1.JPG",
        f"all/train/康师傅绿茶/{LONG_NAME}",
        "all/train/Others/9.jpg",
        "all/test/007/2.jpg",
        "all/test/Others/10.jpg",
        "all/test/Others/11.jpg",
    )
    return layout


def test_others_are_kept_apart(rp2k: Layout) -> None:
    catalog = rp2k.open(OTHERS)
    assert rows(catalog.frame, "path", "label", "split", "domain") == [
        ("all/train/007/1.jpg", "007", "train", "real"),
        ("all/train/7/1.JPG", "7", "train", "real"),
        ("all/train/Others/9.jpg", "Others", "others_train", "real"),
        (f"all/train/康师傅绿茶/{LONG_NAME}", "康师傅绿茶", "train", "real"),
        ("all/test/007/2.jpg", "007", "test", "real"),
        ("all/test/Others/10.jpg", "Others", "others_test", "real"),
        ("all/test/Others/11.jpg", "Others", "others_test", "real"),
    ]
    assert catalog.notes == ()


def test_another_name_of_the_others_is_noted(rp2k: Layout) -> None:
    catalog = rp2k.open("options: {others: [其他, background]}")
    assert catalog.frame["split"].tolist() == ["train"] * 4 + ["test"] * 3
    (note,) = catalog.notes
    assert note.startswith(f"sample: none of the folders 其他, background is in {rp2k.root / 'all'};")
    assert rp2k.open("options: {others: []}").notes == ()
    assert rp2k.open().notes == ()


def test_a_class_without_a_picture_and_a_link_out(rp2k: Layout, tmp_path: Path) -> None:
    empty = rp2k.root / "all/train/empty"
    empty.mkdir()
    with pytest.raises(LayoutError, match=r"class folder .*all/train/empty has no picture"):
        rp2k.open(OTHERS)
    empty.rmdir()
    empty.symlink_to(tmp_path)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        rp2k.open(OTHERS)


def test_one_split_alone_none_and_options(rp2k: Layout, tmp_path: Path) -> None:
    (rp2k.root / "all/train").rename(tmp_path / "away")
    names = "splits: {train: null, others_train: null, test: {images: 1, labels: 1}, others_test: {images: 2}}"
    assert rp2k.open(f"{OTHERS}\n{names}").missing_splits == {"sample": ["train", "others_train"]}
    (rp2k.root / "all/test").rename(tmp_path / "away too")
    with pytest.raises(MissingDataError, match="none of the folders all/train, all/test"):
        rp2k.open(OTHERS)


def test_options_that_cannot_be(rp2k: Layout) -> None:
    with pytest.raises(CardError, match="Did you mean 'others'"):
        rp2k.open("options: {other: [others]}")
    with pytest.raises(CardError, match="'others' wants a value of type list"):
        rp2k.open("options: {others: others}")
