from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.same_images import image_codes
from workbench.retrieval.identification import plan_identification
from workbench.retrieval.recognition import RecognitionPlan, plan_recognition
from workbench.training.folds import class_disjoint_fold
from workbench.training.parts import split_for_training
from workbench.training.recipe import Recipe
from workbench.training.sampling import hold_out

_BOX = ["box_x", "box_y", "box_width", "box_height"]


def _catalog(
    root: Path, rows: list[tuple[str, str, str]], content: dict[str, bytes], task: str = "recognition"
) -> Catalog:
    """Rows (path, label, split) of files with the given bytes; a file that is not among them is not there."""
    for name, data in content.items():
        (root / name).write_bytes(data)
    frame = pd.DataFrame(rows, columns=["path", "label", "split"]).assign(domain="real", source="set", group=None)
    frame = frame.assign(camera=pd.array([1] * len(rows), dtype="Int64"), **dict.fromkeys(_BOX, np.nan))
    card = replace(read_card("grocery_store"), task=task, protocol={})
    return Catalog(frame=frame, roots={"set": root}, cards={"set": card}, missing_splits={})


_ROWS = [
    ("a.jpg", "tin", "reference"),
    ("b.jpg", "tin", "reference"),
    ("c.jpg", "tin", "query"),
    ("d.jpg", "box", "query"),
    ("e.jpg", "box", "reference"),
]
# 3000 bytes that differ at one end only, in the middle, or not at all
_BYTES = {
    "a.jpg": b"\xff" * 3000,
    "b.jpg": b"\xff" * 2999 + b"\0",
    "c.jpg": b"\xff" * 3000,
    "d.jpg": b"\xff" * 1500 + b"\0" + b"\xff" * 1499,
    "e.jpg": b"\0" + b"\xff" * 2999,
}


def test_an_image_is_its_bytes_and_its_box(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, _ROWS, _BYTES)
    (code_N,) = image_codes(catalog)
    assert code_N.tolist() == [0, 1, 0, 2, 3]
    frame = pd.concat([catalog.frame, catalog.frame.iloc[[0, 0, 2]]], ignore_index=True)
    frame.loc[5, _BOX] = [0, 0, 4, 4]
    frame.loc[6, _BOX] = [0, 0, 5, 4]
    frame.loc[7, _BOX] = [0, 0, 4, 4]
    (code_N,) = image_codes(replace(catalog, frame=frame))
    assert code_N.tolist() == [0, 1, 0, 2, 3, 4, 5, 4]


def test_what_is_no_file_is_only_itself(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, [*_ROWS[:2], *_ROWS[:1]], {})
    assert image_codes(catalog)[0].tolist() == [0, 1, 0]
    empty = _catalog(tmp_path, _ROWS[:2], {"a.jpg": b"", "b.jpg": b""})
    assert image_codes(empty)[0].tolist() == [0, 1]


def test_queries_that_are_references_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, _ROWS, _BYTES)
    with pytest.raises(
        ValueError, match=r"(?s)2 of 2 queries .*0 of them by the same bytes.*set/c\.jpg.*protocol=leave_one_out"
    ):
        plan_recognition(catalog, "query", "query")
    wanted = r"1 of 2 queries .*1 of them by the same bytes.*: set/c\.jpg is set/a\.jpg\..*known_copies: 1"
    with pytest.raises(ValueError, match=wanted):
        plan_recognition(catalog, "reference", "query")
    apart = catalog.take(np.array([1, 2, 3, 4]))
    assert len(plan_recognition(apart, "reference", "query").queries) == 2
    with pytest.raises(ValueError, match=r"c\.jpg is set/a\.jpg"):  # however a plan is made
        RecognitionPlan({"all": catalog.select(split="reference")}, catalog.select(split="query"), (1,))


def test_two_boxes_of_one_picture_are_no_copies(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, [("a.jpg", "tin", "reference"), ("a.jpg", "box", "query")], {"a.jpg": b"shelf"})
    frame = catalog.frame.copy()
    frame[_BOX] = [[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 4.0, 4.0]]
    assert len(plan_recognition(replace(catalog, frame=frame), "reference", "query").queries) == 1
    frame.loc[1, _BOX] = frame.loc[0, _BOX]
    with pytest.raises(ValueError, match="1 of 1 queries"):
        plan_recognition(replace(catalog, frame=frame), "reference", "query")


def test_a_card_may_state_the_copies_of_a_published_set(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, _ROWS, _BYTES)
    card = replace(catalog.cards["set"], protocol={"known_copies": 1})
    known = replace(catalog, cards={"set": card})
    assert len(plan_recognition(known, "reference", "query").queries) == 2
    with pytest.raises(ValueError, match="2 of 2 queries"):  # the same file is never a copy that is known
        plan_recognition(known, "query", "query")
    more = known.take(np.array([0, 0, 2, 2, 3]))
    frame = more.frame.assign(path=["a.jpg", "b.jpg", "c.jpg", "x.jpg", "d.jpg"])
    (tmp_path / "x.jpg").write_bytes(_BYTES["a.jpg"])
    with pytest.raises(ValueError, match="2 of 3 queries"):
        plan_recognition(replace(more, frame=frame), "reference", "query")


def test_the_junk_rule_takes_a_query_out_of_its_gallery(tmp_path: Path) -> None:
    """As in VeRi-776, whose queries lie in the gallery too."""
    rows = [("a.jpg", "7", "query"), ("b.jpg", "7", "gallery"), ("c.jpg", "7", "gallery"), ("d.jpg", "-1", "gallery")]
    content = {"a.jpg": b"one", "b.jpg": b"one", "c.jpg": b"two", "d.jpg": b"one"}
    catalog = _catalog(tmp_path, rows, content, "reid")
    assert len(plan_identification(catalog, "query", "gallery").gallery) == 3
    with pytest.raises(ValueError, match=r"set/a\.jpg is set/b\.jpg.*junk=itself"):
        plan_identification(catalog, "query", "gallery", "none")
    frame = catalog.frame.assign(camera=pd.array([1, 2, 2, 1], dtype="Int64"))
    with pytest.raises(ValueError, match=r"set/a\.jpg is set/b\.jpg"):  # another camera: the rule leaves it there
        plan_identification(replace(catalog, frame=frame), "query", "gallery")
    assert plan_identification(catalog, "gallery", "gallery", "itself").junk == "itself"
    with pytest.raises(ValueError, match="the same split as query_split and gallery_split"):
        plan_identification(catalog, "query", "gallery", "itself")


def test_training_holds_nothing_out_that_it_learns_from(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(6)]
    rows = [(name, label, "train") for label in ("tin", "box") for name in (f"{label}{one}" for one in names)]
    content = {name: name.encode() for name, _, _ in rows} | {"tin0.jpg": b"twins", "tin1.jpg": b"twins"}
    catalog = _catalog(tmp_path, rows, content)
    for seed in range(20):
        train, held = hold_out(catalog, 3, seed)
        assert {"tin0.jpg", "tin1.jpg"} <= set(train.frame["path"])
        assert len(held) == 3 + 3
        fold = class_disjoint_fold(catalog, "train", 2, 0, seed)
        assert set.isdisjoint(*(set(code_N) for code_N in image_codes(fold.references, fold.queries)))
    frame = catalog.frame.assign(split=["val" if path == "tin1.jpg" else "train" for path in catalog.frame["path"]])
    with pytest.raises(ValueError, match=r"tin1\.jpg is set/tin0\.jpg"):
        split_for_training(replace(catalog, frame=frame), "train", "val", Recipe("scratch", num_steps=1))
