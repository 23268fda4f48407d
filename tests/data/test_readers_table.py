"""A table of pictures is read as it stands: labels are text, boxes are numbers, and nothing is guessed."""

from pathlib import Path

import pandas as pd
import pytest

from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

LONG = "é" * 100 + ".JPG"


def open_table(
    folder: Path, table: str | bytes | pd.DataFrame, files: list[str], name: str = "rows.csv", more: str = ""
) -> Catalog:
    root = folder / "goods"
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root.mkdir(exist_ok=True)
    if isinstance(table, pd.DataFrame):
        table.to_parquet(root / name)
    else:
        (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    card = folder / "goods.md"
    card.write_text(
        f"---\ntitle: g\ntask: recognition\nreader: table\noptions: {{table: {name}{more}}}\nlicence: none\nsource: here\n"
        "layout: a table\n---\n"
    )
    return open_catalog(str(card), folder)


def rows_of(catalog: Catalog, *columns: str) -> list[tuple[object, ...]]:
    frame = catalog.frame[list(columns)].astype(object)
    return list(frame.where(frame.notna(), None).itertuples(index=False, name=None))


def test_every_column_with_blank_lines_windows_ends_and_a_mark_at_the_front(tmp_path: Path) -> None:
    text = (
        "\ufeffpath,label,split,camera,group,domain,price,x,y,width,height\r\n"
        "\r\n"
        "a/1.jpg,00123,train,7,drinks,packshot,9,1,2.5,30,40\r\n"
        '"a/b, c.PNG",NA,train,,,,,,,,\r\n'
        f"{LONG},Käse,query,12.0,dairy,real,,-3,0,5,5\r\n"
        "\r\n"
    )
    catalog = open_table(tmp_path, text, ["a/1.jpg", "a/b, c.PNG", LONG])
    assert rows_of(catalog, "path", "label", "split", "camera", "group", "domain") == [
        ("a/1.jpg", "00123", "train", 7, "drinks", "packshot"),
        ("a/b, c.PNG", "NA", "train", None, None, "real"),
        (LONG, "Käse", "query", 12, "dairy", "real"),
    ]
    assert [picture.box for picture in catalog.pictures()] == [(1, 2.5, 30, 40), None, (-3, 0, 5, 5)]


def test_the_least_table(tmp_path: Path) -> None:
    catalog = open_table(tmp_path, "split,path,label\na,1.jpg,0\n", ["1.jpg"])
    assert rows_of(catalog, "path", "label", "split", "camera", "group", "domain", "box_x") == [
        ("1.jpg", "0", "a", None, None, "real", None)
    ]


@pytest.mark.parametrize(("name", "sign", "more"), [("rows.tsv", "\t", ""), ("rows.csv", ";", ", separator: ';'")])
def test_other_separators(tmp_path: Path, name: str, sign: str, more: str) -> None:
    text = "path,label,split\n1.jpg,007,a\n".replace(",", sign)
    assert list(open_table(tmp_path, text, ["1.jpg"], name, more).labels) == ["007"]


def test_a_separator_that_is_not_stated_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no column 'path'; its columns are path;label;split"):
        open_table(tmp_path, "path;label;split\n1.jpg;7;a\n", ["1.jpg"])


def test_parquet_with_text_and_missing_values(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["1.jpg", "2.jpg"],
            "label": pd.Categorical(["007", "7"]),
            "split": "a",
            "camera": [3.0, None],
            "group": ["g", None],
            "x": [1.5, None],
            "y": [0.0, None],
            "width": [2.0, None],
            "height": [3.0, None],
        },
        index=[5, 9],
    )
    catalog = open_table(tmp_path, table, ["1.jpg", "2.jpg"], "rows.parquet")
    assert rows_of(catalog, "path", "label", "camera", "group", "box_x", "box_height") == [
        ("1.jpg", "007", 3, "g", 1.5, 3.0),
        ("2.jpg", "7", None, None, None, None),
    ]


@pytest.mark.parametrize("column", ["label", "split", "group"])
def test_parquet_with_numbers_for_labels_is_refused(tmp_path: Path, column: str) -> None:
    table = pd.DataFrame({"path": ["1.jpg"], "label": ["7"], "split": ["a"], "group": ["g"]}).assign(**{column: [7]})
    with pytest.raises(LayoutError, match=f"{column}s are text, row 1 has 7 .int.: leading zeros are lost already"):
        open_table(tmp_path, table, ["1.jpg"], "rows.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n1.jpg,7\n", "no column 'split'"),
        ("path,label,split,Camera\n1.jpg,7,a,1\n", "column 'Camera', which would not be looked at: write 'camera'"),
        ("path,label,split, x\n1.jpg,7,a,1\n", "write 'x'"),
        ("path,label,split,xmin,ymin\n1.jpg,7,a,1,1\n", "seems to have boxes in xmin, ymin"),
        ("path,label,split,x,y\n1.jpg,7,a,1,1\n", "has x, y but not all of x, y, width, height"),
        ('path,label,split,x,y,width,height\n1.jpg,7,a,1,"1,5",2,2\n', "y wants numbers, px; row 1 has '1,5'"),
        ("path,label,split\n1.jpg,7,a\n1.jpg,,a\n,7,a\n", "1 rows have no path: 3"),
        ("path,label,split\n1.jpg,7,a\n2.jpg,,a\n", "1 rows have no label: 2"),
        ("path,label,split\n1.jpg,7\n", "1 rows have no split: 1"),
        ("path,label,split\n1.jpg,7,a\n9.jpg,7,a\n", "1 of 2 files listed in rows.csv are not in .*: 9.jpg"),
        ("path,label,split\n1.JPG,7,a\n", "are not in .*: 1.JPG"),
        ("path,label,split\n../1.jpg,7,a\n", "do not stay inside the data set"),
        ("path,label,split\n/etc/1.jpg,7,a\n", "do not stay inside the data set"),
        ("path,label,split\n1.jpg,7,a\n./1.jpg,8,a\n", "parts that say nothing: ./1.jpg"),
        ("path,label,split\n1.jpg,7,a\n1.jpg,7,b\n", "more than once"),
        ("path,label,split,camera\n1.jpg,7,a,left\n", "camera wants numbers; row 1 has 'left'"),
        ("path,label,split,camera\n1.jpg,7,a,1.5\n", "cameras are whole numbers, row 1 has '1.5'"),
        ("path,label,split,domain\n1.jpg,7,a,drawn\n", "has the domains drawn"),
        ("path,label,split\n1.jpg,7,a,b\n", "more fields than its first line"),
        ("path,label,split\n", "holds no image"),
        ("", "cannot be read as a table"),
        (b"path,label,split\n1.jpg,K\xe4se,a\n", "save it as UTF-8"),
        ("path,label,split\n1.jpg,Käse,a\n".encode("utf-16"), "save it as UTF-8"),
        ("path,label,split\n1.jpg,Käse,a\n".encode("utf-16-le"), "save it as UTF-8"),
        ("path,label,split\n1.jpg,Kase,a\n".encode("utf-16-be"), "save it as UTF-8"),
        ("path,label,split,label\n1.jpg,7,a,8\n", "column label is there twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        open_table(tmp_path, text, ["1.jpg", "2.jpg"])


def test_a_link_out_of_the_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "far.jpg").touch()
    (tmp_path / "goods").mkdir()
    (tmp_path / "goods" / "near.jpg").symlink_to(tmp_path / "far.jpg")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_table(tmp_path, "path,label,split\nnear.jpg,7,a\n", [])


@pytest.mark.parametrize("more", [", tabel: x.csv", ", separator: ab", ", separator: 7"])
def test_options_are_checked(tmp_path: Path, more: str) -> None:
    with pytest.raises(CardError, match=r"goods\.md cannot be used: .*(tabel|separator)"):
        open_table(tmp_path, "path,label,split\n1.jpg,7,a\n", ["1.jpg"], more=more)


@pytest.mark.parametrize("name", ["rows.xlsx", "7", "../rows.csv"])
def test_the_tables_name_is_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(CardError, match=r"goods\.md cannot be used"):
        open_table(tmp_path, "path,label,split\n", [], name)


def test_a_set_without_its_table_is_not_there(tmp_path: Path) -> None:
    open_table(tmp_path, "path,label,split\n1.jpg,7,a\n", ["1.jpg"])
    (tmp_path / "goods" / "rows.csv").unlink()
    with pytest.raises(MissingDataError, match=r"no file rows\.csv"):
        open_catalog(str(tmp_path / "goods.md"), tmp_path)
