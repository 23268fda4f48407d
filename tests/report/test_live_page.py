"""Live figures: small to send, drawn with the page's plotly; nothing is sent in a headless run."""

import plotly.graph_objects as go
import pytest

from workbench.report import live_page
from workbench.report.live_page import LiveFigure, is_live


def test_plotly_is_sent_once_and_not_with_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_RUN", raising=False)
    live_page._page.cache_clear()
    figures = [LiveFigure(go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))) for _ in range(2)]
    page = live_page._page()
    assert live_page._page.cache_info().misses == 1
    assert "newPlot" in page.script
    assert len(page.script) > 1_000_000
    assert all(len(figure.get_state()["_esm"]) < 5_000 for figure in figures)
    assert f'"{page.version}"' in figures[0].get_state()["_esm"]
    assert list(figures[0].data[0].y) == [3, 4]


def test_a_headless_run_is_not_live_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    live_page._page.cache_clear()
    monkeypatch.setenv("WORKBENCH_RUN", "somewhere")
    assert not is_live()
    assert live_page._page.cache_info().misses == 0
    monkeypatch.delenv("WORKBENCH_RUN")
    assert is_live()
    assert live_page._page.cache_info().misses == 1
