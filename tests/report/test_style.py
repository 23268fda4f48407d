import subprocess
import sys

import plotly.graph_objects as go
import plotly.io as pio
import pytest

from workbench.report.style import finish, name_rows, shortened, wrapped


@pytest.mark.parametrize("module", ["gallery_figures", "open_set_figures", "threshold_figures", "reid_figures"])
def test_whichever_module_a_notebook_imports_the_look_is_set(module: str) -> None:
    code = f"import plotly.io as pio, workbench.report.{module}; print(pio.templates.default, pio.renderers.default)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["workbench", "plotly_mimetype"]


def test_a_finished_figure_has_the_look_whatever_the_default_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pio.templates, "default", "plotly")
    figure = go.Figure()
    finish(figure, "A < B", ["n = 3", "", "micro."], 300)
    assert figure.layout.template.layout.colorway[0] == "#0072B2"
    assert figure.layout.title.text == "<b>A &lt; B</b>"
    assert figure.layout.title.subtitle.text == "n = 3. micro."
    assert figure.layout.height == 317


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("a name of thirty letters, just!", "a name of thirt…letters, just!"),
        ("exactly_thirty_letters_in_all_", "exactly_thirty_letters_in_all_"),
        ("Tomato_Ketchup_Hot_Chili_Organic_500g", "Tomato_Ketchup_…i_Organic_500g"),
        ("可口可乐无糖饮料三百三十毫升罐装十二瓶整箱", "可口可乐无糖饮…罐装十二瓶整箱"),
        ("可口可乐无糖饮料三百三十毫升罐", "可口可乐无糖饮料三百三十毫升罐"),  # fifteen signs, thirty letters wide
        ("two   blanks", "two blanks"),
        ("", ""),
    ],
)
def test_long_names_are_cut_in_the_middle(name: str, drawn: str) -> None:
    assert shortened(name) == drawn


def test_marks_upon_letters_take_no_room_and_stay_on_their_letter() -> None:
    assert shortened("e\u0301" * 30) == "e\u0301" * 30
    cut = shortened("e\u0301" * 31)
    assert cut == "e\u0301" * 15 + "…" + "e\u0301" * 14
    # A mark whose letter falls away goes with it: the tail begins with a letter.
    assert shortened("x" * 20 + "可\u0301" + "y" * 13) == "x" * 15 + "…" + "y" * 13


def test_lines_are_as_wide_as_they_look() -> None:
    assert wrapped("可口可乐无糖饮料", 8) == "可口可乐<br>无糖饮料"
    assert wrapped("a <b> c", 42) == "a &lt;b&gt; c"
    assert wrapped("underscores_without_end", 12) == "underscores_<br>without_end"


def test_rows_of_a_figure_show_both_ends_of_a_name() -> None:
    figure = go.Figure()
    name_rows(figure, ["Tomato_Ketchup_Hot_Chili_Organic_500g", "short"], "x", "y", "t", ["n = 2"])
    assert figure.layout.yaxis.ticktext == ("Tomato_Ketchup_…i_Organic_500g", "short")
