import numpy as np
import pytest
from bs4 import BeautifulSoup
from IPython.display import HTML
from PIL import Image

from workbench.report.ranked_pictures import RankedAnswer, RankedPictures, ranked_sheet

HOSTILE = "<img src=x onerror=window.hacked=1>\"'"


def _soup(output: HTML) -> BeautifulSoup:
    return BeautifulSoup(output.data, "html.parser")


def _list(caption: str = "17, camera 1") -> RankedPictures:
    upright = Image.new("RGB", (32, 64))
    answers = [
        RankedAnswer(upright, "junk", float("nan"), caption),
        RankedAnswer(upright, "wrong", 1.0, "0, camera 2"),
        RankedAnswer(np.zeros((64, 32, 3), np.uint8), "right", 2.5, "17, camera 3"),
    ]
    return RankedPictures(upright, caption, answers)


def test_answers_stand_in_their_order_with_sign_word_and_place() -> None:
    soup = _soup(ranked_sheet([_list()], title="One query"))
    assert [mark.text for mark in soup.find_all("b")] == ["Query", "○ junk", "✗ wrong", "✓ right"]
    lines = [line.text for line in soup.find_all("span")]
    assert lines == ["no place", "17, camera 1", "place 1", "0, camera 2", "place 2.5", "17, camera 3"]
    assert [image["alt"] for image in soup.find_all("img")] == [
        "Query: 17, camera 1",
        "○ junk, no place: 17, camera 1",
        "✗ wrong, place 1: 0, camera 2",
        "✓ right, place 2.5: 17, camera 3",
    ]
    kinds = [cell["class"] for cell in soup.find(class_="wb-answers").find_all("div")]  # type: ignore[union-attr]
    assert kinds == [["wb-junk"], ["wb-wrong"], ["wb-right"]]
    assert soup.find("figcaption").text == "17, camera 1"  # type: ignore[union-attr]


def test_each_mark_has_a_line_of_its_own() -> None:
    style = _soup(ranked_sheet([_list()])).find("style").text  # type: ignore[union-attr]
    lines = [
        f".wb-ranked .wb-{mark} img {{border: 3px {line}"
        for mark, line in (("right", "solid"), ("wrong", "dashed"), ("junk", "dotted"))
    ]
    assert all(line in style for line in lines)


@pytest.mark.parametrize(("size", "ratio", "cell"), [((30, 60), "0.500", "4.3"), ((90, 60), "1.500", "5.6")])
def test_frames_take_the_shape_of_the_pictures(size: tuple[int, int], ratio: str, cell: str) -> None:
    picture = Image.new("RGB", size)
    sheet = ranked_sheet([RankedPictures(picture, "a", [RankedAnswer(picture, "right", 1.0, "a")])])
    assert f"--wb-ratio:{ratio};--wb-cell:{cell}rem" in sheet.data


def test_text_from_data_is_escaped() -> None:
    soup = _soup(ranked_sheet([_list(HOSTILE)], title=HOSTILE))
    assert not soup.find_all("img", src="x")
    assert soup.find("figcaption").text == HOSTILE  # type: ignore[union-attr]


def test_nothing_to_show_is_said_and_other_marks_are_refused() -> None:
    assert "No ranked lists." in ranked_sheet([]).data
    picture = Image.new("RGB", (8, 8))
    assert "No answers." in ranked_sheet([RankedPictures(picture, "a", [])]).data
    wrong = RankedPictures(picture, "a", [RankedAnswer(picture, "maybe", 1.0, "a")])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="right, wrong, junk; found 'maybe'"):
        ranked_sheet([wrong])
