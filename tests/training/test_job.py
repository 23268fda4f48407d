import json
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.data.augment import Augmentation
from workbench.training.job import Job, read_job, write_job
from workbench.training.recipe import Recipe

JOB = Job(
    Recipe("any", num_steps=3, milestones=(0.5, 0.8), schedule="multistep", augmentation=Augmentation()),
    "synthetic_products",
    "timm:test_resnet",
    fold="0/5",
    image_size=(96, 64),
    seed=3,
)


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    write_job(tmp_path / "recipe.json", JOB)
    assert read_job(tmp_path / "recipe.json") == replace(JOB, folder=str(tmp_path / "training"))
    elsewhere = replace(JOB, folder="/elsewhere/run", image_size=None)
    write_job(tmp_path / "recipe.json", elsewhere)
    assert read_job(tmp_path / "recipe.json") == elsewhere


def test_folders_of_data_and_embedder_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path / "recipe.json", replace(JOB, data_root="mine", embedder="mine", trunk_weights="random"))
    monkeypatch.chdir("/")
    job = read_job(tmp_path / "recipe.json")
    assert (job.data_root, job.embedder, job.trunk_weights) == (
        str(tmp_path / "mine"),
        str(tmp_path / "mine"),
        "random",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": None}, "the field recipe cannot be None"),
        ({"recipe": {"name": "any", "learning_rate": 1}}, "learning_rate is called learning_rate_trunk now"),
        ({"recipe": {"name": "any"}}, "give either num_steps or num_epochs"),
        ({"devise": "cpu"}, "unknown field 'devise'. Did you mean 'device'"),
        ({"seed": "3"}, "the field seed cannot be '3'"),
        ({"last_stride": 1}, "unknown field 'last_stride'"),
        ({"image_size": [96]}, r"the field image_size cannot be \[96\]"),
        ({"smoke": 1}, "the field smoke cannot be 1"),
        ({"device": None}, "the field device cannot be None"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    write_job(path, JOB)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=f"recipe.json: .*{message}"):
        read_job(path)


def test_a_missing_field_or_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    with pytest.raises(ValueError, match=r"recipe\.json cannot be read: No such file or directory\. Notebook 02"):
        read_job(path)
    for text, message in (
        ('{"recipe": {}, "embedder": "timm:a"}', "the field data is missing"),
        ("{}", "the field recipe, data, embedder is missing"),
        ("[]", "holds a list, where the fields of a training are wanted"),
        ("{", "is no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_job(path)
