"""What moves in JupyterLab: figures that follow a computation. Headless they keep still, and the log speaks."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from IPython.display import display

from workbench.report.training_figures import training_curve

_REDRAW_EVERY_S = 2.0


def live_loss_curve(
    title: str, *, live: bool, every_s: float = _REDRAW_EVERY_S
) -> Callable[[Mapping[str, float]], None]:
    """A function to call after each training step with its `step` and `loss`: redraws one figure in place.

    It needs no widget and no connection but the notebook's own: the output of the cell is replaced.

    Args:
        title: of the figure.
        live: False (headless) draws nothing.
        every_s: seconds between drawings at least, so that drawing never slows the training down.
    """
    rows: list[tuple[float, float]] = []
    handle: Any = None
    drawn = 0.0

    def follow(row: Mapping[str, float]) -> None:
        nonlocal handle, drawn
        if not live:
            return
        rows.append((row["step"], row["loss"]))
        if time.monotonic() - drawn < every_s:
            return
        figure = training_curve(pd.DataFrame(rows, columns=["step", "loss"]), "loss", title, "training batch")
        if handle is None:
            handle = display(figure, display_id=True)
        else:
            handle.update(figure)
        drawn = time.monotonic()

    return follow
