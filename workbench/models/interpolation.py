"""Between two embedders of one architecture: every weight on the straight line from the one to the other.

Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022.
"""

import copy

import torch

from workbench.models.classifier import empty_classifier
from workbench.models.embedder import Embedder


def interpolate(before: Embedder, after: Embedder, share: float) -> Embedder:
    """A new embedder in evaluation mode: each weight is (1 - share) times before's plus share times after's.

    Trunk and head, running means and variances of BatchNorm among them (which is not what a pass over the training images
    would give them with the new weights, but is exact at both ends; of a trunk with BatchNorm look at the curve before
    you trust its middle). Whole numbers are not mixed: they come from the nearer end, at 0.5 from `after`. Share 0 and 1
    are copies of the ends, bit for bit. In between a classifier is mixed too where both know the same classes in the same
    form, and is taken off otherwise.

    Args:
        before, after: such as an embedder and what a training with head="keep" made of it.
        share: 0 to 1.

    Raises:
        ValueError: a share out of range, or embedders of different architecture or preprocessing.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share lies in [0, 1], 0 is before and 1 is after; found {share}.")
    _check_alike(before, after)
    mixed = copy.deepcopy(after if share == 1 else before).eval()
    if share in (0, 1):
        return mixed
    first, second = before.classifier, after.classifier
    both = first is not None and second is not None and before.classes == after.classes
    if first is None or second is None or not both or first.describe() != second.describe():
        mixed.attach_classifier(None)
    else:
        mixed.attach_classifier(empty_classifier(first.describe()).to(first.weight.device), before.classes)
    start, end = before.state_dict(), after.state_dict()
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.lerp(start[name].to(value.device), end[name].to(value.device), share))
            else:
                value.copy_(start[name] if share < 0.5 else end[name])
    return mixed


def _check_alike(before: Embedder, after: Embedder) -> None:
    """Returns nothing when weight by weight of one belongs to one of the other."""
    first, second = (
        {**one.described, "preprocessing": one.preprocessing.to_dict(), **_shapes(one)} for one in (before, after)
    )
    differing = [name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"Only embedders of one architecture can be interpolated; {name} is {first.get(name)} before and "
            f"{second.get(name)} after ({len(differing)} differences). A training with head='keep' leaves it as it was."
        )


def _shapes(embedder: Embedder) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of trunk and head."""
    state = embedder.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.startswith("classifier.")}
