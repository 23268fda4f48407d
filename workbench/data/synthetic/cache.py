"""Drawings on disk: made once for each set of options, found again afterwards."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from workbench.data.card import check_keys
from workbench.runs.files import new_folder
from workbench.runs.root import outputs_folder


def default_options(draw: Callable[..., None]) -> dict[str, int]:
    """The options of a drawing function with their defaults: all its parameters but `folder` and `num_workers`."""
    parameters = inspect.signature(draw).parameters.items()
    return {name: parameter.default for name, parameter in parameters if name not in ("folder", "num_workers")}


def drawn_folder(
    draw: Callable[..., None], kind: str, version: int, defaults: Mapping[str, int], options: Mapping[str, object]
) -> Path:
    """The folder with the drawing that `options` describe, drawn when it is not there yet.

    It lies under the outputs folder and is named by the kind, the options and the version of the drawing code. A
    drawing that is killed leaves no such folder, and two processes at once make the same one.

    Args:
        draw: fills the folder that is its first argument; takes the options by name.
        kind: of the drawing, a short name such as `products`.
        version: of the code that draws; raised when the same options give other pixels.
        defaults: every option that there is, with the value that it has when it is left out.
        options: those that are given.

    Raises:
        ValueError: an option that does not exist, or a value that is not a whole number.
    """
    check_keys(options, defaults, f"option of synthetic {kind}")
    wrong = [f"{name}={value!r}" for name, value in options.items() if type(value) is not int]
    if wrong:
        raise ValueError(f"Options of synthetic {kind} are whole numbers; found {', '.join(wrong)}.")
    wanted = {**defaults, **options}
    digest = hashlib.sha256(json.dumps([version, wanted], sort_keys=True).encode()).hexdigest()
    target = outputs_folder() / "cache" / "synthetic" / f"{kind}-{digest[:16]}"
    if not target.is_dir():
        with new_folder(target) as folder:
            draw(folder, **wanted)
    return target
