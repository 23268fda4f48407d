import re

import numpy as np
import pytest
from PIL import Image

from workbench.report.twin_pictures import TwinPictures, twin_sheet

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _pair(text: str, is_alarm: bool) -> TwinPictures:
    first, second = Image.new("RGB", (400, 200), "red"), np.zeros((20, 30, 3), dtype=np.uint8)
    return TwinPictures(first, second, f"role {text}", "query", f"one {text}", "two", f"both {text}", is_alarm)


def test_a_sheet_shows_both_pictures_and_marks_alarms_without_colour() -> None:
    html = str(twin_sheet([_pair("a", True), _pair("b", False)], thumb_px=100, title="Twins").data)
    assert html.count("data:image/webp") == 4
    assert re.findall(r'width="(\d+)" height="(\d+)"', html)[:2] == [("100", "50"), ("30", "20")]
    assert html.count("⚠") == 1
    assert html.count('class="wb-wrong"') == 2
    assert html.count('class="wb-right"') == 2
    assert html.index("both a") < html.index("both b")
    assert 'alt="role a: one a"' in html
    assert "Twins" in html


def test_no_pairs_are_said_and_texts_are_text() -> None:
    assert "Nothing found." in str(twin_sheet([], none="Nothing found.").data)
    html = str(twin_sheet([_pair(HOSTILE, True)], title=HOSTILE, none=HOSTILE).data)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x") >= 4
    assert "<img src=x" not in str(twin_sheet([], none=HOSTILE).data)


def test_what_is_no_picture_is_refused() -> None:
    bad = TwinPictures(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), "", "", "", "", "", False)
    with pytest.raises(ValueError, match="uint8 picture"):
        twin_sheet([bad])
