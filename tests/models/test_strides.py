import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models.resnet import ResNet

from workbench.models.embedder import build_embedder, load_embedder
from workbench.models.strides import set_last_stride
from workbench.models.trunk import build_trunk

WSL = [
    "resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
    "resnext101_32x8d.fb_swsl_ig1b_ft_in1k",
    "resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k",
]


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet18", "resnet50d", "seresnet50", *WSL])
def test_the_last_map_of_a_person_is_16_by_8(name: str) -> None:
    with torch.device("meta"):
        tower = timm.create_model(name, num_classes=0)
        assert isinstance(tower, ResNet)
        shapes = {key: value.shape for key, value in tower.state_dict().items()}
        assert tower.forward_features(torch.zeros(1, 3, 256, 128)).shape[2:] == (8, 4)
        set_last_stride(name, tower, 1)
        assert tower.forward_features(torch.zeros(1, 3, 256, 128)).shape[2:] == (16, 8)
        kernels = [part for part in tower.get_submodule("layer4").modules() if isinstance(part, torch.nn.Conv2d)]
        assert {part.dilation for part in kernels} == {(1, 1)}
    assert {key: value.shape for key, value in tower.state_dict().items()} == shapes
    assert tower.feature_info[-1]["reduction"] == 16


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:resnet26"])
def test_every_second_place_of_its_first_block_answers_as_before(name: str) -> None:
    before, after = (build_trunk(name, "random", (64, 32), seed=3, last_stride=stride) for stride in (2, 1))
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())
    map_NCHW = torch.randn(2, {"timm:resnet18": 256}.get(name, 1024), 4, 6)
    with torch.no_grad():
        old, new = (trunk.tower.get_submodule("layer4.0") for trunk in (before, after))
        if name == "timm:resnet18":  # its second 3x3 sees the neighbours: what went into it is compared
            old, new = (block.get_submodule("conv1") for block in (old, new))
        torch.testing.assert_close(new(map_NCHW)[:, :, ::2, ::2], old(map_NCHW))


def test_the_stride_is_saved_and_older_folders_load(tmp_path: Path) -> None:
    plain, last = (build_embedder("timm:test_resnet", "random", image_size=(64, 32), last_stride=n) for n in (2, 1))
    assert plain.fingerprint() != last.fingerprint()
    loaded = load_embedder(last.save(tmp_path / "last"))
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), last(images))
        assert (last(images) - plain(images)).abs().max() > 1e-4
    assert loaded.described == last.described
    assert json.loads((tmp_path / "last" / "config.json").read_text())["last_stride"] == 1
    folder = plain.save(tmp_path / "plain")  # as folders were before there was such an option
    assert "last_stride" not in json.loads((folder / "config.json").read_text())
    assert load_embedder(folder).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("timm:resnet10t", 3, "last_stride is 1 or 2; found 3"),
        ("timm:test_vit", 1, "test_vit has no last stage"),
        ("timm:test_convnext", 1, "for timm's ResNet family"),
        ("timm:resnetaa34d", 1, "halves its map by blurring"),
    ],
)
def test_trunks_without_such_a_stride_are_refused(name: str, stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_trunk(name, "random", last_stride=stride)


@pytest.mark.slow
@pytest.mark.parametrize("name", WSL)
def test_resnext_wsl_builds_by_name(name: str) -> None:
    trunk = build_trunk(f"timm:{name}", "random", (64, 32), last_stride=1)
    assert trunk.num_features == 2048
    assert sum(value.numel() for value in trunk.parameters()) == 88_791_336 - 2048 * 1000 - 1000
