from pathlib import Path

import pytest

from workbench.data.card import read_card
from workbench.data.readers.listing import LayoutError
from workbench.data.readers.synthetic_products import read

TABLE = (
    "path,label,split,camera,group,domain\n"
    "packshots/007.png,007,reference,,brand-1,packshot\n"
    "views/1.png,NA,query,12,,synthetic\n"
)


def make_folder(folder: Path, table: str = TABLE) -> Path:
    for file in ("packshots/007.png", "views/1.png"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (folder / "catalog.csv").write_text(table, encoding="utf-8")
    return folder


def test_the_table_is_read_as_text(tmp_path: Path) -> None:
    frame = read(make_folder(tmp_path), read_card("synthetic_products"))
    assert list(frame["label"]) == ["007", "NA"]
    assert list(frame["domain"]) == ["packshot", "synthetic"]
    assert list(frame["camera"].isna()) == [True, False]
    assert frame["camera"][1] == 12
    assert frame["group"][0] == "brand-1"
    assert list(frame["group"].isna()) == [False, True]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\na,b\n", "lacks the columns"),
        ("", "Cannot read"),
        (TABLE + "gone.png,a,query,,,synthetic\n", "gone.png"),
    ],
)
def test_a_damaged_cache_says_what_to_do(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message) as caught:
        read(make_folder(tmp_path, table), read_card("synthetic_products"))
    assert f"Remove the folder {tmp_path}; it is drawn anew." in str(caught.value)
