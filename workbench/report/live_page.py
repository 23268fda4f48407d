"""Live figures in a notebook's page, and what the page needs for them.

Plotly's own widget sends five megabytes of script with each figure, which a browser reads anew each time. Here the page gets
them once.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

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

    def on_pick(self, listener: Callable[[list[Any]], None]) -> None:
        """Calls `listener` with the `customdata` of the points of each click and each lasso.

        Plotly's own callbacks (`trace.on_click` and the like) are silent here: a busy kernel would miss some.
        """
        self.on_msg(lambda _, said, __: listener(said["picked"]) if said.get("kind") == "pick" else None)


def is_live() -> bool:
    """Whether somebody sits before the notebook; its page is made ready for live figures then. False in a headless run."""
    live = "WORKBENCH_RUN" not in os.environ
    if live:
        _page()
    return live


@cache
def _page() -> LivePage:
    return LivePage(script=(resources.files("plotly") / "package_data" / "widgetbundle.js").read_text())
