from pathlib import Path

import pytest

from workbench.data.card import CardError, read_card
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.checks import CountMismatch
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

LISTS = {
    "list_train.txt": "0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_023_05_0303morning_0032_0_ex.jpg 1\n",
    "list_val.txt": "0000/0000_045_12_0303morning_0006_2.jpg 0\n",
    "list_query.txt": "0000/0000_018_04_0303noon_0026_0.jpg 0\n",
    "list_gallery.txt": (
        "0000/0000_000_07_0302morning_0031_0.jpg 0\n0001/0001_022_05_0303morning_0032_0.jpg 1\n"
        "3059/3059_001_15_0114afternoon_1439_0.jpg 3059\n"
    ),
}
V1 = {"train": "train", "test": "test"}
V2 = {"train": "mask_train_v2", "test": "mask_test_v2"}


def make_set(root: Path, lists: dict[str, str], *versions: dict[str, str]) -> Path:
    """The lists, and an empty file for each line with two fields, in the folder of its side."""
    for name, text in lists.items():
        write(root / name, text)
        side = "train" if name in ("list_train.txt", "list_val.txt") else "test"
        for folders in versions:
            for line in text.splitlines():
                if len(line.split()) == 2:
                    write(root / folders[side] / line.split()[0], "")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))


def open_set(root: Path, extra: str = "") -> Catalog:
    card = root.parent / "streets.md"
    card.write_text(
        "---\ntitle: Streets\ntask: reid\nreader: msmt17\nlicence: none\nsource: here\n"
        f"layout: lists and two folders\n{extra}\n---\n",
        encoding="utf-8",
    )
    return open_catalog(str(card), data_root=root)


@pytest.mark.parametrize("folders", [V1, V2])
def test_both_versions_are_read_by_their_lists(tmp_path: Path, folders: dict[str, str]) -> None:
    root = make_set(tmp_path / "MSMT17", LISTS, folders)
    write(root / folders["train"] / "0000" / "0000_099_02_0303noon_0001_0.jpg", "")  # in no list
    frame = open_set(root).frame
    train, test = folders["train"], folders["test"]
    assert list(frame[["path", "label", "split", "camera"]].itertuples(index=False, name=None)) == [
        (f"{train}/0000/0000_000_01_0303morning_0008_0.jpg", "train-0000", "train", 1),
        (f"{train}/0001/0001_023_05_0303morning_0032_0_ex.jpg", "train-0001", "train", 5),
        (f"{train}/0000/0000_045_12_0303morning_0006_2.jpg", "train-0000", "val", 12),
        (f"{test}/0000/0000_018_04_0303noon_0026_0.jpg", "test-0000", "query", 4),
        (f"{test}/0000/0000_000_07_0302morning_0031_0.jpg", "test-0000", "gallery", 7),
        (f"{test}/0001/0001_022_05_0303morning_0032_0.jpg", "test-0001", "gallery", 5),
        (f"{test}/3059/3059_001_15_0114afternoon_1439_0.jpg", "test-3059", "gallery", 15),
    ]
    assert str(frame["camera"].dtype) == "Int64"
    assert frame["group"].isna().all()
    assert set(frame["domain"]) == {"real"}


def test_equal_numbers_in_training_and_testing_are_different_people(tmp_path: Path) -> None:
    catalog = open_set(make_set(tmp_path / "MSMT17", LISTS, V1))
    learnt = set(catalog.select(split=["train", "val"]).labels)
    assert learnt == {"train-0000", "train-0001"}
    assert set(catalog.select(split=["query", "gallery"]).labels) == {"test-0000", "test-0001", "test-3059"}
    # The list's 0 is a person: label "0" would be a distractor.
    assert "0" not in set(catalog.labels)


def test_the_validation_pictures_may_belong_to_training(tmp_path: Path) -> None:
    catalog = open_set(make_set(tmp_path / "MSMT17", LISTS, V1), "options: {val: train}")
    assert catalog.frame["split"].tolist() == ["train"] * 3 + ["query"] + ["gallery"] * 3
    assert catalog.labels[:3].tolist() == ["train-0000", "train-0001", "train-0000"]


def test_the_name_alone_tells_the_camera(tmp_path: Path) -> None:
    root = tmp_path / "a_b_77_c" / "MSMT17"
    lists = {
        "list_query.txt": "0_1_88_x/0000_000_01_0303morning_0008_0.JPG 0",
        "list_gallery.txt": "0000_000_135_0303morning_0008_0.png 0",
    }
    catalog = open_set(make_set(root, lists, V1))
    assert list(catalog.frame[["path", "camera"]].itertuples(index=False, name=None)) == [
        ("test/0_1_88_x/0000_000_01_0303morning_0008_0.JPG", 1),
        ("test/0000_000_135_0303morning_0008_0.png", 135),
    ]


def test_windows_line_ends_blank_lines_and_other_alphabets(tmp_path: Path) -> None:
    long_name = "0002_001_03_" + "é" * 110 + ".jpg"
    text = (
        "\ufeff\r\n  0000/0000_000_01_0303morning_0008_0.jpg\t0  \r\n\r\n"
        f"行人/0001_000_02_午前_0008_0.jpg 0001\r\n0002/{long_name} 12345"
    )
    lists = {"list_train.txt": text}
    root = make_set(tmp_path / "MSMT17", {"list_train.txt": text.replace("\ufeff", "")}, V2)
    write(root / "list_train.txt", text)
    catalog = open_set(make_set(root, {}, V2))
    assert lists["list_train.txt"].count("\r\n") == 4
    assert list(catalog.frame[["path", "label"]].itertuples(index=False, name=None)) == [
        ("mask_train_v2/0000/0000_000_01_0303morning_0008_0.jpg", "train-0000"),
        ("mask_train_v2/行人/0001_000_02_午前_0008_0.jpg", "train-0001"),
        (f"mask_train_v2/0002/{long_name}", "train-12345"),
    ]


def test_splits_without_their_list_are_reported(tmp_path: Path) -> None:
    some = {name: LISTS[name] for name in ("list_query.txt", "list_gallery.txt")}
    catalog = open_set(make_set(tmp_path / "MSMT17", some, V1), "splits: {train: null, query: null, gallery: null}")
    assert catalog.missing_splits == {"streets": ["train"]}


@pytest.mark.parametrize(
    "line",
    [
        "0000/0000_000_01_0303morning_0008_0.jpg",
        "0000/0000_000_01_0303morning_0008_0.jpg -1",
        "0000/0000_000_01_0303morning_0008_0.jpg x",
        "0000/0000_000.jpg 0",
        "0000/0000_000_c1_0303morning_0008_0.jpg 0",
        "0000/0000_000_1234567890_0303morning_0008_0.jpg 0",
        "0000/0000_000_01_0303morning_0008_0.txt 0",
        "0",
    ],
)
def test_a_malformed_line_is_named_with_its_number(tmp_path: Path, line: str) -> None:
    lists = {**LISTS, "list_query.txt": f"\n{LISTS['list_query.txt']}{line}\n"}
    with pytest.raises(LayoutError, match=r"list_query\.txt, line 3: wanted .* found") as caught:
        open_set(make_set(tmp_path / "MSMT17", lists, V1))
    assert repr(line) in str(caught.value)


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path) -> None:
    root = make_set(tmp_path / "MSMT17", LISTS, V1)
    (root / "test/0001/0001_022_05_0303morning_0032_0.jpg").unlink()
    with pytest.raises(LayoutError, match=r"1 of 3 files listed in list_gallery\.txt .*0001_022_05_0303morning"):
        open_set(root)


def test_paths_and_links_do_not_leave_the_set(tmp_path: Path) -> None:
    upward = {"list_query.txt": "../../0000_000_01_0303morning_0008_0.jpg 0"}
    with pytest.raises(LayoutError, match="do not stay inside"):
        open_set(make_set(tmp_path / "a" / "MSMT17", upward, V1))
    root = make_set(tmp_path / "b" / "MSMT17", LISTS, V1)
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_set(root)
    (root / "train").unlink()
    (tmp_path / "elsewhere").rename(root / "train_elsewhere")
    (root / "train").symlink_to(root / "train_elsewhere")
    assert len(open_set(root)) == 7


def test_one_picture_is_listed_once(tmp_path: Path) -> None:
    twice = {**LISTS, "list_query.txt": LISTS["list_query.txt"] * 2}
    with pytest.raises(LayoutError, match=r"more than once: test/0000/0000_018_04_0303noon_0026_0\.jpg"):
        open_set(make_set(tmp_path / "a" / "MSMT17", twice, V1))
    roundabout = {**LISTS, "list_query.txt": f"{LISTS['list_query.txt']}./{LISTS['list_query.txt']}"}
    with pytest.raises(LayoutError, match="parts that say nothing"):
        open_set(make_set(tmp_path / "c" / "MSMT17", roundabout, V1))
    shared = {**LISTS, "list_val.txt": LISTS["list_train.txt"]}
    with pytest.raises(LayoutError, match="2 images of 'streets' are there more than once"):
        open_set(make_set(tmp_path / "b" / "MSMT17", shared, V1))


def test_an_empty_list_and_an_old_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"list_val\.txt is empty"):
        open_set(make_set(tmp_path / "a" / "MSMT17", {**LISTS, "list_val.txt": " \r\n\r\n"}, V1))
    root = make_set(tmp_path / "b" / "MSMT17", LISTS, V1)
    (root / "list_val.txt").write_bytes("été.jpg 0".encode("latin-1"))
    with pytest.raises(LayoutError, match=r"list_val\.txt is not UTF-8"):
        open_set(root)


def test_both_versions_at_once_want_a_choice(tmp_path: Path) -> None:
    root = make_set(tmp_path / "MSMT17", LISTS, V1, V2)
    with pytest.raises(LayoutError, match="both versions"):
        open_set(root)
    assert open_set(root, "options: {version: V2}").frame["path"][0].startswith("mask_train_v2/")
    assert open_set(root, "options: {version: V1}").frame["path"][0].startswith("train/")


def test_the_version_that_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"asks for version V2; .* holds V1.*mask_train_v2 and mask_test_v2"):
        open_set(make_set(tmp_path / "MSMT17", LISTS, V1), "options: {version: V2}")


@pytest.mark.parametrize("options", ["{version: V3}", "{val: both}", "{group: time}"])
def test_unknown_options_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(CardError, match="unknown"):
        open_set(make_set(tmp_path / "MSMT17", LISTS, V1), f"options: {options}")


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    root = make_set(tmp_path / "MSMT17_V1", LISTS)
    with pytest.raises(MissingDataError, match="neither the folders train and test"):
        open_set(root)
    with pytest.raises(MissingDataError, match=r"the set is its folder .*MSMT17_V1"):
        open_catalog("msmt17", data_root=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"none of the lists list_train\.txt"):
        open_set(tmp_path / "empty")


def test_the_card_counts_training_and_validation_together(tmp_path: Path) -> None:
    card = read_card("msmt17")
    counts = {split: (count.images, count.labels) for split, count in card.splits.items()}
    assert counts == {"train": (32621, 1041), "query": (11659, 3060), "gallery": (82161, 3060)}
    # The boxes and the people of the paper.
    assert sum(images for images, _ in counts.values() if images) == 126441
    assert 1041 + 3060 == 4101
    make_set(tmp_path / "msmt17", LISTS, V1)
    with pytest.raises(CountMismatch, match=r"train +32621 +3 +1041 +2"):
        open_catalog("msmt17", data_root=tmp_path)
