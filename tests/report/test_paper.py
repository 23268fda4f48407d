import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from workbench.report import figures
from workbench.report.paper import save_figure

FIGURE = figures.measure_histogram([1, 2, 2, 3], "sharpness", "px", 2)


@pytest.mark.browser
def test_svg_and_png_of_one_figure(tmp_path: Path) -> None:
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("NO BROWSER: no figure was saved for a paper. Install a Chromium (Debian: apt install chromium).")
    svg, png = save_figure(FIGURE, tmp_path / "new", "fig_1", width_px=600)
    assert (svg, png) == (tmp_path / "new" / "fig_1.svg", tmp_path / "new" / "fig_1.png")
    assert sorted(path.name for path in svg.parent.iterdir()) == ["fig_1.png", "fig_1.svg"]
    text = svg.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert "sharpness" in text
    with Image.open(png) as picture:
        assert picture.size == (3 * 600, 3 * FIGURE.layout.height)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=1 << 24) or ()}
    assert (0, 114, 178) in colours  # the first colour of Okabe and Ito


@pytest.mark.parametrize("name", ["", "a/b", "../a"])
def test_a_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="Wanted the name of a file"):
        save_figure(FIGURE, tmp_path, name)


def test_without_kaleido_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match="pip install 'kaleido"):
        save_figure(FIGURE, tmp_path / "new", "a")
    assert not (tmp_path / "new").exists()


def test_without_a_browser_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def nothing(*_: object, **__: object) -> None:
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", nothing)
    with pytest.raises(RuntimeError, match="install Chromium"):
        save_figure(FIGURE, tmp_path, "a")
    assert list(tmp_path.iterdir()) == []
