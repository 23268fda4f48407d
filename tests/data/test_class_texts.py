from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.class_texts import (
    NoClassNamesError,
    read_class_descriptions,
    read_class_groups,
    read_class_names,
)


def _catalog(
    labels: list[str], root: Path, groups: list[str | None] | None = None, task: str = "recognition"
) -> Catalog:
    frame = pd.DataFrame({"path": [f"{n}.png" for n in range(len(labels))], "label": labels})
    frame = frame.assign(
        split="val", domain="real", source="shop", camera=pd.array([pd.NA] * len(labels), dtype="Int64")
    )
    frame["group"] = pd.Series(groups or [None] * len(labels), dtype="str")
    return Catalog(frame, {"shop": root}, {"shop": replace(read_card("grocery_store"), name="shop", task=task)}, {})


def test_labels_that_are_names_are_read(tmp_path: Path) -> None:
    catalog = _catalog(["Royal-Gala", "shop/Oat_Milk", "Royal-Gala", "7up"], tmp_path)
    assert read_class_names(catalog) == {"7up": "7up", "Royal-Gala": "Royal Gala", "shop/Oat_Milk": "Oat Milk"}


@pytest.mark.parametrize(
    "labels",
    [
        ["0000000000109", "0000000000208"],
        ["sku_1", "sku_2", "sku_3"],
        ["Apple", "a7", "Pear"],
        ["SKU-12a", "sku_13A", "sku 14a"],
    ],
)
def test_ids_are_refused_with_what_to_do(labels: list[str], tmp_path: Path) -> None:
    catalog = _catalog(labels, tmp_path)
    with pytest.raises(NoClassNamesError, match=r"ids and not names.*Give names: a mapping"):
        read_class_names(catalog)
    given = {label: f"product {number} " for number, label in enumerate(labels)}
    assert set(read_class_names(catalog, given).values()) == {f"product {number}" for number in range(len(labels))}
    with pytest.raises(ValueError, match="names has none for 1 labels"):
        read_class_names(catalog, dict(list(given.items())[1:]))


def test_individuals_have_no_names(tmp_path: Path) -> None:
    with pytest.raises(NoClassNamesError, match="individuals, which no text names"):
        read_class_names(_catalog(["Anna", "Bert"], tmp_path, task="reid"))


def test_groups_and_descriptions_where_the_set_has_them(tmp_path: Path) -> None:
    catalog = _catalog(["Conference", "shop/Leek", "Milk"], tmp_path, ["Pear", None, "Dairy-Products"])
    assert read_class_groups(catalog) == {"Conference": "Pear", "Milk": "Dairy Products"}
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)"
    rows = [
        f"{label},{n},Any,0,/x/{label}.jpg,/x/{label}_Description.txt"
        for n, label in enumerate(("Conference", "Leek", "Fig"))
    ]
    text = "\n".join([f"{header},Iconic Image Path (str),Product Description Path (str)", *rows])
    (tmp_path / "classes.csv").write_text(text)
    (tmp_path / "x").mkdir()
    for label in ("Conference", "Leek", "Fig"):
        (tmp_path / "x" / f"{label}_Description.txt").write_text(f"{label} is good.\n")
    assert read_class_descriptions(catalog) == {"Conference": "Conference is good.", "shop/Leek": "Leek is good."}
    plain = replace(catalog, cards={"shop": replace(catalog.cards["shop"], reader="image_folder")})
    assert read_class_descriptions(plain) == {}
