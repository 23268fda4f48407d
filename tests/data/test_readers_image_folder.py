from pathlib import Path

import pytest

from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

SPLITS = "options: {split_folders: {reference: ref, query: photos/q}, domains: {reference: packshot}}"


def open_folder(tmp_path: Path, files: list[str], extra: str = "") -> Catalog:
    root = tmp_path / "set"
    root.mkdir(exist_ok=True)
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    card = tmp_path / "mine.md"
    card.write_text(
        "---\ntitle: Mine\ntask: recognition\nreader: image_folder\nlicence: mine\nsource: here\n"
        f"layout: class folders\n{extra}\n---\n",
        encoding="utf-8",
    )
    return open_catalog(str(card), data_root=root)


def test_class_folders_without_splits(tmp_path: Path) -> None:
    catalog = open_folder(
        tmp_path, ["NA/b.JPG", "NA/a.png", "007/one.webp", "NA/notes.txt", "NA/.hidden", "NA/Thumbs.db"]
    )
    assert list(catalog.frame["path"]) == ["007/one.webp", "NA/a.png", "NA/b.JPG"]
    assert list(catalog.labels) == ["007", "NA", "NA"]
    assert set(catalog.frame["split"]) == {"train"}
    assert set(catalog.frame["domain"]) == {"real"}
    assert catalog.frame["camera"].isna().all()
    assert catalog.frame["group"].isna().all()


def test_the_only_split_can_be_named(tmp_path: Path) -> None:
    catalog = open_folder(tmp_path, ["a/1.jpg"], "options: {split: gallery}")
    assert list(catalog.frame["split"]) == ["gallery"]


def test_split_folders_domains_and_nested_folders(tmp_path: Path) -> None:
    files = ["ref/tin/p.jpg", "photos/q/tin/monday/x.jpg", "photos/q/tin/monday/late/y.jpg", "photos/q/box/z.jpg"]
    frame = open_folder(tmp_path, files, SPLITS).frame
    rows = list(frame[["path", "label", "split", "domain"]].itertuples(index=False, name=None))
    assert rows == [
        ("ref/tin/p.jpg", "tin", "reference", "packshot"),
        ("photos/q/box/z.jpg", "box", "query", "real"),
        ("photos/q/tin/monday/late/y.jpg", "tin", "query", "real"),
        ("photos/q/tin/monday/x.jpg", "tin", "query", "real"),
    ]


def test_a_split_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    catalog = open_folder(tmp_path, ["ref/tin/p.jpg"], SPLITS)
    assert catalog.missing_splits == {"mine": ["query"]}
    with pytest.raises(ValueError, match="'query' of mine is not among the files"):
        catalog.select(split="query")


@pytest.mark.parametrize(
    ("files", "extra", "message"),
    [
        ([], "", "is empty"),
        (["a/1.jpg", "loose.jpg"], "", "1 pictures .* in no class folder: loose.jpg"),
        (["a/1.jpg", "b/notes.txt"], "", "class folder .*b has no picture"),
        (["a/1.jpg", "a/2.heic"], "", "neither pictures .*a/2.heic"),
        (["ref/tin/p.jpg", "photos/q/notes.txt"], SPLITS, "q is empty"),
        (["a/b/1.jpg"], "options: {split_folders: {x: a, y: a}}", "more than once: a/b/1.jpg"),
        ([" /1.jpg"], "", "empty label"),
    ],
)
def test_layouts_that_are_refused(tmp_path: Path, files: list[str], extra: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        open_folder(tmp_path, files, extra)


def test_no_split_folder_at_all_is_a_missing_set(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="none of the folders ref, photos/q"):
        open_folder(tmp_path, ["other/a/1.jpg"], SPLITS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{splits_folders: {a: a}}", "Did you mean 'split_folders'"),
        ("{split_folders: [a]}", "not a mapping"),
        ("{split_folders: {a: ../b}}", "do not stay inside"),
        ("{split_folders: {a: /etc}}", "do not stay inside"),
        ("{split_folders: {a: a}, domains: {b: real}}", "'b'"),
        ("{split_folders: {a: a}, domains: {a: photo}}", "unknown domain 'photo'"),
        ("{domains: real}", "not a mapping"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(CardError, match=message):
        open_folder(tmp_path, ["a/1.jpg"], f"options: {options}")


def test_links_within_the_set_are_followed_and_others_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "a" / "1.jpg").touch()
    (root / "a" / "2.jpg").symlink_to(root / "a" / "1.jpg")
    assert list(open_folder(tmp_path, []).frame["path"]) == ["a/1.jpg", "a/2.jpg"]
    outside = tmp_path / "outside.jpg"
    outside.touch()
    (root / "a" / "3.jpg").symlink_to(outside)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_folder(tmp_path, [])
    outside.unlink()
    with pytest.raises(LayoutError, match="which is not there"):
        open_folder(tmp_path, [])


def test_a_linked_class_or_split_folder_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b" / "1.jpg").touch()
    root = tmp_path / "set"
    root.mkdir()
    (root / "ref").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_folder(tmp_path, [], SPLITS)
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_folder(tmp_path, [])


def test_a_link_back_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "a" / "deep").mkdir(parents=True)
    (root / "a" / "1.jpg").touch()
    (root / "a" / "deep" / "again").symlink_to(root / "a", target_is_directory=True)
    with pytest.raises(LayoutError, match="leads back to a folder above it"):
        open_folder(tmp_path, [])


def test_the_set_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "a" / "1.jpg").touch()
    (tmp_path / "set").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert open_folder(tmp_path, []).image_paths() == [tmp_path / "disk" / "a" / "1.jpg"]


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    (tmp_path / "set").mkdir()
    monkeypatch.setattr("workbench.data.readers.listing.os.scandir", refuse)
    with pytest.raises(LayoutError, match=r"Cannot read the folder .*set: Permission denied"):
        open_folder(tmp_path, [])


def test_a_file_name_in_an_old_encoding_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    try:
        (folder / "k\udce4se.jpg").touch()
    except OSError:
        pytest.skip("This file system takes no such name.")
    with pytest.raises(LayoutError, match="1 file names are not valid UTF-8"):
        open_folder(tmp_path, [])
