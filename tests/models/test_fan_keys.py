import logging
from pathlib import Path

import pytest
import torch

from workbench.models import nvidia
from workbench.models.fan import FAN
from workbench.models.fan_keys import COLUMNS, load_published, match_names
from workbench.models.trunk import build_trunk

NAME = "workbench:fan_base_hybrid"
BACKBONE = "patch_embed.backbone"
ENDS = ("weight", "bias")
# published, ours: of a FAN of two convolution blocks a stage, two FAN blocks and two class blocks
MODULES = {
    f"{BACKBONE}.stem.0": "patches.stem",
    f"{BACKBONE}.stem.1": "patches.stem_norm",
    f"{BACKBONE}.stages.1.downsample.0": "patches.between_norm",
    f"{BACKBONE}.stages.1.downsample.1": "patches.between",
    "patch_embed.proj": "patches.projection",
    "pos_embed.token_projection": "position.token_projection",
    "norm": "norm",
    **{
        f"{BACKBONE}.stages.{stage}.blocks.{block}.{part}": f"patches.stage_{stage}.{block}.{part}"
        for stage in (0, 1)
        for block in (0, 1)
        for part in ("conv_dw", "norm", "mlp.fc1", "mlp.fc2")
    },
    **{
        f"blocks.{block}.{published}": f"blocks.{block}.{own}"
        for block in (0, 1)
        for published, own in {
            "norm1": "token_norm",
            "norm2": "channel_norm",
            "attn.q": "attention.query",
            "attn.kv": "attention.key_value",
            "attn.proj": "attention.projection",
            "mlp.q": "channels.query",
            "mlp.norm_v": "channels.norm",
            "mlp.mlp_v.fc1": "channels.values.expand",
            "mlp.mlp_v.fc2": "channels.values.contract",
            "mlp.mlp_v.dwconv.conv1": "channels.values.local.first",
            "mlp.mlp_v.dwconv.bn": "channels.values.local.batch_norm",
            "mlp.mlp_v.dwconv.conv2": "channels.values.local.second",
        }.items()
    },
    **{
        f"cls_attn_blocks.{block}.{part}": f"blocks.{block + 2}.{part}"
        for block in (0, 1)
        for part in ("norm1", "norm2", "attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    },
}
SINGLE = {
    "cls_token": "class_token",
    **{
        f"{BACKBONE}.stages.{stage}.blocks.{block}.gamma": f"patches.stage_{stage}.{block}.gamma"
        for stage in (0, 1)
        for block in (0, 1)
    },
    **{
        f"blocks.{block}.{published}": f"blocks.{block}.{own}"
        for block in (0, 1)
        for published, own in {
            "gamma1": "token_gamma",
            "gamma2": "channel_gamma",
            "mlp.temperature": "channels.temperature",
            "mlp.mlp_v.gamma": "channels.values.gamma",
            "mlp.mlp_v.dwconv.bn.running_mean": "channels.values.local.batch_norm.running_mean",
            "mlp.mlp_v.dwconv.bn.running_var": "channels.values.local.batch_norm.running_var",
        }.items()
    },
    **{f"cls_attn_blocks.{b}.{gamma}": f"blocks.{b + 2}.{gamma}" for b in (0, 1) for gamma in ("gamma1", "gamma2")},
}
PAIRS = {**{f"{a}.{end}": f"{b}.{end}" for a, b in MODULES.items() for end in ENDS}, **SINGLE}


def small() -> FAN:
    return FAN((8, 12), num_convolution_blocks=2, num_features=16, num_blocks=2, num_heads=2).eval()


def published_state(prefix: str = "") -> dict[str, torch.Tensor]:
    """A made-up state in published names; the tensor number n is filled with n."""
    own = small().state_dict()
    return {
        prefix + name: torch.full(own[own_name].shape, float(number))
        for number, (name, own_name) in enumerate(PAIRS.items())
    }


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "feature_extractor.", "module.backbone.", "model.backbone."]
)
def test_every_published_tensor_arrives_where_it_belongs(prefix: str) -> None:
    fan = small()
    report = load_published(fan, published_state(prefix))
    own = fan.state_dict()
    for number, own_name in enumerate(PAIRS.values()):
        assert torch.equal(own[own_name], torch.full_like(own[own_name], number)), own_name
    assert set(report["status"]) == {"matched"}
    assert {
        name.removeprefix(prefix): own for name, own in zip(report["name_in_file"], report["own_name"], strict=True)
    } == PAIRS
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    assert set(PAIRS.values()) == set(own) - counters
    assert list(report.columns) == COLUMNS


def test_the_classifier_and_what_stands_outside_the_trunk_are_left_out_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = published_state("model.backbone.")
    state |= {"model.backbone.head.weight": torch.zeros(5, 16), "model.decoder.weight": torch.zeros(2)}
    with caplog.at_level(logging.INFO):
        report = load_published(small(), state, "fan.pth")
    left_out = report[report["status"] == "left out"]
    assert list(left_out["name_in_file"]) == ["model.backbone.head.weight", "model.decoder.weight"]
    assert f"fan.pth: {len(PAIRS)} matched, 2 left out. Left out: model.backbone.head.weight" in caplog.text


def test_axes_of_length_one_do_not_count() -> None:
    state = published_state()
    drawn = torch.randn(2)
    state["blocks.0.mlp.temperature"] = drawn
    fc1 = f"{BACKBONE}.stages.0.blocks.0.mlp.fc1.weight"
    state[fc1] = torch.randn(32, 8)[:, :, None, None]
    fan = small()
    report = load_published(fan, state).set_index("name_in_file")
    assert torch.equal(fan.state_dict()["blocks.0.channels.temperature"][:, 0, 0], drawn)
    assert torch.equal(fan.state_dict()["patches.stage_0.0.mlp.fc1.weight"], state[fc1][:, :, 0, 0])
    assert report.loc[fc1, "shape_in_file"] == (32, 8, 1, 1)
    assert report.loc[fc1, "own_shape"] == (32, 8)


def test_our_own_names_are_taken_too() -> None:
    donor, fan = small(), small()
    report = load_published(fan, {f"module.{name}": value for name, value in donor.state_dict().items()})
    assert set(report["status"]) == {"matched"}
    assert all(torch.equal(value, fan.state_dict()[name]) for name, value in donor.state_dict().items())


def _without(state: dict[str, torch.Tensor]) -> None:
    del state["blocks.1.attn.kv.weight"]


def _with(state: dict[str, torch.Tensor]) -> None:
    state["blocks.2.norm1.weight"] = torch.zeros(16)


def _wider(state: dict[str, torch.Tensor]) -> None:
    state["norm.weight"] = torch.zeros(17)


def _transposed(state: dict[str, torch.Tensor]) -> None:
    state["blocks.0.attn.kv.weight"] = state["blocks.0.attn.kv.weight"].T


@pytest.mark.parametrize(
    ("change", "status", "name", "own_name", "shapes"),
    [
        (_without, "missing", None, "blocks.1.attention.key_value.weight", (None, (32, 16))),
        (_with, "unexpected", "blocks.2.norm1.weight", None, ((16,), None)),
        (_wider, "shape differs", "norm.weight", "norm.weight", ((17,), (16,))),
        (
            _transposed,
            "shape differs",
            "blocks.0.attn.kv.weight",
            "blocks.0.attention.key_value.weight",
            ((16, 32), (32, 16)),
        ),
    ],
)
def test_what_does_not_match_is_reported_and_refused(
    change: object, status: str, name: str | None, own_name: str | None, shapes: tuple[object, object]
) -> None:
    assert callable(change)
    state, fan = published_state(), small()
    change(state)
    before = {key: value.clone() for key, value in fan.state_dict().items()}
    report = match_names(fan, state)
    assert report[report["status"] != "matched"].to_numpy().tolist() == [[status, name, own_name, *shapes]]
    with pytest.raises(ValueError, match=rf"fan\.pth does not fit FAN: .*1 {status}.*Nothing was loaded") as caught:
        load_published(fan, state, "fan.pth")
    assert str(name or own_name) in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in fan.state_dict().items())


def test_files_without_one_trunk_are_refused() -> None:
    state = published_state()
    both = {**{f"model.{k}": v for k, v in state.items()}, **{f"backbone.{k}": v for k, v in state.items()}}
    for wrong, message in (
        ({"norm.weight": torch.zeros(16)}, "cls_token or class_token is wanted; found none"),
        (both, r"found model\.cls_token, backbone\.cls_token"),
        (published_state("teacher."), "begin with 'teacher.', which is not known"),
    ):
        with pytest.raises(ValueError, match=rf"fan\.pth does not fit FAN: .*{message}"):
            load_published(small(), wrong, "fan.pth")


def test_a_trunk_takes_a_published_file_or_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "fan_base_hybrid", small)
    path = tmp_path / "fan.pth"
    torch.save({"state_dict": {f"model.{name}": value for name, value in published_state().items()}}, path)
    trunk = build_trunk(NAME, str(path), (32, 32))
    assert trunk.tower.get_parameter("class_token")[0, 0, 0].item() == list(PAIRS).index("cls_token")
    torch.save({name: value for name, value in published_state().items() if "gamma" not in name}, path)
    with pytest.raises(ValueError, match=r"fan\.pth does not fit FAN: .*14 missing") as caught:
        build_trunk(NAME, str(path), (32, 32))
    assert "blocks.0.token_gamma" in str(caught.value)
    with pytest.raises(ValueError, match="get them from NVIDIA's NGC"):
        build_trunk(NAME)
