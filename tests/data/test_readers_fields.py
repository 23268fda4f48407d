from pathlib import Path

import pandas as pd
import pytest

from workbench.data.readers.fields import join, part_test, read_fields, read_lines, recognition_frame, to_numbers
from workbench.data.readers.listing import LayoutError


def write(folder: Path, content: bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(content)
    return path


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path, "\ufeffa\u2028b c\u0085\r\n\n \t\r\n  007".encode()))
    assert lines.to_dict() == {1: "a\u2028b c\u0085", 4: "  007"}


def test_a_list_that_is_no_text_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"list.txt is not UTF-8 text"):
        read_lines(write(tmp_path, "grün".encode("latin-1")))
    with pytest.raises(LayoutError, match=r"Cannot read .*nothing.txt: No such file"):
        read_lines(tmp_path / "nothing.txt")


def test_the_path_may_hold_spaces_and_fields_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, b"two lines\nof head\n\n 007\t a b/c d.JPG  1e5\r\n008 NA 0\n")
    table = read_fields(path, ("image_id", "path", "flag"), num_header_lines=2)
    assert table.to_dict("index") == {
        4: {"image_id": "007", "path": "a b/c d.JPG", "flag": "1e5"},
        5: {"image_id": "008", "path": "NA", "flag": "0"},
    }


def test_a_line_with_other_fields_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, b"1 a\n\n2\n3\n")
    with pytest.raises(LayoutError, match=r"line 3: wanted 'image_id path', found '2' \(2 such lines\)"):
        read_fields(path, ("image_id", "path"))


def table(ids: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": ids, **columns}, index=range(1, len(ids) + 1), dtype="str")


def test_join_keeps_the_order_and_the_index_of_the_rows() -> None:
    joined = join(table(["2", "1", "2"]), table(["1", "02", "2"], name=["a", "b", "c"]), "image_id", Path("names.txt"))
    assert joined["name"].to_dict() == {1: "c", 2: "a", 3: "c"}


def test_join_refuses_what_is_there_twice_or_not_at_all() -> None:
    with pytest.raises(LayoutError, match=r"names.txt, line 3: the image_id 1 is there twice \(1 such lines\)"):
        join(table(["1"]), table(["1", "2", "1"], name=["a", "b", "c"]), "image_id", Path("names.txt"))
    with pytest.raises(LayoutError, match=r"names.txt lacks 2 of the image_ids in use: 2, 3\."):
        join(table(["1", "2", "3"]), table(["1"], name=["a"]), "image_id", Path("names.txt"))


def test_numbers() -> None:
    fields = table(["1"], x=["-2.5"])
    assert to_numbers(fields[["x"]], Path("boxes.txt"))["x"].to_dict() == {1: -2.5}
    for word in ("inf", "nan", "1,5", ""):
        with pytest.raises(LayoutError, match=r"boxes.txt, line 2: wanted numbers, found '7 .*' \(1 such lines\)"):
            to_numbers(pd.DataFrame({"x": ["1", "7"], "y": ["1", word]}, index=[1, 2], dtype="str"), Path("boxes.txt"))


def test_an_empty_frame_has_the_types_of_a_full_one() -> None:
    empty, full = recognition_frame([], [], "query"), recognition_frame(["a.jpg"], ["007"], "query", ["x"])
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert empty.empty
    with pytest.raises(LayoutError, match="not valid UTF-8"):
        recognition_frame(["caf\udce9.jpg"], ["a"], "query")


def test_the_first_test_images_of_a_label_become_its_references() -> None:
    frame = recognition_frame(list("abcdefg"), list("xxyxyzx"), ["train", *["test"] * 5, "test"])
    assert part_test(frame, 0)["split"].tolist() == ["train", *["test"] * 6]
    # x: b d g, y: c e, z: f. The training image of x is not counted.
    assert part_test(frame, 1)["split"].tolist() == [
        *("train", "reference", "reference", "query", "query", "reference", "query")
    ]
    assert part_test(frame, 2)["split"].tolist() == [
        *("train", "reference", "reference", "reference", "reference", "reference", "query")
    ]
