from pathlib import Path

import pytest

from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.checks import CountMismatch
from workbench.data.locate import MissingDataError
from workbench.data.readers.grocery_store import read_descriptions
from workbench.data.readers.listing import LayoutError

HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)\n"
)
CLASSES = HEADER + "".join(
    f"{name},{number},{coarse},{coarse_id},/iconic/{coarse}/{name}/{name}_Iconic.jpg,"
    f"/iconic/{coarse}/{name}/{name}_Description.txt\n"
    for name, number, coarse, coarse_id in [
        ("Royal-Gala", 0, "Apple", 0),
        ("Pink-Lady", 1, "Apple", 0),
        ("NA", 2, "Kiwi", 1),
    ]
)


def make_set(root: Path, lists: dict[str, str], packshots: bool = True) -> Path:
    write(root / "classes.csv", CLASSES)
    for split, text in lists.items():
        write(root / f"{split}.txt", text)
        for line in text.splitlines():
            if line.count(",") == 2:
                write(root / line.split(",")[0].strip(), "")
    if packshots:
        for coarse, name in (("Apple", "Royal-Gala"), ("Apple", "Pink-Lady"), ("Kiwi", "NA")):
            write(root / "iconic" / coarse / name / f"{name}_Iconic.jpg", "")
            write(root / "iconic" / coarse / name / f"{name}_Description.txt", f" About {name}.\n")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))


def open_set(root: Path, extra: str = "") -> Catalog:
    card = root.parent / "shop.md"
    card.write_text(
        "---\ntitle: Shop\ntask: recognition\nreader: grocery_store\nlicence: none\nsource: here\n"
        f"layout: as the authors have it\n{extra}\n---\n",
        encoding="utf-8",
    )
    return open_catalog(str(card), data_root=root)


TRAIN = "train/g/1.jpg, 0, 0\r\n\r\ntrain/p, really/2.jpg,1,0  \r\ntrain/k/3.jpg, 2, 1"


def test_lists_packshots_and_coarse_classes(tmp_path: Path) -> None:
    frame = open_set(make_set(tmp_path / "set", {"train": TRAIN.replace("p, really", "p")})).frame
    rows = list(frame[["path", "label", "split", "group", "domain"]].itertuples(index=False, name=None))
    assert rows == [
        ("train/g/1.jpg", "Royal-Gala", "train", "Apple", "real"),
        ("train/p/2.jpg", "Pink-Lady", "train", "Apple", "real"),
        ("train/k/3.jpg", "NA", "train", "Kiwi", "real"),
        ("iconic/Apple/Royal-Gala/Royal-Gala_Iconic.jpg", "Royal-Gala", "reference", "Apple", "packshot"),
        ("iconic/Apple/Pink-Lady/Pink-Lady_Iconic.jpg", "Pink-Lady", "reference", "Apple", "packshot"),
        ("iconic/Kiwi/NA/NA_Iconic.jpg", "NA", "reference", "Kiwi", "packshot"),
    ]
    assert frame["camera"].isna().all()


def test_a_path_may_hold_a_comma(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {})
    write(root / "train.txt", "train/p, really/2.jpg, 1, 0")
    write(root / "train" / "p, really" / "2.jpg", "")
    assert open_set(root).frame["path"].iloc[0] == "train/p, really/2.jpg"


def test_the_splits_that_are_not_there_are_reported(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"val": "val/a/1.jpg, 0, 0\n"}, packshots=False)
    names = "splits: {train: null, val: null, test: null, reference: null}"
    assert open_set(root, names).missing_splits == {"shop": ["train", "test", "reference"]}
    full = make_set(tmp_path / "full", {split: f"{split}/a/1.jpg, 0, 0\n" for split in ("train", "val", "test")})
    assert open_set(full, names).missing_splits == {"shop": []}


def test_counts_that_differ_are_shown_side_by_side(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": "train/a/1.jpg, 0, 0\ntrain/a/2.jpg, 0, 0\n"})
    card = "splits: {train: {images: 3, labels: 1}, reference: {images: 3}}"
    with pytest.raises(CountMismatch) as caught:
        open_set(root, card)
    table = [line.split() for line in str(caught.value).splitlines()]
    assert ["train", "3", "2", "1", "1"] in table
    assert ["reference", "3", "3", "any", "3"] in table
    assert "Complete the download" in str(caught.value)
    assert "copy the card" in str(caught.value)
    with pytest.raises(CountMismatch):
        open_set(root, "splits: {train: {images: 2, labels: 2}}")
    assert len(open_set(root, "splits: {train: {images: 2, labels: 1}}")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train/a/1.jpg, 0, 0\n\ntrain/a/2.jpg, 0\n", r"line 3: wanted .* found 'train/a/2.jpg, 0'"),
        ("train/a/1.jpg, zero, 0\n", "line 1: wanted"),
        ("train/a/1.jpg, 0, 0\ntrain/a/2.jpg, 9, 0\n", "line 2: the class id 9 is not in"),
        ("train/a/1.jpg, 0, 0\ntrain/a/1.jpg, 0, 0\n", "more than once: train/a/1.jpg"),
        ("../../a.jpg, 0, 0\n", "do not stay inside"),
        ("\n\n", "holds no image"),
    ],
)
def test_faulty_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = make_set(tmp_path / "set", {"train": text}, packshots=False)
    with pytest.raises(LayoutError, match=message):
        open_set(root)


def test_listed_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    text = "".join(f"train/a/{number}.jpg, 0, 0\n" for number in range(9))
    root = make_set(tmp_path / "set", {"train": text})
    for number in range(1, 9):
        (root / "train" / "a" / f"{number}.jpg").unlink()
    with pytest.raises(LayoutError, match=r"8 of 9 files listed in train.txt .*train/a/1.jpg.* and 3 more"):
        open_set(root)


def test_a_missing_packshot_is_an_error_when_others_are_there(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": "train/a/1.jpg, 0, 0\n"})
    (root / "iconic" / "Kiwi" / "NA" / "NA_Iconic.jpg").unlink()
    with pytest.raises(LayoutError, match=r"1 of 3 files listed in classes.csv"):
        open_set(root)


def test_a_differing_coarse_id_is_told(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {"train": "train/a/1.jpg, 0, 0\ntrain/a/2.jpg, 0, 1\n"})
    with pytest.warns(UserWarning, match="line 2: the coarse id differs"):
        assert list(open_set(root).select(split="train").frame["group"]) == ["Apple", "Apple"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a table"),
        (HEADER, "no rows"),
        ("a,b\n1,2\n", "lacks the columns"),
        (CLASSES + CLASSES.splitlines()[1] + "\n", "repeats the label Royal-Gala"),
        (CLASSES.replace("/iconic/Kiwi/", "/../Kiwi/"), "do not stay inside"),
    ],
)
def test_a_faulty_class_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    root = make_set(tmp_path / "set", {"train": "train/a/1.jpg, 0, 0\n"})
    write(root / "classes.csv", text)
    with pytest.raises(LayoutError, match=message):
        open_set(root)


def test_no_list_no_set_and_options(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {})
    with pytest.raises(LayoutError, match="none of the lists"):
        open_set(root)
    with pytest.raises(CardError, match="Allowed: none"):
        open_set(root, "options: {a: 1}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"no classes.csv in it"):
        open_set(tmp_path / "empty")
    make_set(tmp_path / "repository" / "dataset", {})
    with pytest.raises(MissingDataError, match=r"the set is its folder .*repository/dataset"):
        open_set(tmp_path / "repository")


def test_descriptions_with_the_faults_they_are_known_for(tmp_path: Path) -> None:
    root = make_set(tmp_path / "set", {})
    gala, pink, kiwi = (
        root / "iconic" / "Apple" / "Royal-Gala",
        root / "iconic" / "Apple" / "Pink-Lady",
        root / "iconic" / "Kiwi" / "NA",
    )
    assert read_descriptions(root) == {
        "Royal-Gala": "About Royal-Gala.",
        "Pink-Lady": "About Pink-Lady.",
        "NA": "About NA.",
    }
    (gala / "Royal-Gala_Description.txt").rename(gala / "royal-gala-description.txt")
    write(gala / "Royal-Gala_Description_Swedish.txt", "Om Royal-Gala.")
    (pink / "Pink-Lady_Description.txt").write_text(" \n", encoding="utf-8")
    (kiwi / "NA_Description.txt").unlink()
    assert read_descriptions(root) == {"Royal-Gala": "About Royal-Gala."}
    (kiwi / "NA_Description.txt").write_bytes(b"gr\xf6n")
    with pytest.raises(LayoutError, match="not UTF-8"):
        read_descriptions(root)


@pytest.mark.photographs
def test_real_set(grocery_store_root: Path) -> None:
    catalog = open_catalog("grocery_store", grocery_store_root)
    found = {split: len(catalog.select(split=split)) for split in catalog.frame["split"].unique()}
    published = {"train": 2640, "val": 296, "test": 2485, "reference": 81}
    assert found == {split: count for split, count in published.items() if split in found}
    assert catalog.missing_splits["grocery_store"] == [split for split in published if split not in found]
    assert catalog.frame["group"].nunique() == 43
    assert len(set(catalog.select(split="val").labels)) == 60
    packshots = catalog.select(domain="packshot")
    assert len(set(packshots.labels)) == len(packshots) == 81
    assert all(path.is_file() for path in catalog.image_paths())
    # The folder above the file is the class: an independent reading of the label.
    assert [path.parent.name for path in catalog.image_paths()] == list(catalog.labels)
    descriptions = read_descriptions(catalog.roots["grocery_store"])
    assert set(descriptions) <= set(catalog.labels)
    assert descriptions["Cabbage"].startswith("White cabbage")
