import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.export import bundle
from workbench.export.bundle import check_bundle, new_bundle, read_fitting_gallery
from workbench.export.folder import ExportError, read_described
from workbench.export.onnx import export_onnx
from workbench.export.runtimes import open_exported
from workbench.models.embedder import build_embedder
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import GalleryError

CARD = "# A card\n"
NAMES = (
    "plain.txt",
    "two  spaces .txt",
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "\\n",
    " *",
    "Käse",
    "sub/b/c",
)


def fill(place: Path) -> None:
    for name in NAMES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"content of {name}")


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Two labels, three references, changed twice."""
    made = Gallery.build(
        np.eye(3, 4, dtype=np.float32), ["007", "7", "7"], ["a.jpg", "b.jpg", "c.jpg"], comment="by Eve"
    )
    made.about = {
        "embedder": "fingerprint",
        "protocol": {"data": "shop"},
        "pictures": {"3": ["/home/eve/b.jpg", None]},
    }
    made.add("<b>\n", np.array([[0.0, 0.0, 0.0, 2.0]]))
    made.save(tmp_path / "shop")
    return tmp_path / "shop"


@pytest.fixture
def made(tmp_path: Path, gallery: Path) -> Path:
    with new_bundle(tmp_path / "bundle", gallery=gallery, card=CARD) as place:
        fill(place)
    return tmp_path / "bundle"


def test_sha256sum_accepts_every_file_of_a_bundle(made: Path) -> None:
    done = sha256sum(made)
    assert (done.returncode, done.stderr) == (0, "")
    in_gallery = ("manifest.json", "content-000001/embeddings.npy", "content-000001/references.parquet")
    wanted = {*NAMES, "MODEL_CARD.md", *(f"gallery/{name}" for name in in_gallery)}
    found = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert found == wanted | {"SHA256SUMS"}
    lines = (made / "SHA256SUMS").read_bytes().split(b"\n")
    assert len(lines) == len(wanted) + 1
    assert hashlib.sha256(b"content of plain.txt").hexdigest().encode() + b"  plain.txt" in lines
    assert b"\\" + hashlib.sha256(b"content of new\nline").hexdigest().encode() + b"  new\\nline" in lines
    assert (made / "MODEL_CARD.md").read_text() == CARD
    check_bundle(made)


def test_sums_are_sorted_by_the_bytes_of_the_names(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "bundle", card=CARD) as place:
        for name in ("b", "B", "a/z", "a.b", "é"):
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).touch()
    names = [line[66:].decode() for line in (tmp_path / "bundle" / "SHA256SUMS").read_bytes().split(b"\n")[:-1]]
    assert names == ["B", "MODEL_CARD.md", "a.b", "a/z", "b", "é"]


def test_sums_are_those_that_sha256sum_writes(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "bundle", card=CARD) as place:
        fill(place)
    folder = tmp_path / "bundle"
    names = sorted((*NAMES, "MODEL_CARD.md"), key=os.fsencode)
    done = subprocess.run(["sha256sum", "--", *names], cwd=folder, capture_output=True, check=True)
    assert (folder / "SHA256SUMS").read_bytes() == done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_changed_or_taken_away_is_named(made: Path, name: str) -> None:
    (made / name).write_text("content of another")
    with pytest.raises(ExportError, match=r"not as it was made\. changed: ") as found:
        check_bundle(made)
    assert repr(name) in str(found.value)
    assert "missing" not in str(found.value)
    assert sha256sum(made).returncode == 1
    (made / name).unlink()
    with pytest.raises(ExportError, match=r"not as it was made\. missing: ") as found:
        check_bundle(made)
    assert repr(name) in str(found.value)


def test_a_file_too_many_is_named_although_sha256sum_passes_it(made: Path) -> None:
    (made / "gallery" / "content-000001" / "more").touch()
    assert sha256sum(made).returncode == 0
    with pytest.raises(ExportError, match=r"not listed: 'gallery/content-000001/more'\. Copy"):
        check_bundle(made)


def test_all_that_is_wrong_is_said_at_once(made: Path) -> None:
    (made / "plain.txt").unlink()
    (made / "MODEL_CARD.md").write_text("better\n")
    (made / "notes").touch()
    with pytest.raises(ExportError, match=r"missing: 'plain.txt'; changed: 'MODEL_CARD.md'; not listed: 'notes'"):
        check_bundle(made)


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"0" * 64 + b"  plain.txt", b"0" * 64 + b" plain.txt\n"])
def test_damaged_sums_are_an_error(made: Path, content: bytes) -> None:
    (made / "SHA256SUMS").write_bytes(content)
    with pytest.raises(ExportError, match="SHA256SUMS is damaged"):
        check_bundle(made)


def test_what_is_no_bundle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file", "."):
        with pytest.raises(ExportError, match="is no bundle"):
            check_bundle(tmp_path / name)


def test_a_link_put_into_a_bundle_later_is_an_error(made: Path) -> None:
    (made / "plain.txt").unlink()
    (made / "plain.txt").symlink_to(made / "Käse")
    with pytest.raises(ExportError, match="is a link"):
        check_bundle(made)


def test_the_gallery_goes_along_without_its_history(made: Path, gallery: Path) -> None:
    before, after = Gallery.load(gallery), Gallery.load(made / "gallery")
    assert (len(before.history), len(after.history)) == (2, 0)
    assert after.references.equals(before.references)
    assert after.references["label"].tolist() == ["007", "7", "7", "<b>\n"]
    assert np.array_equal(after.embedding_ND, before.embedding_ND)
    assert (after.version, after.about) == (2, {"embedder": "fingerprint", "protocol": {"data": "shop"}})
    manifest = (made / "gallery" / "manifest.json").read_text()
    assert "Eve" not in manifest
    assert "/home/eve" not in manifest, "places on the machine that made it"
    assert after.add("new", np.ones((1, 4))).tolist() == [4], "ids go on as they would at home"


def test_the_gallery_is_that_of_the_beginning(tmp_path: Path, gallery: Path) -> None:
    with new_bundle(tmp_path / "bundle", gallery=gallery, card=CARD):
        changed = Gallery.load(gallery)
        changed.remove("7")
        changed.save(gallery)
    assert Gallery.load(tmp_path / "bundle" / "gallery").labels == ["007", "7", "<b>\n"]


def _cut(gallery: Path) -> None:
    path = gallery / "content-000001" / "embeddings.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _take_references(gallery: Path) -> None:
    (gallery / "content-000001" / "references.parquet").unlink()


def _take_all(gallery: Path) -> None:
    shutil.rmtree(gallery)


def _empty(gallery: Path) -> None:
    emptied = Gallery.load(gallery)
    for label in emptied.labels:
        emptied.remove(label)
    emptied.save(gallery)


@pytest.mark.parametrize("breaks", [_cut, _take_references, _take_all, _empty])
def test_a_broken_gallery_is_refused_before_anything_is_written(
    breaks: Callable[[Path], None], tmp_path: Path, gallery: Path
) -> None:
    breaks(gallery)
    entered = False
    with (
        pytest.raises(ValueError, match=r"damaged|incomplete|no gallery|is empty") as found,
        new_bundle(tmp_path / "deep" / "bundle", gallery=gallery, card=CARD),
    ):
        entered = True
    assert not entered
    assert not (tmp_path / "deep").exists()
    assert (found.type is GalleryError) == (breaks is not _empty)


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path, gallery: Path) -> None:
    def fails_late() -> None:
        with new_bundle(tmp_path / "in" / "bundle", gallery=gallery, card=CARD) as temporary:
            fill(temporary)
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fails_late()
    assert list((tmp_path / "in").iterdir()) == []


def test_an_error_at_the_last_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_bytes", full)
    with pytest.raises(OSError, match="No space"), new_bundle(tmp_path / "in" / "bundle", card=CARD) as temporary:
        fill(temporary)
    assert list((tmp_path / "in").iterdir()) == []


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, _dangling])
def test_what_is_there_already_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    make(folder)
    with pytest.raises(FileExistsError, match="exists already; choose another folder"), new_bundle(folder, card=CARD):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_another_process_that_was_quicker_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    mine, theirs = new_bundle(folder, card="# Mine\n"), new_bundle(folder, card="# Theirs\n")
    mine.__enter__()
    theirs.__enter__()
    theirs.__exit__(None, None, None)
    with pytest.raises(FileExistsError, match="meanwhile"):
        mine.__exit__(None, None, None)
    assert (folder / "MODEL_CARD.md").read_text() == "# Theirs\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    check_bundle(folder)


@pytest.mark.parametrize("card", ["", " \n"])
def test_a_bundle_wants_a_card(card: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model card is empty"), new_bundle(tmp_path / "bundle", card=card):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def _link(place: Path) -> None:
    (place / "link").symlink_to("/etc/hostname")


def _link_folder(place: Path) -> None:
    (place / "link").symlink_to(place)


def _pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")


def _empty_folder(place: Path) -> None:
    (place / "models" / "1").mkdir(parents=True)


def _own_gallery(place: Path) -> None:
    (place / "gallery").mkdir()


def _own_sums(place: Path) -> None:
    (place / "SHA256SUMS").touch()


@pytest.mark.parametrize(
    ("spoils", "words"),
    [
        (_link, "is a link"),
        (_link_folder, "is a link"),
        (_pipe, "is a link or no plain file"),
        (_empty_folder, "models/1 is an empty folder"),
        (_own_gallery, "gallery of a bundle are written last"),
        (_own_sums, "SHA256SUMS of a bundle are written last"),
    ],
)
def test_what_no_list_of_sums_can_hold_is_refused(spoils: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words), new_bundle(tmp_path / "in" / "bundle", card=CARD) as place:
        spoils(place)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    embedder = build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=4)
    return export_onnx(embedder, tmp_path_factory.mktemp("exported") / "float")


def save_gallery(folder: Path, dim: int, **about: Any) -> Path:
    made = Gallery.build(np.eye(2, dim, dtype=np.float32), ["a", "b"])
    made.about = about
    made.save(folder)
    return folder


def test_a_gallery_of_the_embedder_or_of_its_export_fits(tmp_path: Path, exported: Path) -> None:
    described = read_described(exported)
    dim = described["embedding_dim"]
    by_torch = save_gallery(tmp_path / "torch", dim, embedder=described["embedder_fingerprint"])
    by_export = save_gallery(tmp_path / "export", dim, embedder=open_exported(exported, "onnxruntime").fingerprint())
    unsaid = save_gallery(tmp_path / "unsaid", dim)
    for gallery in (by_torch, by_export, unsaid):
        assert read_fitting_gallery(gallery, described).references["label"].tolist() == ["a", "b"]


def test_another_embedders_gallery_does_not_fit(tmp_path: Path, exported: Path) -> None:
    described = read_described(exported)
    with pytest.raises(ValueError, match="was made by another embedder"):
        read_fitting_gallery(save_gallery(tmp_path / "other", described["embedding_dim"], embedder="f" * 64), described)
    with pytest.raises(
        ValueError, match=f"embeddings of width 3, the exported embedder gives {described['embedding_dim']}"
    ):
        read_fitting_gallery(save_gallery(tmp_path / "narrow", 3), described)
