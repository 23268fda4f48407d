import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.card import read_card
from workbench.data.catalog import COLUMNS, Catalog, open_catalog
from workbench.data.checks import CountMismatch
from workbench.data.readers.listing import LayoutError


def make_card(folder: Path, name: str, files: list[str], task: str = "recognition", extra: str = "") -> str:
    """The path of a new card `name` whose pictures (empty files) lie in the folder `name` beside it."""
    for file in files:
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    reader = "image_folder" if task == "recognition" else "market1501"
    card = folder / f"{name}.md"
    card.write_text(
        f"---\ntitle: {name}\ntask: {task}\nreader: {reader}\nlicence: none\nsource: here\nlayout: folders\n{extra}\n---\n",
        encoding="utf-8",
    )
    return str(card)


FILES = ["ref/tin/1.jpg", "photos/tin/1.jpg", "photos/tin/2.jpg", "photos/box/1.jpg"]
SPLITS = "options: {split_folders: {reference: ref, query: photos}, domains: {reference: packshot}}"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(make_card(tmp_path, "shop", FILES, extra=SPLITS), tmp_path)


def test_rows_columns_and_paths(catalog: Catalog, tmp_path: Path) -> None:
    assert tuple(catalog.frame.columns) == (*COLUMNS, *BOX_COLUMNS)
    assert list(catalog.frame.index) == [0, 1, 2, 3]
    assert len(catalog) == 4
    assert list(catalog.labels) == ["tin", "box", "tin", "tin"]
    assert catalog.labels.dtype == object
    assert catalog.image_paths()[0] == tmp_path / "shop" / "ref" / "tin" / "1.jpg"
    assert catalog.roots == {"shop": tmp_path / "shop"}
    assert set(catalog.frame["source"]) == {"shop"}


def test_select_by_split_domain_and_label(catalog: Catalog) -> None:
    assert list(catalog.select(split="query").labels) == ["box", "tin", "tin"]
    assert list(catalog.select(split=["reference", "query"], label="tin").frame["path"]) == [
        "ref/tin/1.jpg",
        "photos/tin/1.jpg",
        "photos/tin/2.jpg",
    ]
    picked = catalog.select(domain="packshot")
    assert list(picked.frame.index) == [0]
    assert len(catalog.select()) == 4


def test_select_refuses_what_is_not_there(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"split 'querry'. Did you mean 'query'.* reference, query"):
        catalog.select(split="querry")
    with pytest.raises(ValueError, match="label 'can'"):
        catalog.select(label=["tin", "can"])
    with pytest.raises(ValueError, match="reference:packshot, query:real"):
        catalog.select(split="query", domain="packshot")


def test_take_keeps_the_order_asked_for(catalog: Catalog) -> None:
    taken = catalog.take(np.array([3, 0, 3]))
    assert list(taken.frame["path"]) == ["photos/tin/2.jpg", "ref/tin/1.jpg", "photos/tin/2.jpg"]
    assert list(taken.frame.index) == [0, 1, 2]
    assert len(catalog.take(np.array([]))) == 0


@pytest.mark.parametrize("rows", [[-1], [4], [0.0, 1.0], [True, False, True, False], [[0]]])
def test_take_refuses_other_rows(catalog: Catalog, rows: list[object]) -> None:
    with pytest.raises(IndexError, match="from 0 to 3"):
        catalog.take(np.array(rows))


def test_summary_counts_by_hand(catalog: Catalog) -> None:
    rows = list(catalog.summary().itertuples(index=False, name=None))
    assert rows == [
        ("shop", "reference", "packshot", 1, 1, 0, 1, 1.0, 1),
        ("shop", "query", "real", 3, 2, 0, 1, 1.5, 2),
    ]


def test_fingerprint_depends_on_content_alone(catalog: Catalog, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "shop", moved / "shop")
    shutil.copy(tmp_path / "shop.md", moved / "shop.md")
    assert open_catalog(str(moved / "shop.md"), moved).fingerprint == catalog.fingerprint
    reindexed = replace(catalog, frame=catalog.frame.set_index(np.array([9, 7, 5, 3])))
    assert reindexed.fingerprint == catalog.fingerprint
    assert catalog.take(np.array([1, 0, 2, 3])).fingerprint != catalog.fingerprint
    for name in COLUMNS:
        changed = catalog.frame.copy()
        changed.loc[3, name] = 7 if name == "camera" else "x"
        assert replace(catalog, frame=changed).fingerprint != catalog.fingerprint, name


def test_fingerprint_spelled_out(catalog: Catalog) -> None:
    """Caches and records of earlier runs hold fingerprints: a change of this rule orphans them."""
    row = {"path": "ref/tin/1.jpg", "label": "tin", "split": "reference", "domain": "packshot", "source": "shop"}
    spelled = b""
    for name in ("path", "label", "split", "camera", "group", "domain", "source"):
        # A length as eight bytes, then the text; a missing value has the length -1.
        length = len(row[name]) if name in row else -1
        spelled += f"{name}:1:".encode() + length.to_bytes(8, "little", signed=True) + row.get(name, "").encode()
    assert catalog.take(np.array([0])).fingerprint == hashlib.sha256(spelled).hexdigest()


texts = st.text(alphabet="ab/é\n", max_size=3)


@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.lists(st.tuples(texts, texts), min_size=1, max_size=4)
)
def test_fingerprints_agree_exactly_when_the_rows_do(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> None:
    def fingerprint(rows: list[tuple[str, str]]) -> str:
        frame = pd.DataFrame(rows, columns=["path", "label"], dtype="str").assign(split="a", domain="real", source="s")
        # An empty text and a missing value are different things.
        frame["group"] = frame["label"].mask(frame["label"] == "a")
        frame["camera"] = pd.Series(pd.NA, index=frame.index, dtype="Int64")
        return Catalog(frame[list(COLUMNS)], {}, {}, {}).fingerprint

    assert (fingerprint(left) == fingerprint(right)) == (left == right)


def test_several_sets_prefix_only_the_labels_that_collide(tmp_path: Path) -> None:
    one = make_card(tmp_path, "one", ["tin/1.jpg", "box/1.jpg"], extra="options: {domains: {train: synthetic}}")
    two = make_card(tmp_path, "two", ["tin/1.jpg", "can/1.jpg"])
    both = open_catalog(f"{one} + {two}", tmp_path)
    assert list(both.labels) == ["box", "one/tin", "can", "two/tin"]
    assert list(both.frame["source"]) == ["one", "one", "two", "two"]
    assert list(both.frame["domain"]) == ["synthetic", "synthetic", "real", "real"]
    assert both.image_paths()[3] == tmp_path / "two" / "tin" / "1.jpg"
    assert list(both.cards) == list(both.roots) == list(both.missing_splits) == ["one", "two"]
    # The same label twice in one set is no collision.
    assert list(open_catalog(two, tmp_path).labels) == ["can", "tin"]


def test_junk_and_distractors_keep_their_meaning_among_several_sets(tmp_path: Path) -> None:
    files = ["bounding_box_test/-1_c1s1_1_0.jpg", "bounding_box_test/0000_c1s1_2_0.jpg", "query/0001_c1s1_3_0.jpg"]
    people = make_card(tmp_path, "people", files, task="reid")
    animals = make_card(tmp_path, "animals", files, task="reid")
    goods = make_card(tmp_path, "goods", ["0/1.jpg", "2/1.jpg"])
    labels = list(open_catalog("+".join([people, animals, goods]), tmp_path).labels)
    assert labels == ["people/0001", "-1", "0", "animals/0001", "-1", "0", "goods/0", "2"]


def test_mixtures_that_are_refused(tmp_path: Path) -> None:
    one = make_card(tmp_path, "one", ["tin/1.jpg", "two/tin/1.jpg"])
    for data, message in ((f"{one}+{one}", "names a set twice"), (f"{one}+", "does not name"), ("", "does not name")):
        with pytest.raises(ValueError, match=message):
            open_catalog(data, tmp_path)
    again = tmp_path / "again.md"
    shutil.copy(tmp_path / "one.md", again)
    with pytest.raises(LayoutError, match="2 images belong to several of one, again"):
        open_catalog(f"{one}+{again}", tmp_path / "one")


def test_a_card_in_a_folder_with_a_plus_is_one_card(tmp_path: Path) -> None:
    folder = tmp_path / "a+b"
    assert len(open_catalog(make_card(folder, "one", ["tin/1.jpg"]), folder)) == 1


def test_a_class_with_one_image_is_fine_and_counts_are_held_against_the_card(tmp_path: Path) -> None:
    files = ["tin/1.jpg", "box/1.jpg"]
    assert (
        len(open_catalog(make_card(tmp_path, "one", files, extra="splits: {train: {images: 2, labels: 2}}"), tmp_path))
        == 2
    )
    with pytest.raises(CountMismatch, match=r"train +3 +2 +2 +2"):
        open_catalog(make_card(tmp_path, "one", files, extra="splits: {train: {images: 3, labels: 2}}"), tmp_path)


def test_the_template_reads_a_folder_as_it_says(tmp_path: Path) -> None:
    shutil.copy(read_card("template").path, tmp_path / "my_products.md")
    for file in ("reference/007/front.jpg", "query/007/monday/1.jpg"):
        (tmp_path / "my_products" / file).parent.mkdir(parents=True)
        (tmp_path / "my_products" / file).touch()
    catalog = open_catalog(str(tmp_path / "my_products.md"), tmp_path)
    rows = list(catalog.frame[["label", "split", "domain"]].itertuples(index=False, name=None))
    assert rows == [("007", "reference", "packshot"), ("007", "query", "real")]


@pytest.mark.photographs
def test_real_sets_together(grocery_store_root: Path, nyala_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(grocery_store_root.parent))
    if nyala_root.parent != grocery_store_root.parent:
        pytest.skip("PHOTOGRAPHS NOT RUN: the two sets lie in different folders.")
    both = open_catalog("grocery_store+nyala_market1501")
    alone = [open_catalog(name) for name in ("grocery_store", "nyala_market1501")]
    assert len(both) == len(alone[0]) + len(alone[1])
    assert list(both.labels) == [*alone[0].labels, *alone[1].labels]


def test_thin_keeps_labels_that_queries_and_references_share(catalog: Catalog) -> None:
    assert list(catalog.thin(1, 1).frame["path"]) == ["ref/tin/1.jpg", "photos/tin/1.jpg"]
    assert list(catalog.thin(1, 5).frame["path"]) == ["ref/tin/1.jpg", "photos/tin/1.jpg", "photos/tin/2.jpg"]
    assert list(catalog.thin(2, 1).frame["path"]) == ["ref/tin/1.jpg", "photos/box/1.jpg", "photos/tin/1.jpg"]
    assert len(catalog.thin(9, 9)) == len(catalog)
