from pathlib import Path

import pytest

from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.checks import CountMismatch
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

FILES = [
    "image_train/0001_c001_00016450_0.jpg",
    "image_train/0001_c020_00016460_0.JPG",
    "image_train/Thumbs.db",
    "image_query/0002_c002_00030600_0.jpg",
    "image_test/0002_c002_00030600_0.jpg",
    "image_test/0002_c003_00084280_0.png",
    "image_test/.DS_Store",
]


def open_vehicles(root: Path, files: list[str], lists: dict[str, str] | None = None, extra: str = "") -> Catalog:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for name, text in (lists or {}).items():
        (root / name).write_bytes(text.encode("utf-8"))
    card = root.parent / "vehicles.md"
    card.write_text(
        "---\ntitle: Vehicles\ntask: reid\nreader: veri776\nlicence: none\nsource: here\n"
        f"layout: three folders\n{extra}\n---\n",
        encoding="utf-8",
    )
    return open_catalog(str(card), data_root=root)


def test_the_layout_of_the_authors(tmp_path: Path) -> None:
    lists = {
        "name_train.txt": " 0001_c001_00016450_0.jpg \r\n\r\n0001_c020_00016460_0.JPG\r\n",
        "name_query.txt": "0002_c002_00030600_0.jpg",
        "name_test.txt": "\ufeff0002_c003_00084280_0.png\n0002_c002_00030600_0.jpg\n",
        "gt_index.txt": "2 \n",
        "jk_index.txt": "1 \n",
        "train_label.xml": '<?xml version="1.0" encoding="gb2312"?>',
    }
    (tmp_path / "VeRi_c9").mkdir()
    frame = open_vehicles(tmp_path / "VeRi_c9", FILES, lists).frame
    assert list(frame[["path", "label", "split", "camera", "domain"]].itertuples(index=False, name=None)) == [
        ("image_train/0001_c001_00016450_0.jpg", "0001", "train", 1, "real"),
        ("image_train/0001_c020_00016460_0.JPG", "0001", "train", 20, "real"),
        ("image_query/0002_c002_00030600_0.jpg", "0002", "query", 2, "real"),
        ("image_test/0002_c002_00030600_0.jpg", "0002", "gallery", 2, "real"),
        ("image_test/0002_c003_00084280_0.png", "0002", "gallery", 3, "real"),
    ]
    assert frame["group"].isna().all()


def test_the_lists_may_be_absent(tmp_path: Path) -> None:
    assert len(open_vehicles(tmp_path / "VeRi", FILES)) == 5


def test_splits_that_are_not_there_are_reported(tmp_path: Path) -> None:
    names = "splits: {train: null, query: null, gallery: null}"
    lists = {"name_train.txt": "0001_c001_00016450_0.jpg"}  # a list without its folder is no reason to stop
    catalog = open_vehicles(tmp_path / "VeRi", FILES[3:], {}, names)
    assert catalog.missing_splits == {"vehicles": ["train"]}
    assert open_vehicles(tmp_path / "VeRi", FILES[3:], lists, names).missing_splits == {"vehicles": ["train"]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "0001_c001_00016450_0.jpg\n",
            r"1 of 2 files in .*image_train are not listed in name_train\.txt: .*c020_0001646",
        ),
        (
            "0001_c001_00016450_0.jpg\n0001_c020_00016460_0.JPG\n0003_c001_00016450_0.jpg\n",
            r"1 of 3 files listed in name_train\.txt are not in .*0003_c001",
        ),
        (
            "0001_c001_00016450_0.jpg\n\n0001_c020_00016460_0.JPG\n0001_c001_00016450_0.jpg\n",
            r"name_train\.txt, line 4: .*0001_c001_00016450_0\.jpg is listed before \(1 such",
        ),
        ("../image_test/0002_c002_00030600_0.jpg\n", "do not stay inside"),
        ("\n \r\n", r"2 of 2 files in .* are not listed"),
    ],
)
def test_a_list_that_does_not_name_its_folder_is_refused(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        open_vehicles(tmp_path / "VeRi", FILES, {"name_train.txt": names})


@pytest.mark.parametrize("name", ["vehicle.jpg", "0001_c001_00016450_0.heic", "0001_k001_1_0.jpg", "_c001_1_0.jpg"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="1 of 3 files") as caught:
        open_vehicles(tmp_path / "VeRi", [*FILES, f"image_test/{name}"])
    assert name in str(caught.value)


def test_links_do_not_leave_the_set(tmp_path: Path) -> None:
    open_vehicles(tmp_path / "VeRi", FILES)
    outside = tmp_path / "0009_c001_00000001_0.jpg"
    outside.touch()
    (tmp_path / "VeRi" / "image_test" / outside.name).symlink_to(outside)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_vehicles(tmp_path / "VeRi", FILES)


def test_this_reader_has_no_option(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="unknown option 'group'"):
        open_vehicles(tmp_path / "VeRi", FILES, {}, "options: {group: frame}")


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="none of the folders image_train, image_query, image_test"):
        open_vehicles(tmp_path / "empty", [])
    open_vehicles(tmp_path / "VeRi", FILES)
    with pytest.raises(MissingDataError, match=r"the set is its folder .*VeRi"):
        open_catalog("veri776", data_root=tmp_path)


def test_the_card_counts_what_the_readme_counts(tmp_path: Path) -> None:
    open_vehicles(tmp_path / "veri776", FILES)
    with pytest.raises(CountMismatch) as caught:
        open_catalog("veri776", data_root=tmp_path)
    for row in (
        ("train", "37778", "2", "576", "1"),
        ("query", "1678", "1", "200", "1"),
        ("gallery", "11579", "2", "200", "1"),
    ):
        assert " ".join(row) in " ".join(str(caught.value).split())
