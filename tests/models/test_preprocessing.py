"""`crop` is the transform of timm, open_clip and DINOv2, to the pixel: theirs is run beside ours on pictures of odd sizes."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from timm.data import create_transform, resolve_data_config

from workbench.models.preprocessing import CropMode, Preprocessing, ResizeMode
from workbench.models.trunk import build_trunk

# taller, wider, smaller than what is wanted, square, extreme, and sides whose scaled length has a fraction
SIZES = ((341, 517), (519, 347), (97, 61), (301, 301), (37, 640))
CROP = Preprocessing((4, 4), (0.5, 0.25, 1.0), (0.5, 0.5, 0.5), "bilinear", "crop")


def picture(width: int, height: int) -> Image.Image:
    """Waves of many lengths, so that a shift by a fraction of a pixel shows."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 127 * np.sin(x / (1.3 + band) + y * y / (40 + 20 * band)) for band in range(3)]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


PICTURES = [picture(*size) for size in SIZES]


def config_of(tag: str) -> dict[str, Any]:
    published = timm.get_pretrained_cfg(tag)
    assert published is not None
    return resolve_data_config({}, pretrained_cfg=published.to_dict())


def timm_configs() -> dict[str, dict[str, Any]]:
    """What every pretrained tag of timm says, each once, under one tag that says it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for tag in timm.list_pretrained():
        data = config_of(tag)
        found.setdefault(json.dumps(data, sort_keys=True), (tag, data))
    return dict(found.values())


def open_clip_configs() -> dict[str, dict[str, Any]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for architecture, tag in open_clip.list_pretrained():
        vision = open_clip.get_model_config(architecture)["vision_cfg"]
        data = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(architecture, tag))
        data["size"] = (vision.get("image_size", 224),) * 2
        found.setdefault(json.dumps(data, sort_keys=True), (f"{architecture}/{tag}", data))
    return dict(found.values())


def pixels_of(steps: list[Any], image: Image.Image) -> np.ndarray:
    """What a library's own steps before the tensor make of a picture."""
    for step in steps:
        image = step(image)
    return np.asarray(image)


def test_every_transform_of_timms_pretrained_tags() -> None:
    configs = timm_configs()
    assert {data["crop_mode"] for data in configs.values()} == {"center", "squash", "border"}
    assert max(data["crop_pct"] for data in configs.values()) > 1  # the centre of less than there is: black around it
    differing = []
    for number, (tag, data) in enumerate(configs.items()):
        ours, theirs = Preprocessing.from_timm(data), create_transform(**data)
        for image in (PICTURES[number % 5], PICTURES[(number + 1) % 5]):
            if not np.array_equal(ours.apply(image), pixels_of(theirs.transforms[:-2], image)):
                differing.append((tag, image.size))
    assert differing == []


def test_every_transform_of_open_clips_tags() -> None:
    configs = open_clip_configs()
    assert {data["resize_mode"] for data in configs.values()} == {"shortest", "squash"}
    differing = []
    for tag, data in configs.items():
        ours = Preprocessing.from_open_clip(data, data["size"])
        theirs = image_transform_v2(PreprocessCfg(**data), is_train=False)
        differing += [
            (tag, image.size)
            for image in PICTURES
            if not np.array_equal(ours.apply(image), pixels_of(theirs.transforms[:-3], image))
        ]
    assert differing == []


@pytest.mark.parametrize("image_size", [(256, 128), (96, 160), (224, 224)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0, 1.15])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_another_size_is_done_as_timm_does_it(image_size: tuple[int, int], crop_pct: float, mode: str) -> None:
    data: dict[str, Any] = {
        "interpolation": "bicubic",
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.2, 0.2),
        "crop_pct": crop_pct,
    }
    data |= {"input_size": (3, *image_size), "crop_mode": mode}
    theirs = create_transform(**data)
    ours = Preprocessing.from_timm({**data, "input_size": (3, 32, 32)}, image_size)
    for image in PICTURES:
        assert np.array_equal(ours.apply(image), pixels_of(theirs.transforms[:-2], image)), image.size


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_every_resize_mode_of_open_clip_with_a_colour_around(mode: str) -> None:
    data = merge_preprocess_dict(PreprocessCfg(), {"size": (96, 96), "resize_mode": mode, "fill_color": 90})
    theirs = image_transform_v2(PreprocessCfg(**data), is_train=False)
    ours = Preprocessing.from_open_clip(data, (96, 96))
    for image in PICTURES:
        assert np.array_equal(ours.apply(image), pixels_of(theirs.transforms[:-3], image)), image.size


@given(width=st.integers(1, 700), height=st.integers(1, 700), side=st.integers(8, 64))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_dinov2s_evaluation_at_any_size(width: int, height: int, side: int) -> None:
    """Its classification transform: Resize to 256 of 224, bicubic, then CenterCrop; here 8 of 7, the same share."""
    wanted, steps = 7 * side, torchvision.transforms
    if max(width, height) > 30 * min(width, height):
        return
    image = picture(width, height)
    theirs = [steps.Resize(8 * side, steps.InterpolationMode.BICUBIC), steps.CenterCrop(wanted)]
    ours = replace(CROP, image_size=(wanted, wanted), crop_share=0.875, interpolation="bicubic")
    assert np.array_equal(ours.apply(image), pixels_of(theirs, image))


def test_normalised_values_are_timms() -> None:
    """Float32: mean and deviation times 255 against the pixel through 255; some four roundings of values up to 2.7."""
    data = config_of("resnet50.a1_in1k")
    ours = Preprocessing.from_timm(data)
    found = ours.normalise(torch.from_numpy(ours.apply(PICTURES[0]).copy())[None])[0]
    torch.testing.assert_close(found, create_transform(**data)(PICTURES[0]), rtol=0, atol=1e-6)


def test_a_trunk_brings_its_weights_own_transform() -> None:
    trunk = build_trunk("timm:tf_efficientnetv2_b3.in21k_ft_in1k", "random", image_size=(96, 64))
    expected = Preprocessing((96, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "crop", 0.9, "squash")
    assert trunk.preprocessing.resized("crop") == expected
    tower = build_trunk("open_clip:PE-Core-T-16-384/meta", "random")
    assert tower.preprocessing == replace(expected, image_size=(384, 384), interpolation="bilinear", crop_share=1.0)
    assert tower.preprocessing.resized("squash") == Preprocessing((384, 384), expected.mean, expected.std, "bilinear")


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border", "rounded"])
def test_a_description_is_read_back(crop_mode: CropMode) -> None:
    fill = (1, 2, 3) if crop_mode == "border" else (0, 0, 0)
    one = replace(CROP, crop_share=0.9, crop_mode=crop_mode, fill=fill)
    assert Preprocessing.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_embedders_saved_before_crop_was_exact_do_what_they_did() -> None:
    """7 x 5 px to 4 x 4: times 4/5 the width is 5.6, which is 6 by rounding, its middle from 1; torchvision makes it 5."""
    image = picture(7, 5)
    saved = {"image_size": [4, 4], "mean": [0.5, 0.25, 1.0], "std": [0.5] * 3, "interpolation": "bilinear"}
    saved |= {"resize": "crop", "crop_share": 1.0}
    old = Preprocessing.from_dict(saved)
    assert json.loads(json.dumps(old.to_dict())) == saved, "its fingerprint would be another"
    bilinear = Image.Resampling.BILINEAR
    assert np.array_equal(old.apply(image), np.asarray(image.resize((6, 4), bilinear).crop((1, 0, 5, 4))))
    assert np.array_equal(CROP.apply(image), np.asarray(image.resize((5, 4), bilinear).crop((0, 0, 4, 4))))


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_other_modes_are_described_as_ever(resize: ResizeMode) -> None:
    described = CROP.resized(resize).to_dict()
    assert list(described) == ["image_size", "mean", "std", "interpolation", "resize", "crop_share"]
    assert Preprocessing.from_dict(described) == CROP.resized(resize)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_mode": "centre"}, "crop_mode is one of center, squash, border, rounded; found 'centre'"),
        ({"fill": (0, 0, 256)}, "fill is three whole numbers"),
        ({"resize": "pad", "fill": (1, 1, 1)}, "belong to resize 'crop'"),
        ({"crop_share": float("nan")}, "positive and finite"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CROP, **change)
