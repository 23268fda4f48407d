"""The last stride of a ResNet: 1 in place of 2 gives its last stage a map of twice the height and width."""

from timm.models.resnet import ResNet
from torch import nn


def set_last_stride(name: str, tower: nn.Module, stride: int) -> None:
    """Lets the first block of a timm ResNet's last stage keep the size of its map, in place; no weight changes.

    timm's own `output_stride=16` dilates the 3x3 kernels of that stage; here they stay as they are.

    Source: Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification (2019), after Sun et al.,
    Beyond Part Models (2018).

    Raises:
        ValueError: the stride is not 1, or the trunk is no timm ResNet or one that blurs before it halves.
    """
    if stride != 1:
        raise ValueError(f"last_stride is 1 or 2; found {stride}.")
    if not isinstance(tower, ResNet):
        raise ValueError(f"{name} has no last stage to set the stride of: last_stride=1 is for timm's ResNet family.")
    first = tower.get_submodule("layer4.0")
    if not isinstance(first.get_submodule("aa"), nn.Identity):
        raise ValueError(
            f"{name} halves its map by blurring: last_stride=1 is for ResNets that do it by a stride of 2."
        )
    for part in (first, first.get_submodule("downsample")):
        for child_name, child in part.named_children():
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                child.stride = (1, 1)
            elif isinstance(child, nn.AvgPool2d):  # ResNet-D averages 2x2 before a 1x1 convolution
                setattr(part, child_name, nn.Identity())
    tower.feature_info[-1]["reduction"] = 16
