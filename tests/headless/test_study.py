from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import workbench.__main__
import workbench.headless.study
from workbench.__main__ import main


def test_a_training_sees_each_set_in_the_shape_of_its_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, Mapping[str, object]]] = []

    def note(runs: Sequence[tuple[Path, Mapping[str, object]]], *_: Any, **__: Any) -> list[Path]:
        asked.extend((notebook.stem, given) for notebook, given in runs)
        return [tmp_path]

    ok = {"status": "ok", "facts": {"embedder_folder": "an embedder"}}
    monkeypatch.setattr(workbench.headless.study, "run_many", note)
    for module in (workbench.headless.study, workbench.__main__):
        monkeypatch.setattr(module, "read_record", lambda _: ok)
    sets = ["market1501", "veri776+market1501", "nyala_market1501", "grocery_store"]
    assert main(["study", "--out", str(tmp_path), "--data", *sets]) == 0
    trained = {str(given["data"]): given for notebook, given in asked if notebook == "02_finetune_trunk"}
    sizes = {data: (given.get("image_height"), given.get("image_width")) for data, given in trained.items()}
    assert sizes == {
        "market1501": (128, 64),
        "veri776+market1501": (96, 96),
        "nyala_market1501": (80, 96),
        "grocery_store": (None, None),
    }
    judged = [given for notebook, given in asked if notebook == "04_evaluate_reid"]
    assert [given["embedder"] for given in judged] == ["an embedder"] * 3
    assert not any("image_height" in given for given in judged)
