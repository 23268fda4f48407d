"""One Unicode form of each label wherever it comes from, look-alikes that are named, and names that messages show unmistakably."""

import json
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.catalog import Catalog, open_catalog
from workbench.data.class_texts import read_class_names
from workbench.data.inputs import gather_inputs
from workbench.data.labels import as_label, join_forms, look_alikes
from workbench.data.readers.listing import LayoutError, few

COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"  # the second is what a Mac writes
JOINED = "are there in several Unicode forms and joined: Caf\u00e9 ("


def open_set(folder: Path, reader: str, options: str = "") -> Catalog:
    (folder / "mine.md").write_text(
        f"---\ntitle: m\ntask: recognition\nreader: {reader}\nlicence: none\nsource: here\nlayout: any\n{options}\n---\n"
    )
    return open_catalog(str(folder / "mine.md"), folder / "set")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_class_folders_in_two_forms_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path / "set", f"{COMPOSED}/1.jpg", f"{DECOMPOSED}/2.jpg", "Tee/3.jpg")
    catalog = open_set(tmp_path, "image_folder")
    assert sorted(catalog.labels) == [COMPOSED, COMPOSED, "Tee"]
    assert {Path(picture.path).parent.name for picture in catalog.pictures()} == {COMPOSED, DECOMPOSED, "Tee"}
    assert all(picture.path.is_file() for picture in catalog.pictures()), "paths stay as they are on the disk"
    (note,) = catalog.notes
    assert JOINED in note
    assert r"'Cafe\u0301'" in note
    assert r"'Caf\xe9'" in note
    assert len(catalog.select(label=DECOMPOSED)) == 2
    assert read_class_names(catalog, {DECOMPOSED: "coffee", "Tee": "tea"}) == {COMPOSED: "coffee", "Tee": "tea"}


def test_tables_and_coco_have_the_same_rule(tmp_path: Path) -> None:
    touch(tmp_path / "set", "1.jpg", "2.jpg")
    rows = f"path,label,split,group\n1.jpg,{COMPOSED},t,{DECOMPOSED}\n2.jpg,{DECOMPOSED},t,{COMPOSED}\n"
    (tmp_path / "set" / "rows.csv").write_text(rows, encoding="utf-8")
    catalog = open_set(tmp_path, "table", "options: {table: rows.csv}")
    assert list(catalog.labels) == [COMPOSED] * 2
    assert catalog.frame["group"].tolist() == [COMPOSED] * 2
    assert len(catalog.notes) == 2
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "categories": [{"id": 1, "name": COMPOSED}, {"id": 2, "name": DECOMPOSED}],
        "annotations": [{"image_id": one, "category_id": one, "bbox": [1, 1, 9, 9]} for one in (1, 2)],
    }
    (tmp_path / "set" / "boxes.json").write_text(json.dumps(content))
    assert list(open_set(tmp_path, "coco", "options: {annotations: {t: boxes.json}}").labels) == [COMPOSED] * 2
    for name in ("rows.csv", "boxes.json"):
        assert [one.label for one in gather_inputs([str(tmp_path / "set" / name)])[0]] == [COMPOSED] * 2


def test_a_set_of_one_form_has_no_note(tmp_path: Path) -> None:
    touch(tmp_path / "set", f"{DECOMPOSED}/1.jpg")
    catalog = open_set(tmp_path, "image_folder")
    assert list(catalog.labels) == [COMPOSED]
    assert catalog.notes == ()


def test_a_listed_file_in_another_form_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "set", f"{DECOMPOSED}/1.jpg")
    (tmp_path / "set" / "rows.csv").write_text(f"path,label,split\n{COMPOSED}/1.jpg,x,t\n", encoding="utf-8")
    with pytest.raises(LayoutError) as refused:
        open_set(tmp_path, "table", "options: {table: rows.csv}")
    assert r"in another Unicode form, 'Cafe\u0301/1.jpg', listed as 'Caf\xe9/1.jpg'" in str(refused.value)


def test_missing_values_stay_missing() -> None:
    column, notes = join_forms(pd.Series([None, DECOMPOSED, None], dtype="str", name="group"))
    assert column.isna().tolist() == [True, False, True]
    assert column[1] == COMPOSED
    assert notes == []
    assert join_forms(pd.Series([None], dtype="str", name="group"))[0].isna().all()


@given(st.text())
def test_canonically_equal_texts_are_one_label_and_no_others_are(text: str) -> None:
    label = as_label(text)
    assert as_label(unicodedata.normalize("NFD", text)) == label == as_label(label)
    assert unicodedata.normalize("NFD", label) == unicodedata.normalize("NFD", text)


def test_labels_that_look_alike() -> None:
    labels = ["cola", "Cola", "Tee", "Tee ", "ｍilk", "milk", "water", "a  b", "a b", "STRASSE", "straße", "cola"]
    assert look_alikes(labels) == [
        ["Cola", "cola"],
        ["STRASSE", "straße"],
        ["Tee", "Tee "],
        ["a  b", "a b"],
        ["milk", "ｍilk"],
    ]
    assert look_alikes(["a", "b", "a-b", "ab"]) == []


def test_messages_quote_what_would_mislead() -> None:
    assert few(["plain", "with blanks", "Ü/ø.jpg"]) == "plain, with blanks, Ü/ø.jpg"
    assert few(["Tee ", "Tee", " x", "", "a\u00a0b", "tab\t"]) == r"'Tee ', Tee, ' x', '', 'a\xa0b' and 1 more"
    assert few([COMPOSED, DECOMPOSED, "Tee"]) == r"'Caf\xe9', 'Cafe\u0301', Tee"
    assert few([DECOMPOSED, DECOMPOSED, "7"]) == f"{DECOMPOSED}, {DECOMPOSED}, 7"
