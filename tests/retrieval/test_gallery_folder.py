"""A gallery on disk: the same after a round trip, whole after a kill, and never believed when damaged."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.retrieval import gallery_folder
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import GalleryError


def _normal(seed: int, num_rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_rows, dim))


def _saved(folder: Path) -> Gallery:
    gallery = Gallery.build(_normal(3, 20, 5), [f"{n % 4:03d}" for n in range(20)], [f"å/{n}" for n in range(20)])
    gallery.remove("002")
    gallery.save(folder)
    return gallery


def test_round_trip_bit_for_bit(tmp_path: Path) -> None:
    gallery = _saved(tmp_path / "deep" / "gallery")
    loaded = Gallery.load(tmp_path / "deep" / "gallery")
    assert loaded.embedding_ND.tobytes() == gallery.embedding_ND.tobytes()
    pd.testing.assert_frame_equal(loaded.references, gallery.references)
    assert loaded.labels == ["000", "001", "003"]
    assert (loaded.dim, loaded.version) == (5, 2)
    query_QD = _normal(4, 6, 5)
    first, second = gallery.search(query_QD, 7), loaded.search(query_QD, 7)
    np.testing.assert_array_equal(first.similarity_QK, second.similarity_QK)
    np.testing.assert_array_equal(first.reference_QK, second.reference_QK)
    # Ids 2, 6, 10, 14, 18 were removed; the next is 20 all the same.
    assert loaded.add("new", query_QD).tolist() == list(range(20, 26))


def test_the_last_id_is_not_given_again_after_loading(tmp_path: Path) -> None:
    gallery = Gallery.build(np.eye(3), ["a", "b", "c"])
    gallery.add("last", np.eye(3)[:1])
    gallery.remove("last")
    gallery.save(tmp_path)
    assert Gallery.load(tmp_path).add("next", np.eye(3)[:1]).tolist() == [4]


def test_an_empty_gallery_round_trip(tmp_path: Path) -> None:
    Gallery(4).save(tmp_path)
    loaded = Gallery.load(tmp_path)
    assert (loaded.dim, len(loaded), loaded.version, loaded.labels) == (4, 0, 0, [])


def test_the_manifest_tells_what_is_there(tmp_path: Path) -> None:
    _saved(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    wanted = {"format_version": 1, "dim": 5, "num_references": 15, "num_labels": 3, "version": 2, "next_reference": 20}
    assert {key: manifest[key] for key in wanted} == wanted
    embeddings = (tmp_path / manifest["content"] / "embeddings.npy").read_bytes()
    assert manifest["sha256"]["embeddings.npy"] == hashlib.sha256(embeddings).hexdigest()
    texts = pd.read_parquet(tmp_path / manifest["content"] / "references.parquet")
    assert texts["label"].tolist()[:3] == ["000", "001", "003"]


def test_saving_again_replaces_and_leaves_one_content_folder(tmp_path: Path) -> None:
    gallery = _saved(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    gallery.add("new", np.ones((1, 5)))
    gallery.save(tmp_path)
    gallery.save(tmp_path)
    assert Gallery.load(tmp_path).labels == ["000", "001", "003", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content-000003", "manifest.json", "notes.txt"]


_KILLED_SAVE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from workbench.retrieval import gallery_folder
from workbench.retrieval.gallery import Gallery

gallery = Gallery.load(Path(sys.argv[1]))
gallery.add("new", np.ones((1, 5)))
die = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
owner, name = {"embeddings": (gallery_folder.np, "save"), "texts": (gallery_folder.pd.DataFrame, "to_parquet"),
               "manifest": (gallery_folder, "write_json"), "clearing": (gallery_folder.shutil, "rmtree")}[sys.argv[2]]
if sys.argv[2] == "clearing":  # new_folder clears its own temporary folder by the same function
    gallery_folder.write_json = lambda *args, write=gallery_folder.write_json: (write(*args), setattr(owner, name, die))
else:
    setattr(owner, name, die)
gallery.save(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("where", ["embeddings", "texts", "manifest", "clearing"])
def test_a_killed_save_leaves_the_old_gallery_or_the_new_one(tmp_path: Path, where: str) -> None:
    _saved(tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_SAVE, str(tmp_path), where], check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(list(tmp_path.iterdir())) == 3  # the manifest, the old content and the new, whole or not
    after = Gallery.load(tmp_path)
    assert ("new" in after.labels) == (where == "clearing")
    after.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert Gallery.load(tmp_path).labels == after.labels


def test_a_full_disk_leaves_the_old_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = _saved(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    gallery.add("new", np.ones((1, 5)))
    for owner, name in ((gallery_folder.np, "save"), (pd.DataFrame, "to_parquet"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match="No space left"):
                gallery.save(tmp_path)
        assert "new" not in Gallery.load(tmp_path).labels
    assert set(before) <= {path.name for path in tmp_path.iterdir()}


def test_a_gallery_replaced_while_it_is_read_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = _saved(tmp_path)
    read_content, times = gallery_folder._read_content, list[str]()

    def replaced_first(folder: Path, manifest: dict[str, object]) -> gallery_folder.Stored:
        times.append(str(manifest["content"]))
        if len(times) == 1:
            gallery.add("new", np.ones((1, 5)))
            gallery.save(folder)
        return read_content(folder, manifest)

    monkeypatch.setattr(gallery_folder, "_read_content", replaced_first)
    assert "new" in Gallery.load(tmp_path).labels
    assert times == ["content-000001", "content-000002"]


def test_writers_at_once_leave_one_whole_gallery(tmp_path: Path) -> None:
    galleries = [Gallery.build(_normal(n, 30, 4), [f"{n}"] * 30) for n in range(6)]
    threads = [threading.Thread(target=gallery.save, args=(tmp_path,)) for gallery in galleries for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = Gallery.load(tmp_path)
    wanted = galleries[int(loaded.labels[0])]
    assert loaded.embedding_ND.tobytes() == wanted.embedding_ND.tobytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["content-000001/embeddings.npy", "content-000001/references.parquet", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, name: str, damage: str) -> None:
    _saved(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    middle = content.index(b'"version": ') + 11 if name == "manifest.json" else len(content) // 2
    content[middle] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: {"flip": len(content), "cut": len(content) // 2, "empty": 0}[damage]])
    with pytest.raises(GalleryError, match=rf"(?s){path.name}.*(Copy|Give|Take)"):
        Gallery.load(tmp_path)


def test_what_is_no_gallery_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="is no gallery"):
        Gallery.load(tmp_path / "nowhere")
    with pytest.raises(GalleryError, match="is no gallery"):
        Gallery.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "another tool"}')
    with pytest.raises(GalleryError, match="is no gallery"):
        Gallery.load(tmp_path)
    with pytest.raises(GalleryError, match="is no gallery"):
        Gallery.build(np.eye(3), ["a", "b", "c"]).save(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == '{"format": "another tool"}'
    assert len(list(tmp_path.iterdir())) == 1


def test_another_format_version_is_named(tmp_path: Path) -> None:
    _saved(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(GalleryError, match="format version 99, this workbench reads 1"):
        Gallery.load(tmp_path)
