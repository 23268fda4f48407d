import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.display import HTML
from PIL import Image

from workbench.report.pictures import ConfusedPair, pair_sheet, picture_sheet, summary_box, table
from workbench.report.ranked_pictures import RankedAnswer, RankedPictures, ranked_sheet
from workbench.report.twin_pictures import TwinPictures, twin_sheet

HOSTILE = "<img src=x onerror=window.hacked=1>\"'"


def _soup(output: HTML) -> BeautifulSoup:
    return BeautifulSoup(output.data, "html.parser")


def _decoded(image: Any) -> Image.Image:
    kind, content = image["src"].split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_sheet_keeps_order_size_and_colour() -> None:
    red = Image.new("RGB", (200, 100), (255, 0, 0))
    blue = np.zeros((30, 30, 3), np.uint8) + np.array([0, 0, 255], np.uint8)
    soup = _soup(picture_sheet([red, blue], ["red", "blue"], columns=2, thumb_px=64, title="Two"))
    images = soup.find_all("img")
    assert [image["alt"] for image in images] == ["red", "blue"]
    assert [caption.text for caption in soup.find_all("figcaption")] == ["red", "blue"]
    first, second = map(_decoded, images)
    assert first.size == (64, 32)
    assert second.size == (30, 30)
    red_pixel = first.convert("RGB").getpixel((10, 10))
    assert isinstance(red_pixel, tuple)
    assert red_pixel[0] > 240
    assert red_pixel[2] < 15


def test_where_a_picture_cannot_be_shown_every_sheet_says_why() -> None:
    reason = "truncated: OSError: <b>"
    picture = Image.new("RGB", (32, 32))
    twins = TwinPictures(reason, picture, "query", "reference", "a", "b", "alike", True)
    sheets = [
        picture_sheet([reason, picture]),
        pair_sheet([ConfusedPair(picture, reason, picture, "a", "b", "c")]),
        ranked_sheet([RankedPictures(reason, "a", [RankedAnswer(picture, "right", 1.0, "a")])]),
        ranked_sheet([RankedPictures(picture, "a", [RankedAnswer(reason, "right", 1.0, "a")])]),
        twin_sheet([twins]),
    ]
    for sheet in sheets:
        soup = _soup(sheet)
        assert [one.text for one in soup.find_all(class_="wb-missing")] == [f"No picture: {reason}"]
        assert soup.find_all("img")


def test_grey_and_transparent_pictures() -> None:
    images: list[Image.Image | np.ndarray] = [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)),
    ]
    decoded = [_decoded(image) for image in _soup(picture_sheet(images)).find_all("img")]
    assert [image.mode for image in decoded] == ["RGB", "RGB", "RGBA"]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Wanted a uint8 picture.* found float64 \(2, 2, 3\)"):
        picture_sheet([np.zeros((2, 2, 3))])
    with pytest.raises(ValueError, match="found 1 captions for 2 images"):
        picture_sheet([np.zeros((2, 2), np.uint8)] * 2, ["one"])
    with pytest.raises(ValueError, match="at least 1 column"):
        picture_sheet([], columns=0)


def test_nothing_to_show_is_said() -> None:
    assert "No pictures." in picture_sheet([]).data
    assert "No confused pairs." in pair_sheet([]).data


def test_pairs_are_marked_without_colour() -> None:
    picture = Image.new("RGB", (8, 8))
    soup = _soup(pair_sheet([ConfusedPair(picture, picture, picture, "q.jpg", "oat milk", "soy milk", "3 of 7")]))
    assert [mark.text for mark in soup.find_all("b")] == ["Query", "✗ Taken for", "✓ Right answer"]
    assert [image["alt"] for image in soup.find_all("img")] == [
        "Query: q.jpg",
        "✗ Taken for: oat milk",
        "✓ Right answer: soy milk",
    ]
    assert soup.find("figcaption").text == "3 of 7"  # type: ignore[union-attr]


def test_table_formats_aligns_and_fills_gaps() -> None:
    frame = pd.DataFrame({"class": ["007", None], "accuracy (%)": [0.5, np.nan], "n": [1234, 5]})
    soup = _soup(table(frame, caption="Accuracy, n = 1,239", formats={"accuracy (%)": ".1%"}))
    cells = [[cell.text for cell in row.find_all(["th", "td"])] for row in soup.find_all("tr")]
    assert cells == [["class", "accuracy (%)", "n"], ["007", "50.0%", "1,234"], ["–", "–", "5"]]
    assert [cell.get("class") for cell in soup.find_all("tr")[1].find_all(["th", "td"])] == [
        None,
        ["wb-number"],
        ["wb-number"],
    ]
    assert "Accuracy, n = 1,239" in soup.find("p", class_="wb-caption").text  # type: ignore[union-attr]


def test_table_refuses_a_format_for_a_column_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"\['b'\].*\['a'\]"):
        table(pd.DataFrame({"a": [1]}), caption="", formats={"b": ".1f"})


def test_empty_table_keeps_its_header() -> None:
    assert [cell.text for cell in _soup(table(pd.DataFrame({"a": []}), caption="none")).find_all("th")] == ["a"]


def test_summary_box_holds_question_answer_and_protocol() -> None:
    soup = _soup(summary_box("How good?", "62 % (60 to 64)", "1 shot, micro", {"chance": "1 %"}))
    assert [line.text for line in soup.find_all(["p", "dt", "dd"])] == [
        "How good?",
        "62 % (60 to 64)",
        "1 shot, micro",
        "chance",
        "1 %",
    ]


def test_hostile_names_are_text_everywhere() -> None:
    picture = Image.new("RGB", (8, 8))
    pair = ConfusedPair(picture, picture, picture, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    for output in (
        picture_sheet([picture], [HOSTILE], title=HOSTILE),
        pair_sheet([pair], title=HOSTILE),
        table(pd.DataFrame({HOSTILE: [HOSTILE]}), caption=HOSTILE),
        summary_box(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}),
    ):
        soup = _soup(output)
        assert soup.find_all(onerror=True) == []
        assert all(image["src"].startswith("data:image/webp") for image in soup.find_all("img"))  # type: ignore[union-attr]
        assert HOSTILE in soup.get_text()
