import subprocess
import sys

import plotly.graph_objects as go
import plotly.io as pio
import pytest

from workbench.report.style import finish


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
