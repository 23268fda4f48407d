from pathlib import Path

import pytest

from workbench.runs.folder import name_place


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("outputs/20261121T184731Z-02_finetune_trunk-4071acb5/training/embedder", "02_finetune_trunk-4071acb5"),
        ("outputs/20261121T184731Z-06_export-trial-00000000/exported", "06_export-trial-00000000"),
        ("models/mine/embedder", "mine"),
        ("models/embedder-3", "embedder-3"),
    ],
)
def test_a_folder_is_called_by_its_run_or_its_own_name(tmp_path: Path, folder: str, name: str) -> None:
    assert name_place(str(tmp_path / folder)) == str(tmp_path / folder), "what is no folder stays as it is"
    (tmp_path / folder).mkdir(parents=True)
    assert name_place(str(tmp_path / folder)) == name


def test_a_trunk_stays_as_it_is() -> None:
    assert name_place("timm:resnet50.a1_in1k") == "timm:resnet50.a1_in1k"
