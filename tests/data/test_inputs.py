"""What people name on a command line becomes a list of pictures and boxes: nothing is lost, nothing is guessed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.data.boxes import Box
from workbench.data.images import ImageError, cut_box
from workbench.data.inputs import gather_inputs, read_table


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def table_of(folder: Path, text: str) -> Path:
    path = folder / "boxes.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    touch(
        tmp_path / "shelf", "b.JPG", "a.png", "z/1.heic", "c/2.avif", ".hidden.jpg", ".git/x.jpg", "notes.txt", "x.csv"
    )
    (tmp_path / "far").mkdir()
    (tmp_path / "shelf" / "linked").symlink_to(tmp_path / "far")
    inputs, notes = gather_inputs([str(tmp_path / "shelf")])
    assert [str(one.path.relative_to(tmp_path / "shelf")) for one in inputs] == [
        "a.png",
        "b.JPG",
        "c/2.avif",
        "z/1.heic",
    ]
    assert [one.name for one in inputs] == [str(one.path) for one in inputs]
    assert all(one.box is None and one.label is None and not one.fault for one in inputs)
    assert notes == [
        f"{tmp_path / 'shelf'}: 2 files or folders that are hidden or that systems and photo programs make are left out: .git, "
        ".hidden.jpg",
        f"{tmp_path / 'shelf'}: 2 files without a picture's suffix left out: notes.txt, x.csv",
        f"{tmp_path / 'shelf'}: linked folders are not walked: {tmp_path / 'shelf' / 'linked'}",
    ]


def test_files_stay_in_the_order_given_and_may_repeat(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "no suffix", "d/a.jpg")
    given = [str(tmp_path / name) for name in ("b.jpg", "no suffix", "d", "b.jpg")]
    inputs, _ = gather_inputs(given)
    assert [one.path.name for one in inputs] == ["b.jpg", "no suffix", "a.jpg", "b.jpg"]


def test_a_name_that_is_no_utf8_can_be_written(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    try:
        open(path, "wb").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    inputs, _ = gather_inputs([str(tmp_path)])
    assert inputs[0].name == f"{tmp_path}/caf\\xe9.jpg"
    assert inputs[0].path.exists()


def test_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.txt", "photos/shelf.jpg")
    table = table_of(tmp_path, "path,x,y,width,height\n")
    for text in (str(tmp_path / "empty"), str(table)):
        with pytest.raises(ValueError, match="holds no picture"):
            gather_inputs([text])
    with pytest.raises(ValueError, match=r"There is no file, folder, table or data card .*Did you mean .*shelf\.jpg\?"):
        gather_inputs([str(tmp_path / "photos" / "shelff.jpg")])


def test_rows_of_a_table_keep_labels_boxes_and_faults(tmp_path: Path) -> None:
    rows = [
        "\ufeffpath,label,x,y,width,height,price",
        "a.jpg,00123,1,2.5,30,40,9",
        '"b, c.jpg",NA,,,,,9',
        "/abs/d.jpg, 7 ,0,0,0,5,9",
        "e.jpg,,1,,3,4,9",
        "f.jpg,x,inf,0,1,1,9",
        ",x,1,1,1,1,9",
    ]
    inputs, notes = read_table(table_of(tmp_path, "\r\n".join(rows)))
    assert notes == []
    assert [one.path for one in inputs[:3]] == [tmp_path / "a.jpg", tmp_path / "b, c.jpg", Path("/abs/d.jpg")]
    assert [one.label for one in inputs] == ["00123", "NA", " 7 ", None, "x", "x"]
    assert [one.box for one in inputs[:3]] == [Box(1, 2.5, 30, 40), None, Box(0, 0, 0, 5)]
    assert [one.fault for one in inputs] == [
        "",
        "",
        "the box is empty: 0 x 5 px",
        "the box wants four finite numbers (x, y, width, height), or none for the whole picture",
        "the box wants four finite numbers (x, y, width, height), or none for the whole picture",
        "row 6 of boxes.csv has no path",
    ]
    assert [one.name for one in inputs[:3]] == ["a.jpg", "b, c.jpg", "/abs/d.jpg"]
    elsewhere, _ = read_table(tmp_path / "boxes.csv", tmp_path / "photos")
    assert elsewhere[0].path == tmp_path / "photos" / "a.jpg"


def test_a_parquet_table_gives_the_same_rows_as_csv(tmp_path: Path) -> None:
    labels = pd.Series(["007", None], dtype="str")
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": labels, "x": [1.5, np.nan]})
    frame = frame.assign(y=[0, np.nan], width=[3, np.nan], height=[4, np.nan])
    frame.to_parquet(tmp_path / "boxes.parquet")
    frame.to_csv(tmp_path / "boxes.csv", index=False)
    assert read_table(tmp_path / "boxes.parquet") == read_table(tmp_path / "boxes.csv")
    assert read_table(tmp_path / "boxes.parquet")[0][0].box == Box(1.5, 0, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path;x;y\na;1;2\n", "has no column 'path'; its columns are path;x;y"),
        ("path,x,y,width\na,1,2,3\n", "has x, y, width but not all of x, y, width, height"),
        ("path,xmin,ymin,xmax,ymax\na,1,2,3,4\n", "seems to have boxes in xmax, xmin, ymax, ymin"),
        ('path,x,y,width,height\na,1,"2,5",3,4\n', "y wants numbers, px; row 1 has '2,5'"),
        ("path,label\na,b.jpg,x\nc,d.jpg,y\n", "more fields than its first line"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"boxes\.csv") as refused:
        read_table(table_of(tmp_path, text))
    assert message in str(refused.value)


def test_labels_that_have_lost_their_zeros_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"path": ["a.jpg"], "label": [123]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"row 1 has 123 \(int\): leading zeros are lost"):
        read_table(tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_table(tmp_path / "broken.parquet")


def test_a_card_gives_its_pictures_with_labels(tmp_path: Path) -> None:
    touch(tmp_path / "mine", "ref/007/a.jpg", "ref/7/b.jpg", "shelf/007/c.jpg")
    fields = "title: Mine\ntask: recognition\nreader: image_folder\nlicence: own\nsource: here\nlayout: any\n"
    options = "options: {split_folders: {reference: ref, query: shelf}}\n"
    (tmp_path / "mine.md").write_text(f"---\n{fields}{options}---\n")
    given = [str(tmp_path / "mine.md")]
    everything, _ = gather_inputs(given, tmp_path)
    assert [(one.name, one.label) for one in everything] == [
        ("ref/007/a.jpg", "007"),
        ("ref/7/b.jpg", "7"),
        ("shelf/007/c.jpg", "007"),
    ]
    assert [one.path for one in gather_inputs(given, tmp_path, split="query")[0]] == [tmp_path / "mine/shelf/007/c.jpg"]
    with pytest.raises(ValueError, match="Did you mean 'query'"):
        gather_inputs(given, tmp_path, split="querry")


# A picture whose pixel at column x, row y is (x, y, 0), 20 wide and 10 high.
PICTURE = Image.fromarray(
    np.stack([*np.meshgrid(np.arange(20), np.arange(10)), np.zeros((10, 20), int)], axis=2).astype(np.uint8)
)


@pytest.mark.parametrize(
    ("box", "first", "last", "note"),
    [
        (Box(3, 2, 4, 5), (3, 2), (6, 6), ""),
        (Box(2.5, 2.49, 4, 5), (3, 2), (6, 6), ""),  # halves go upwards: 2.5 to 3, 6.5 to 7; 7.49 to 7
        (Box(0, 0, 20.4, 10.4), (0, 0), (19, 9), ""),
        (Box(-5, -1, 8, 4), (0, 0), (2, 2), "box clipped at the border of the picture of 20 x 10 px"),
        (Box(15, 8, 1e300, 9), (15, 8), (19, 9), "box clipped at the border of the picture of 20 x 10 px"),
    ],
)
def test_boxes_are_cut_to_the_pixel(box: Box, first: tuple[int, int], last: tuple[int, int], note: str) -> None:
    part, said = cut_box(PICTURE, box, "p")
    assert said == note
    assert part.getpixel((0, 0)) == (*first, 0)
    assert part.getpixel((part.width - 1, part.height - 1)) == (*last, 0)
    assert part.size == (last[0] - first[0] + 1, last[1] - first[1] + 1)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (Box(20, 0, 5, 5), "outside the picture of 20 x 10 px"),
        (Box(-9, 0, 9, 5), "outside the picture"),
        (Box(0, -3, 5, 3), "outside the picture"),
        (Box(3.6, 0, 0.3, 5), "less than a pixel wide or high: 0.3 x 5 px"),
    ],
)
def test_a_box_without_a_pixel_is_refused(box: Box, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        cut_box(PICTURE, box, "p")
