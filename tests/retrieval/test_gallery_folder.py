"""A gallery on disk: the same after a round trip, whole after a kill, and never believed when damaged."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faiss.contrib.torch_utils  # noqa: F401  # pytorch-metric-learning does so, and replaces faiss's methods
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
    wanted = {"format_version": 2, "dim": 5, "num_references": 15, "num_labels": 3, "version": 2, "next_reference": 20}
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
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(GalleryError, match="format version 99, this workbench reads 1 and 2"):
        Gallery.load(tmp_path)


HARD_LABELS = [
    *("0001234", "1234", "00012345678905", "9007199254740993", "9007199254740992", "18446744073709551617", "1e5"),
    *("NA", "nan", "None", "null", "NaN", "True", "", " ", " 7", "7 ", "-0", "1.0", "#N/A", "a,b", 'q"uote', "tab\t"),
    *("line\nbreak", "null\0byte", "é", "e\u0301", "茶", "ß", "🍫", "\u202eright to left", "../x", "a" * 5000),
]


def test_labels_and_names_come_back_exactly_as_they_were(tmp_path: Path) -> None:
    # "é" in two Unicode forms is one label, while names stay as they are
    labels = [label for label in HARD_LABELS if label not in ("", "e\u0301")]
    gallery = Gallery.build(_normal(0, len(labels), 4), labels, labels[::-1], comment="hard\nones, é")
    gallery.add("many", _normal(1, len(HARD_LABELS), 4), HARD_LABELS)
    gallery.save(tmp_path)
    loaded = Gallery.load(tmp_path)
    assert loaded.labels == [*labels, "many"]
    assert loaded.references["name"].tolist() == [*labels[::-1], *HARD_LABELS]
    found = loaded.search_labels(gallery.embedding_ND[: len(labels)], 1).label_QK[:, 0].tolist()
    assert found == labels
    assert all(type(label) is str for label in found)
    assert [loaded.remove(label) for label in labels] == [1] * len(labels)


def test_notes_travel_with_the_gallery(tmp_path: Path) -> None:
    about = {
        "embedder": "sha256:00ff",
        "calibration": {
            "knots": [0.1, 1 / 3, 1e-300],
            "probability": [0.0, -0.0, 1.0],
            "seed": 2**63 + 1,
            "none": None,
        },
        "protocol": "few-shot gallery: 5 références; « é »",
        "ok": True,
    }
    gallery = _saved(tmp_path)
    assert Gallery.load(tmp_path).about == {}
    gallery.about = about
    gallery.save(tmp_path)
    loaded = Gallery.load(tmp_path)
    assert repr(loaded.about) == repr(about)
    loaded.about["more"] = [1]
    loaded.save(tmp_path)
    again = Gallery.load(tmp_path)
    assert again.about["more"] == [1]
    assert again.version == gallery.version


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), (1, 2), {1: "a"}, np.float32(1), np.zeros(2), Path("x"), "\ud800", {"deep": [{2: 3}]}],
)
def test_notes_that_json_would_change_are_refused(tmp_path: Path, value: object) -> None:
    gallery = _saved(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    gallery.about = {"fine": 1, "bad": value}
    with pytest.raises(ValueError, match=r"about\['bad'\] cannot be kept in JSON as it is"):
        gallery.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    gallery.about = [1]  # type: ignore[assignment]
    with pytest.raises(ValueError, match="about is a dict"):
        gallery.save(tmp_path)


def test_history_tells_what_changed_and_comes_back(tmp_path: Path) -> None:
    began = datetime.now(UTC)
    gallery = Gallery.build(np.eye(3), ["a", "a", "b"], comment="opening")
    gallery.extend(np.ones((25, 3)), [f"new {n:02d}" for n in range(25)], comment="25 SKUs of spring")
    gallery.remove("a", comment="delisted")
    gallery.add("b", np.ones((2, 3)))
    gallery.save(tmp_path)
    history = Gallery.load(tmp_path).history
    pd.testing.assert_frame_equal(history, gallery.history)
    assert history["version"].tolist() == [1, 2, 3, 4]
    assert history["added"].tolist() == [3, 25, 0, 2]
    assert history["removed"].tolist() == [0, 0, 2, 0]
    twenty = ", ".join(f"new {n:02d} (1)" for n in range(20))
    assert history["labels"].tolist() == ["a (2), b (1)", f"{twenty}, and 5 more", "a (2)", "b (2)"]
    assert history["comment"].tolist() == ["opening", "25 SKUs of spring", "delisted", ""]
    times = [datetime.fromisoformat(at) for at in history["at"]]
    assert times == sorted(times)
    assert began - timedelta(seconds=1) <= times[0]
    assert times[-1] <= datetime.now(UTC)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["history"][2]["labels"] == {"a": 2}
    assert manifest["history"][1]["num_labels"] == 25


def test_history_is_bounded_and_a_refused_change_is_not_in_it(tmp_path: Path) -> None:
    gallery = Gallery(2)
    assert gallery.history.empty
    for n in range(130):
        gallery.add(f"{n}", np.eye(2)[:1])
    gallery.save(tmp_path)
    loaded = Gallery.load(tmp_path)
    assert loaded.history["version"].tolist() == list(range(31, 131))
    for wrong in (7, None):
        with pytest.raises(TypeError, match="comment is text"):
            loaded.add("x", np.eye(2), comment=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="UTF-8"):
        loaded.remove("5", comment="\ud800")
    with pytest.raises(KeyError):
        loaded.remove("200")
    assert (len(loaded), loaded.version, loaded.history["version"].iloc[-1]) == (130, 130, 130)


def test_a_folder_of_format_version_1_is_read_and_becomes_2(tmp_path: Path) -> None:
    gallery = _saved(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("about", "history", "manifest_sha256"):
        del manifest[name]
    manifest["format_version"] = 1
    manifest["manifest_sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(manifest))
    loaded = Gallery.load(tmp_path)
    assert (loaded.about, len(loaded.history), loaded.version) == ({}, 0, 2)
    assert loaded.embedding_ND.tobytes() == gallery.embedding_ND.tobytes()
    loaded.add("new", np.ones((1, 5)))
    loaded.save(tmp_path)
    assert json.loads(path.read_text())["format_version"] == 2
    assert Gallery.load(tmp_path).history["version"].tolist() == [3]


def test_a_mapped_gallery_answers_as_one_in_memory_and_survives_its_replacement(tmp_path: Path) -> None:
    gallery = Gallery.build(_normal(0, 3000, 6), [f"{n % 70}" for n in range(3000)])
    gallery.save(tmp_path)
    mapped = Gallery.load(tmp_path, in_memory=False)
    assert isinstance(mapped.view_ND.base, np.memmap)
    gallery.remove("7")
    gallery.save(tmp_path)  # deletes the folder that is mapped
    whole, query_QD = Gallery.build(_normal(0, 3000, 6), [f"{n % 70}" for n in range(3000)]), _normal(1, 40, 6)
    for searched in ("search", "search_labels"):
        ours, wanted = getattr(mapped, searched)(query_QD, 9), getattr(whole, searched)(query_QD, 9)
        np.testing.assert_array_equal(ours.similarity_QK, wanted.similarity_QK)
        np.testing.assert_array_equal(ours.reference_QK, wanted.reference_QK)
        np.testing.assert_array_equal(ours.label_QK, wanted.label_QK)
    with pytest.raises(ValueError, match="read-only"):
        mapped.view_ND[0] = 0
    # A change takes the rows into memory, and the answers are those of the changed gallery.
    mapped.add("new", query_QD[:1])
    assert not isinstance(mapped.view_ND.base, np.memmap)
    assert mapped.search(query_QD[:1], 1).label_QK.tolist() == [["new"]]
    assert len(mapped.embedding_ND) == 3001
    mapped.remove("7")
    mapped.remove("new")
    assert mapped.embedding_ND.tobytes() == gallery.embedding_ND.tobytes()
    mapped.save(tmp_path)
    assert Gallery.load(tmp_path, in_memory=False).embedding_ND.tobytes() == gallery.embedding_ND.tobytes()


def test_an_empty_gallery_can_be_mapped(tmp_path: Path) -> None:
    Gallery(4).save(tmp_path)
    mapped = Gallery.load(tmp_path, in_memory=False)
    assert mapped.add("a", np.eye(4)).tolist() == [0, 1, 2, 3]
