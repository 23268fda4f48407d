from pathlib import Path
from typing import Any

import pytest
import timm.layers
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from workbench.models import nvidia
from workbench.models.nvidia import nv_dinov2
from workbench.models.trunk import build_trunk

NAME = "workbench:nv_dinov2"


def small(image_size: tuple[int, int] = (56, 56)) -> VisionTransformer:
    return VisionTransformer(
        img_size=image_size,
        patch_size=14,
        embed_dim=16,
        depth=1,
        num_heads=2,
        mlp_ratio=2,
        init_values=1e-5,
        mlp_layer=timm.layers.SwiGLUPacked,  # type: ignore[arg-type]
        act_layer=nn.SiLU,
        num_classes=0,
    )


def test_the_parameters_of_nv_dinov2_by_hand() -> None:
    width, hidden = 1024, 5472
    attention = 4 * (width + 1) * width
    mlp = (width + 1) * hidden + (hidden // 2 + 1) * width
    block = attention + mlp + 2 * 2 * width + 2 * width  # two norms, two scales
    by_hand = (3 * 14 * 14 + 1) * width + width + (1 + 16 * 16) * width + 24 * block + 2 * width
    with torch.device("meta"):
        tower = nv_dinov2()
        assert tower.forward_features(torch.zeros(2, 3, 224, 224)).shape == (2, 257, 1024)
        assert tower(torch.zeros(2, 3, 224, 224)).shape == (2, 1024)
    assert sum(value.numel() for value in tower.parameters()) == by_hand == 303_654_144


def test_its_mlp_is_gated_by_silu_of_the_first_half() -> None:
    mlp: Any = small().get_submodule("blocks.0.mlp")
    tokens = torch.randn(2, 5, 16)
    with torch.no_grad():
        first, second = (tokens @ mlp.fc1.weight.T + mlp.fc1.bias).split(16, dim=2)
        expected = (first * torch.sigmoid(first) * second) @ mlp.fc2.weight.T + mlp.fc2.bias
        torch.testing.assert_close(mlp(tokens), expected)
    with torch.device("meta"):
        whole: Any = nv_dinov2().get_submodule("blocks.0.mlp")
    assert type(whole) is type(mlp)
    assert (whole.gate_last, type(whole.act), whole.fc2.in_features) == (False, nn.SiLU, 2736)


def test_sizes_that_its_patch_does_not_divide_are_refused() -> None:
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"14x14 px: \(256, 128\) does not .* nearest: \(252, 126\)"),
    ):
        build_trunk(NAME, "random", (256, 128))


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_a_local_file_loads_at_another_size(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "nv_dinov2", small)
    donor = small()
    state = {prefix + name: value for name, value in donor.state_dict().items()}
    state |= {f"{prefix}mask_token": torch.zeros(1, 16), f"{prefix}head.weight": torch.zeros(3, 16)}
    path = tmp_path / "dinov2.pth"
    torch.save(state, path)
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(build_trunk(NAME, str(path), (56, 56))(images), donor.eval()(images))
        wide = build_trunk(NAME, str(path), (28, 42), pooling="both")
        assert wide(torch.randn(2, 3, 28, 42)).shape == (2, 32)
    encoding = wide.tower.get_parameter("pos_embed")
    grid = donor.get_parameter("pos_embed")[0, 1:].reshape(4, 4, 16).permute(2, 0, 1)[None]
    expected = nn.functional.interpolate(grid, size=(2, 3), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(encoding[0, 1:].reshape(2, 3, 16), expected[0].permute(1, 2, 0))


def test_files_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "nv_dinov2", small)
    path, state = tmp_path / "other.pth", small().state_dict()
    for wrong, message in (
        (
            {name: value for name, value in state.items() if "fc2" not in name},
            r"fit the trunk: [\s\S]*mlp\.fc2\.weight",
        ),
        (
            {name: value for name, value in state.items() if name != "cls_token"},
            "named cls_token is wanted; found none",
        ),
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=message):
            build_trunk(NAME, str(path), (56, 56))
    with pytest.raises(ValueError, match=r"get them from NVIDIA's NGC[\s\S]*or use 'random'"):
        build_trunk(NAME)
    with pytest.raises(ValueError, match="has the trunks fan_base_hybrid, nv_dinov2; found 'fan_tiny'"):
        build_trunk("workbench:fan_tiny", "random")
