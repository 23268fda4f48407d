"""Files of weights: read without running code from them, and loaded whole or refused."""

import re
from pathlib import Path
from typing import cast

import timm.models
import torch
from torch import nn

# What training programs put before a trunk's names: DDP, Lightning, mmcv and TAO.
_OUTER = re.compile(r"(?:(?:module|model|backbone|feature_extractor)\.)*")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of a .pth that holds nothing but tensors, by name.

    Raises:
        ValueError: the file is neither; the message has the library's reason.
    """
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # the libraries raise a dozen kinds; each means that the file is not weights
        raise ValueError(f"{path} cannot be read as .safetensors or as a .pth of plain tensors: {error}") from error
    return cast("dict[str, torch.Tensor]", state)


def load_strictly(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Loads every tensor of the state into the module, in place.

    Raises:
        ValueError: a name or a shape does not match.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the trunk: {error}") from error


def outer_prefix(names: list[str], anchors: tuple[str, ...]) -> str:
    """What stands before a trunk's own names in a file, such as `module.backbone.`; empty where nothing does.

    Args:
        names: of the file's tensors.
        anchors: names of which a trunk has exactly one, such as `cls_token`.

    Raises:
        ValueError: no anchor or several (a file with a student and a teacher, say), or a prefix that is not known.
    """
    found = [name for name in names if name.rpartition(".")[2] in anchors]
    if len(found) != 1:
        raise ValueError(
            f"one tensor named {' or '.join(anchors)} is wanted; found {', '.join(found) or 'none'}. "
            "Keep the tensors of one trunk in the file."
        )
    prefix = found[0].removesuffix(found[0].rpartition(".")[2])
    if not _OUTER.fullmatch(prefix):
        raise ValueError(f"the names begin with {prefix!r}, which is not known; save the tensors without it.")
    return prefix
