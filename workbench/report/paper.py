"""Figures for papers: the same figure as SVG and as PNG, drawn by kaleido in a Chromium of this machine."""

import tempfile
from pathlib import Path

import plotly.graph_objects as go

_SCALE = 3  # 700 px make 18 cm at 300 dots an inch


def save_figure(figure: go.Figure, folder: Path, name: str, *, width_px: int = 700) -> tuple[Path, Path]:
    """The paths of `folder/name.svg` and `folder/name.png`, both written or neither; the PNG has three times the pixels.

    Nothing is loaded from a network, so formulas between dollar signs stay as they are written.

    Args:
        figure: as the functions of this package return it; its height is kept.
        folder: made where it is missing.
        name: of the files, without an ending.
        width_px: of the drawing.

    Raises:
        ValueError: the name is no file name.
        RuntimeError: kaleido or a Chromium is missing, or the drawing failed; the message says what to install.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"Wanted the name of a file without folder and ending, such as fig_accuracy; found {name!r}.")
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError as error:
        raise RuntimeError(
            "SVG and PNG need the package kaleido, which is not here: pip install 'kaleido>=1.5'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    layout = {"width": width_px, "height": figure.layout.height or 450}
    formats = {"svg": {**layout, "scale": 1}, "png": {**layout, "scale": _SCALE}}
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as drawn:
        made = {kind: Path(drawn) / f"{name}.{kind}" for kind in formats}
        jobs = [
            {"fig": figure, "path": made[kind], "opts": {"format": kind, **options}}
            for kind, options in formats.items()
        ]
        try:
            kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"mathjax": False})
        except ChromeNotFoundError as error:
            raise RuntimeError(
                "SVG and PNG are drawn in a browser, and none was found: install Chromium (Debian: apt install chromium)."
            ) from error
        except Exception as error:
            raise RuntimeError(f"{name} was not drawn: {type(error).__name__}: {error}") from error
        svg, png = (made[kind].replace(folder / f"{name}.{kind}") for kind in formats)
    return svg, png
