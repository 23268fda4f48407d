"""Live figures in a notebook's page, and what the page needs for them.

Plotly's own widget sends five megabytes of script with each figure, which a browser reads anew each time. Here the page gets
them once.
"""

import os
from functools import cache
from importlib import resources
from pathlib import Path

import anywidget
import plotly
import plotly.graph_objects as go
import traitlets

from workbench.report.style import CONFIG

_HERE = Path(__file__).parent


class LivePage(anywidget.AnyWidget):
    """Nothing to see: hands plotly to the page and keeps widgets alive that load while the page is busy."""

    _esm = _HERE / "live_page.js"
    script = traitlets.Unicode().tag(sync=True)
    version = traitlets.Unicode(plotly.__version__).tag(sync=True)


class LiveFigure(go.FigureWidget):
    """A figure whose changes are seen at once: as wide as its place, plotly taken from the page."""

    _esm = (_HERE / "live_figure.js").read_text().replace("VERSION", plotly.__version__)

    def __init__(self, figure: go.Figure) -> None:
        """A live copy of `figure`; the page is made ready if it was not."""
        is_live()
        super().__init__(figure)
        self._config = CONFIG


def is_live() -> bool:
    """Whether somebody sits before the notebook; its page is made ready for live figures then. False in a headless run."""
    live = "WORKBENCH_RUN" not in os.environ
    if live:
        _page()
    return live


@cache
def _page() -> LivePage:
    return LivePage(script=(resources.files("plotly") / "package_data" / "widgetbundle.js").read_text())
