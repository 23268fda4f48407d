"""Files of weights that are refused: the message says what was found in them and what to do."""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from workbench.models.trunk import build_trunk
from workbench.models.weights import WeightsUnavailableError, load_strictly, read_state


def _donor() -> dict[str, torch.Tensor]:
    return timm.create_model("resnet10t", num_classes=0).state_dict()


def _under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _refused(path: Path, content: object) -> str:
    torch.save(content, path)
    with pytest.raises(ValueError, match=path.name) as caught:
        build_trunk("timm:resnet10t", str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_names_with_a_beginning_are_told_by_it(tmp_path: Path) -> None:
    donor = _donor()
    for prefix in ("backbone.", "model.", "student.encoder."):
        message = _refused(tmp_path / "prefix.pth", {"state_dict": _under(prefix, donor), "epoch": 3})
        assert f"its names begin with {prefix}, which the model's do not: save the tensors of that beginning" in message
    two = {**_under("student.", donor), **_under("teacher.", donor)}
    assert "begin with student., teacher.," in _refused(tmp_path / "two.pth", two)
    torch.save(
        _under("model.visual.", build_trunk("open_clip:ViT-S-32-alt", "random").tower.state_dict()), tmp_path / "c.pth"
    )
    with pytest.raises(ValueError, match=r"its names begin with model\.visual\.,"):
        build_trunk("open_clip:ViT-S-32-alt", str(tmp_path / "c.pth"))


def test_what_training_programs_put_before_the_names_is_taken_off(tmp_path: Path) -> None:
    donor = _donor()
    torch.save({"model": _under("module.", donor), "args": argparse.Namespace(lr=0.1)}, tmp_path / "ddp.pth")
    trunk = build_trunk("timm:resnet10t", str(tmp_path / "ddp.pth"))
    assert torch.equal(trunk.tower.state_dict()["conv1.0.weight"], donor["conv1.0.weight"])


def test_containers_are_named(tmp_path: Path) -> None:
    donor = _donor()
    message = _refused(tmp_path / "dino.pth", {"teacher": donor, "student": donor, "epoch": 3})
    assert "holds teacher, student, epoch where tensors by name are wanted" in message
    assert "Save one of teacher, student alone: torch.save(checkpoint['teacher'], ...)" in message
    assert "holds epoch where" in _refused(tmp_path / "mixed.pth", {**donor, "epoch": 3})
    for content in (list(donor.values()), torch.zeros(3), {"state_dict": None}, {1: torch.zeros(3)}):
        assert "holds no tensors by name" in _refused(tmp_path / "none.pth", content)


def test_a_file_without_a_trunk_is_no_wish_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    assert "holds nothing where tensors by name are wanted" in _refused(tmp_path / "empty.pth", {})
    assert "holds the classifier fc. alone" in _refused(tmp_path / "head.pth", {"fc.weight": torch.zeros(3, 512)})


def test_files_with_code_are_told_without_the_advice_to_run_it(tmp_path: Path) -> None:
    donor = _donor()
    for content, found in (
        ({"model": donor, "best": np.float64(0.3)}, "numpy"),
        ({"model": donor, "out": Path("outputs")}, "pathlib"),
        (nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules"),
    ):
        message = _refused(tmp_path / "code.pth", content)
        assert f"it holds objects of {found}" in message or (found in message and "could run code" in message)
        assert "weights_only" not in message
    np.savez(tmp_path / "flax.npz", a=np.zeros(3))
    safetensors.torch.save_file(donor, tmp_path / "renamed.pth")
    for name in ("flax.npz", "renamed.pth"):
        with pytest.raises(ValueError, match=r"cannot be read as \.safetensors or as a \.pth") as caught:
            read_state(tmp_path / name)
        assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:.torch.load. received a zip file:UserWarning")
def test_an_archive_of_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(ValueError, match="is a TorchScript archive, which is code; save the tensors alone") as caught:
        read_state(tmp_path / "ViT-B-32.pt")
    assert "weights_only" not in str(caught.value)


def test_what_does_not_fit_is_counted_in_one_line(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    state = module.state_dict()
    wrong = {
        "0.weight": torch.zeros(5, 2),
        "2.weight": state["2.weight"],
        "2.bias": state["2.bias"],
        "q": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_strictly(module, wrong, tmp_path / "file.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'file.pth'} does not fit the trunk: it lacks 0.bias, 1.weight, 1.bias; the model does not know q; "
        "another shape has 0.weight [5, 2] in place of [3, 2]."
    )


def _raise(error: Exception) -> Any:
    def create(*args: object, **options: object) -> None:
        assert logging.root.manager.disable == logging.NOTSET
        raise error

    return create


def test_only_a_missing_network_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", _raise(RuntimeError("invalid hash value (expected a, got b)")))
    with pytest.raises(ValueError, match=r"resnet18\.a1_in1k cannot be built with its own weights: invalid hash value"):
        build_trunk("timm:resnet18.a1_in1k")
    monkeypatch.setattr(timm, "create_model", _raise(RuntimeError("CUDA out of memory")))
    with pytest.raises(ValueError, match="CUDA out of memory"):
        build_trunk("timm:resnet18.a1_in1k")
    monkeypatch.setattr(timm, "create_model", _raise(OSError("no route to host")))
    with pytest.raises(WeightsUnavailableError, match="could not be downloaded"):
        build_trunk("timm:resnet18.a1_in1k")
