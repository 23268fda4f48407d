from pathlib import Path

import pytest

from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.file_names import IMAGE_SUFFIXES
from workbench.data.readers.listing import LayoutError


def open_market(tmp_path: Path, files: list[str], extra: str = "") -> Catalog:
    root = tmp_path / "people_c9s9"
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    card = tmp_path / "people.md"
    card.write_text(
        "---\ntitle: People\ntask: reid\nreader: market1501\nlicence: none\nsource: here\n"
        f"layout: three folders\n{extra}\n---\n",
        encoding="utf-8",
    )
    return open_catalog(str(card), data_root=root)


def test_names_are_parsed_with_sign_and_by_name_alone(tmp_path: Path) -> None:
    files = [
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0002_c135s2_000551_00.jpeg",
        "bounding_box_train/Thumbs.db",
        "bounding_box_train/.DS_Store",
        "query/0001_c2s1_001976_00.PNG",
        "query/12_c03_00016450_0.JPG",
        "bounding_box_test/-1_c1s1_000401_03.jpg",
        "bounding_box_test/0000_c3s1_000151_01.jpg",
        "bounding_box_test/0001_c6s1_001051_00_extra_c9_words.v2.jpg",
        "bounding_box_test/1501_c4.jpg",
        "gt_query/0001_c1s1_001051_00_good.mat",
    ]
    frame = open_market(tmp_path, files).frame
    rows = list(frame[["split", "label", "camera"]].itertuples(index=False, name=None))
    assert rows == [
        ("train", "0002", 135),
        ("train", "0002", 1),
        ("query", "0001", 2),
        ("query", "12", 3),
        ("gallery", "-1", 1),
        ("gallery", "0", 3),
        ("gallery", "0001", 6),
        ("gallery", "1501", 4),
    ]
    assert frame["group"].isna().all()
    assert set(frame["domain"]) == {"real"}
    assert str(frame["camera"].dtype) == "Int64"
    assert frame["path"].iloc[2] == "query/0001_c2s1_001976_00.PNG"


def test_crops_of_the_ai_city_challenge(tmp_path: Path) -> None:
    files = [
        "bounding_box_train/0907_c135s1_01_00.png",
        "bounding_box_train/0752_c10s1_1024_00.PNG",
        "query/0907_c7s1_02_00.png",
        "bounding_box_test/0907_c128s1_03_00.png",
    ]
    frame = open_market(tmp_path, files, "options: {domain: synthetic}").frame
    assert list(frame[["path", "label", "split", "camera", "domain"]].itertuples(index=False, name=None)) == [
        ("bounding_box_train/0752_c10s1_1024_00.PNG", "0752", "train", 10, "synthetic"),
        ("bounding_box_train/0907_c135s1_01_00.png", "0907", "train", 135, "synthetic"),
        ("query/0907_c7s1_02_00.png", "0907", "query", 7, "synthetic"),
        ("bounding_box_test/0907_c128s1_03_00.png", "0907", "gallery", 128, "synthetic"),
    ]


def test_the_naming_without_sequence_of_dukemtmc(tmp_path: Path) -> None:
    files = [
        "bounding_box_train/0001_c2_f0046182.jpg",
        "query/0005_c8_f0051341.jpg",
        "bounding_box_test/7140_c5_f0.jpg",
    ]
    frame = open_market(tmp_path, files).frame
    assert list(frame[["label", "split", "camera"]].itertuples(index=False, name=None)) == [
        ("0001", "train", 2),
        ("0005", "query", 8),
        ("7140", "gallery", 5),
    ]


def test_other_alphabets_and_long_names_behind_the_camera(tmp_path: Path) -> None:
    files = ["query/0001_c1s1_行人_00.jpg", "query/0002_c1s1_000001_" + "é" * 110 + ".jpg"]
    catalog = open_market(tmp_path, files, "options: {group: frame}")
    assert catalog.frame["path"].tolist() == files
    assert catalog.frame["group"].tolist() == ["行人", "000001"]


def test_links_do_not_leave_the_set(tmp_path: Path) -> None:
    files = ["query/0001_c1s1_1_0.jpg", "elsewhere/0002_c1s1_1_0.jpg"]
    outside = tmp_path / "0003_c1s1_1_0.jpg"
    outside.touch()
    catalog = open_market(tmp_path, files)
    root = catalog.roots["people"]
    (root / "bounding_box_train").symlink_to(root / "elsewhere")
    assert open_market(tmp_path, []).frame["label"].tolist() == ["0002", "0001"]
    (root / "query" / outside.name).symlink_to(outside)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_market(tmp_path, [])
    (root / "query" / outside.name).unlink()
    (root / "elsewhere").rename(tmp_path / "elsewhere")
    (root / "bounding_box_train").unlink()
    (root / "bounding_box_train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="bounding_box_train leads out of the data set"):
        open_market(tmp_path, [])


@pytest.mark.parametrize(("group", "expected"), [("frame", ["000297", "f46985"]), ("sequence", ["1", None])])
def test_group_is_the_part_that_the_card_names(tmp_path: Path, group: str, expected: list[str | None]) -> None:
    files = ["query/0063_c2s1_000297_00.jpg", "query/0064_c2_f46985.jpg"]
    frame = open_market(tmp_path, files, f"options: {{group: {group}}}").frame
    assert [None if frame["group"].isna()[row] else frame["group"][row] for row in range(2)] == expected


def test_pictures_of_every_kind_that_is_read_are_taken(tmp_path: Path) -> None:
    names = [f"query/000{number}_c1s1_1_0{suffix.upper()}" for number, suffix in enumerate(IMAGE_SUFFIXES, 1)]
    catalog = open_market(tmp_path, names)
    assert sorted(catalog.frame["path"]) == sorted(names)
    assert len(set(catalog.labels)) == len(IMAGE_SUFFIXES)


def test_splits_that_are_not_there_are_reported(tmp_path: Path) -> None:
    catalog = open_market(tmp_path, ["query/0001_c1s1_1_0.jpg"], "splits: {train: null, query: null, gallery: null}")
    assert catalog.missing_splits == {"people": ["train", "gallery"]}


@pytest.mark.parametrize(
    "name",
    [
        "person.jpg",
        "-2_c1s1_000401_03.jpg",
        "0001_s1c1_1_0.jpg",
        "0001_c1s1_1_0.heic",
        "a0001_c1s1_1_0.jpg",
        "x.txt",
        "0001_c1234567890_1.jpg",
    ],
)
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="1 of 2 files") as caught:
        open_market(tmp_path, ["query/0001_c1s1_1_0.jpg", f"query/{name}"])
    assert name in str(caught.value)


def test_empty_and_nested_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="query is empty"):
        open_market(tmp_path, ["query/.keep"])
    with pytest.raises(LayoutError, match="holds folders: more"):
        open_market(tmp_path, ["query/0001_c1s1_1_0.jpg", "query/more/0001_c1s1_1_0.jpg"])


@pytest.mark.parametrize("options", ["{groups: frame}", "{group: side}", "{domain: drawn}"])
def test_unknown_options_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(CardError, match="unknown"):
        open_market(tmp_path, ["query/0001_c1s1_1_0.jpg"], f"options: {options}")


@pytest.mark.photographs
def test_nyala(nyala_root: Path) -> None:
    catalog = open_catalog("nyala_market1501", nyala_root)
    assert catalog.missing_splits == {"nyala_market1501": []}
    assert [len(catalog.select(split=split)) for split in ("train", "query", "gallery")] == [768, 102, 335]
    # An encounter belongs to one individual and to one camera number.
    per_encounter = catalog.frame.groupby("group")[["label", "camera"]].nunique()
    assert (per_encounter == 1).all(axis=None)
    train = set(catalog.select(split="train").labels)
    assert not train & set(catalog.select(split="query").labels)
    assert set(catalog.select(split="query").labels) == set(catalog.select(split="gallery").labels)
    assert all(path.is_file() for path in catalog.image_paths())
