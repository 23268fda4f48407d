"""Tiny notebooks for the headless tests, in a workbench root of their own."""

from pathlib import Path

import nbformat

PARAMETERS = (
    'data: str = "tiny"  # a card\ncount: int = 2  # 1..9\nmode: Literal["good", "bad"] = "good"\nseed: int | None = 3'
)
START = "from workbench.runs.record import start\nrun = start({name!r}, globals())"


def make_root(folder: Path) -> Path:
    """The folder as an empty workbench root."""
    (folder / "data_cards").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    return folder


def write_notebook(root: Path, name: str, *sources: str, parameters: str = PARAMETERS, finish: bool = True) -> Path:
    """A notebook in `root`: a title, imports, parameters, start, the sources, finish."""
    cells = [
        nbformat.v4.new_markdown_cell(f"# Is {name} tiny?"),
        nbformat.v4.new_code_cell("from typing import Literal"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(START.format(name=name)),
        *(nbformat.v4.new_code_cell(source) for source in sources),
    ]
    if finish:
        cells.append(nbformat.v4.new_code_cell("run.finish()"))
    path = root / "notebooks" / f"{name}.ipynb"
    kernelspec = {"name": "elsewhere", "display_name": "Elsewhere", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), path)
    return path
