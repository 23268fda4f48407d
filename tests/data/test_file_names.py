"""Which files count as pictures and which never do: one list of each, by every way in."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.data.catalog import Catalog, open_catalog
from workbench.data.croissant import croissant
from workbench.data.draft_card import draft_folder, guess_options
from workbench.data.file_names import IMAGE_SUFFIXES, is_clutter, is_picture, say_clutter
from workbench.data.images import load_image
from workbench.data.inputs import gather_inputs
from workbench.data.readers.listing import LayoutError

CLUTTER = [
    *(
        "._name.jpg",
        ".DS_Store",
        ".thumbnails",
        ".@__thumb",
        ".ipynb_checkpoints",
        ".hidden.png",
        ".git",
        ".picasaoriginals",
    ),
    *(
        "Thumbs.db",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "Desktop.ini",
        "$RECYCLE.BIN",
        "System Volume Information",
    ),
    *("@eaDir", "@eadir", "#recycle", "#snapshot", "@Recycle", "__MACOSX", "Icon\r", "Picasa.ini", "lost+found"),
]
OWN = [
    "eaDir",
    "thumbs",
    "thumbnails",
    "recycle",
    "macosx",
    "MACOSX_1",
    "a.jpg",
    "@home",
    "#1 cola",
    "icon.png",
    "~tilde",
    "-1",
]
# How a picture of each suffix is written: with Pillow's name of its format.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".mpo": "MPO",
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG2000"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    ".gif": "GIF",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
}


def card_of(folder: Path, reader: str, options: str = "") -> str:
    card = folder / "mine.md"
    card.write_text(
        f"---\ntitle: m\ntask: recognition\nreader: {reader}\nlicence: none\nsource: here\nlayout: any\n{options}\n---\n"
    )
    return str(card)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_what_is_clutter() -> None:
    assert [name for name in CLUTTER if not is_clutter(name)] == []
    assert [name for name in OWN if is_clutter(name)] == []


def test_clutter_is_counted_in_words() -> None:
    assert say_clutter([]) == ""
    paths = ["a/@eaDir", "b/@eaDir", "c/@eaDir", "a/._1.jpg", "a/._2.jpg", "Thumbs.db", "Icon\r", ".x", ".y"]
    assert say_clutter(paths) == (
        "9 files or folders that are hidden or that systems and photo programs make are left out: 3 x @eaDir, 2 x ._*, .x, .y, "
        "Icon and 1 other names"
    )


THUMBS = [
    "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "a/.thumbnails/1.jpg",
    "a/._1.jpg",
    "a/Thumbs.db",
    "__MACOSX/a/._1.jpg",
    "@eaDir/x.jpg",
]
SAID = (
    "6 files or folders that are hidden or that systems and photo programs make are left out: 2 x @eaDir, ._*, .thumbnails, "
    "Thumbs.db, __MACOSX"
)


def test_thumbnails_in_class_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path / "set", "a/1.jpg", "b/2.jpg", *THUMBS)
    catalog = open_catalog(card_of(tmp_path, "image_folder"), tmp_path / "set")
    assert catalog.frame["path"].tolist() == ["a/1.jpg", "b/2.jpg"]
    assert catalog.notes == (f"mine: {SAID}",)
    assert catalog.thin(1, 1).notes == catalog.notes
    inputs, notes = gather_inputs([str(tmp_path / "set")])
    assert [one.path.name for one in inputs] == ["1.jpg", "2.jpg"]
    assert notes == [f"{tmp_path / 'set'}: {SAID}"]


def test_a_draft_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "set", "train/a/1.jpg", "query/a/2.jpg", "@eaDir/3.jpg", "#recycle/old/4.jpg", "train/a/@eaDir/5.jpg"
    )
    assert guess_options(root) == {"split_folders": {"train": "train", "query": "query"}}
    card, *_ = draft_folder(root, tmp_path / "mine.md")
    assert "train: {images: 1, labels: 1}" in card.read_text()
    issue = "2 files or folders that are hidden or that systems and photo programs make are left out: @eaDir, #recycle"
    assert issue.split(":")[0].removeprefix("2 ") in " ".join(card.read_text().split())
    assert len(open_catalog(str(card), root)) == 2


def test_the_readers_of_other_layouts_leave_them_out(tmp_path: Path) -> None:
    name = "0002_c1s1_000451_03"
    root = touch(tmp_path / "set", f"query/{name}.jpg", f"query/._{name}.jpg", f"query/@eaDir/{name}.jpg/T.jpg")
    card = card_of(tmp_path, "market1501").replace("mine.md", "mine.md")
    Path(card).write_text(Path(card).read_text().replace("task: recognition", "task: reid"))
    catalog = open_catalog(card, root)
    assert catalog.frame["path"].tolist() == [f"query/{name}.jpg"]
    assert "2 files or folders" in catalog.notes[0]


@pytest.mark.parametrize("listed", ["@eaDir/1.jpg", "a/._1.jpg", ".thumbnails/1.jpg"])
def test_a_list_of_thumbnails_is_refused(tmp_path: Path, listed: str) -> None:
    root = touch(tmp_path / "set", "1.jpg", listed)
    (root / "rows.csv").write_text(f"path,label,split\n1.jpg,x,t\n{listed},x,t\n")
    card = card_of(tmp_path, "table", "options: {table: rows.csv}")
    with pytest.raises(
        LayoutError, match=f"1 of 2 files listed in rows.csv are hidden, or thumbnails .*: {listed}. Take them"
    ):
        open_catalog(card, root)


def write_pictures(root: Path) -> dict[str, np.ndarray]:
    """A picture of each suffix, in small letters and in capitals, and its pixels in the middle, by path."""
    picture = Image.fromarray(np.full((16, 24, 3), (0, 128, 255), dtype=np.uint8))
    found = {}
    for suffix, kind in FORMATS.items():
        for written in (suffix, suffix.upper()):
            path = root / f"blue/p{suffix[1:]}{'' if written == suffix else '_2'}{written}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, kind)
            found[f"blue/{path.name}"] = np.asarray(load_image(path))
    return found


def test_a_picture_of_each_suffix_comes_in_by_every_way(tmp_path: Path) -> None:
    assert set(FORMATS) == set(IMAGE_SUFFIXES)
    root = tmp_path / "set"
    pixels = write_pictures(root)
    names = sorted(pixels)
    for name, picture_HWC in pixels.items():
        assert is_picture(name)
        assert np.abs(picture_HWC[8, 12].astype(int) - (0, 128, 255)).max() <= 6, (
            f"{name}: lossy kinds move a level or two"
        )
    rows = "".join(f"{name},blue,t\n" for name in names)
    (root / "rows.csv").write_text(f"path,label,split\n{rows}")
    content = {
        "images": [{"id": number, "file_name": name, "width": 24, "height": 16} for number, name in enumerate(names)],
        "categories": [{"id": 1, "name": "blue"}],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": [0, 0, 24, 16]} for n in range(len(names))],
    }
    (root / "boxes.json").write_text(json.dumps(content))
    ways: dict[str, Catalog] = {
        "folders": open_catalog(card_of(tmp_path, "image_folder"), root),
        "table": open_catalog(card_of(tmp_path, "table", "options: {table: rows.csv}"), root),
        "coco": open_catalog(card_of(tmp_path, "coco", "options: {annotations: {t: boxes.json}}"), root),
    }
    for way, catalog in ways.items():
        assert sorted(catalog.frame["path"]) == names, way
        for name, picture in zip(catalog.frame["path"], catalog.pictures(), strict=True):
            assert np.array_equal(np.asarray(load_image(picture)), pixels[name]), (way, name)
    asked, notes = gather_inputs([str(root / "blue")])
    assert [one.path.name for one in asked] == [Path(name).name for name in sorted(pixels)]
    assert notes == []
    card, *_ = draft_folder(root, tmp_path / "drafted.md")
    assert len(open_catalog(str(card), root)) == len(names)
    kinds = {
        one["includes"]: one["encodingFormat"]
        for one in croissant(ways["folders"])["distribution"]
        if "includes" in one
    }
    assert kinds["**/*.JFIF"] == kinds["**/*.jpe"] == "image/jpeg"
    assert kinds["**/*.jp2"] == "image/jp2"
    assert "application/octet-stream" not in kinds.values()
