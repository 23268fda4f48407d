"""A set that is opened twice: what is kept is what was read, and whatever changes is seen."""

import ast
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from workbench.data import catalog_cache, tables
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.readers import image_folder, listing

CARD = """---
title: Kept
task: recognition
reader: {reader}
licence: none
source: the test
layout: any
options: {options}
splits: {{train: {{images: {images}}}}}
---
"""
READERS = [*sorted(Path(listing.__file__).parent.glob("*.py")), Path(tables.__file__)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalog_cache, "MIN_ROWS", 3)
    (tmp_path / "kept").mkdir()
    for name in ("a/1.jpg", "a/2.jpg", "b/007.jpg", "b/ä.png"):
        (tmp_path / "kept" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "kept" / name).touch()
    _settle(tmp_path / "kept")
    _card(tmp_path, "image_folder", "{split: train}")
    return tmp_path


def _card(place: Path, reader: str, options: str, images: str = "null") -> None:
    (place / "kept.md").write_text(CARD.format(reader=reader, options=options, images=images))


def _settle(folder: Path) -> None:
    """As if nothing had changed for an hour."""
    for path in (folder, *folder.rglob("*")):
        before = path.stat().st_mtime - 3600
        os.utime(path, (before, before))


def _open(place: Path) -> Catalog:
    return open_catalog(str(place / "kept.md"), place / "kept", cache=place / "cache")


@pytest.fixture
def num_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    reads: list[Path] = []
    read = image_folder.read

    def counted(root: Path, card: object) -> pd.DataFrame:
        reads.append(root)
        return read(root, card)  # type: ignore[arg-type]

    monkeypatch.setattr(image_folder, "read", counted)
    return lambda: len(reads)


def test_the_second_opening_reads_nothing_and_gives_the_same(place: Path, num_reads: Callable[[], int]) -> None:
    first, second = _open(place), _open(place)
    assert num_reads() == 1
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert first.fingerprint == second.fingerprint
    assert list(second.frame["path"]) == ["a/1.jpg", "a/2.jpg", "b/007.jpg", "b/ä.png"]
    assert second.frame["camera"].isna().all()
    assert str(second.frame["camera"].dtype) == "Int64"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda root: (root / "a" / "3.jpg").touch(), ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/007.jpg", "b/ä.png"]),
        (lambda root: (root / "b" / "007.jpg").unlink(), ["a/1.jpg", "a/2.jpg", "b/ä.png"]),
        (lambda root: (root / "b" / "007.jpg").rename(root / "b" / "7.jpg"), ["a/1.jpg", "a/2.jpg", "b/7.jpg", "b/ä.png"]),
        (lambda root: shutil.rmtree(root / "a"), ["b/007.jpg", "b/ä.png"]),
        (lambda root: shutil.copytree(root / "a", root / "c"), ["a/1.jpg", "a/2.jpg", "b/007.jpg", "b/ä.png", "c/1.jpg", "c/2.jpg"]),
    ],
    ids=["comes", "goes", "renamed", "class goes", "class comes"],
)  # fmt: skip
def test_a_change_of_the_files_is_seen(
    place: Path, num_reads: Callable[[], int], change: Callable[[Path], object], wanted: list[str]
) -> None:
    _open(place)
    change(place / "kept")
    assert list(_open(place).frame["path"]) == wanted
    assert num_reads() == 2


def test_another_card_is_another_cache(place: Path, num_reads: Callable[[], int]) -> None:
    _open(place)
    _card(place, "image_folder", "{split: query}")
    assert set(_open(place).frame["split"]) == {"query"}
    assert num_reads() == 2


def test_other_code_of_the_room_is_another_cache(
    place: Path, num_reads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(catalog_cache.CODE, place / "code", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(catalog_cache, "CODE", place / "code")
    _open(place)
    _open(place)
    assert num_reads() == 1
    for number, name in enumerate(("tables.py", "readers/market1501.py", "boxes.py"), 2):
        with (place / "code" / name).open("a") as file:
            file.write("# changed")
        _open(place)
        assert num_reads() == number, name


def test_counts_are_held_against_the_card_when_nothing_is_read(place: Path, num_reads: Callable[[], int]) -> None:
    _card(place, "image_folder", "{split: train}", images="4")
    assert len(_open(place)) == len(_open(place)) == 4
    assert num_reads() == 1


def test_a_set_that_has_just_changed_is_not_kept(place: Path, num_reads: Callable[[], int]) -> None:
    (place / "kept" / "a" / "3.jpg").touch()
    for _ in range(2):
        assert len(_open(place)) == 5
    assert num_reads() == 2
    assert not (place / "cache").exists()


def test_a_small_set_is_not_kept(place: Path, num_reads: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_cache, "MIN_ROWS", 5)
    for _ in range(2):
        _open(place)
    assert num_reads() == 2
    assert not (place / "cache").exists()


@pytest.mark.parametrize("damage", [b"", b"PAR1 no parquet", None])
def test_a_damaged_cache_is_written_anew(place: Path, num_reads: Callable[[], int], damage: bytes | None) -> None:
    first = _open(place)
    (kept,) = (place / "cache").glob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:-40] if damage is None else damage)
    pd.testing.assert_frame_equal(_open(place).frame, first.frame)
    assert num_reads() == 2
    _open(place)
    assert num_reads() == 2


def test_a_list_whose_content_changes_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_cache, "MIN_ROWS", 1)
    (tmp_path / "kept").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "kept" / name).touch()
    table = tmp_path / "kept" / "images.csv"
    table.write_text("path,label,split\n1.jpg,007,train\n2.jpg,b,train\n")
    _settle(tmp_path / "kept")
    _card(tmp_path, "table", "{table: images.csv}")
    assert list(_open(tmp_path).labels) == ["007", "b"]
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1
    table.write_text("path,label,split\n1.jpg,c,train\n2.jpg,b,train\n")
    assert list(_open(tmp_path).labels) == ["c", "b"]


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.stem)
def test_every_reader_notes_the_files_that_it_reads(path: Path) -> None:
    """A file that is read unnoticed could change without the cache being dropped."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
            names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
            own = {"read_bytes", "open", "scandir", "read_parquet", "read_table"} & names
            own |= {call.attr for call in calls if isinstance(call, ast.Attribute) and call.attr == "read_text"}
            assert not own or "note" in names, f"{path.name}: {function.name} calls {own} without note"
