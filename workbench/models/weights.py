"""Files of weights: read without running code from them, and loaded whole or refused."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm.models
import torch
from torch import nn

# What training programs put before a trunk's names: DDP, Lightning, mmcv and TAO.
_OUTER = re.compile(r"(?:(?:module|model|backbone|feature_extractor)\.)*")


class WeightsUnavailableError(OSError):
    """Pretrained weights are neither in the cache nor to be downloaded."""


@contextmanager
def downloading(name: str) -> Iterator[None]:
    """Turns what the libraries raise without a network (and on a full disk) into one line that says what to do."""
    try:
        yield
    except OSError as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsUnavailableError(
            f"The weights of {name} are not in the cache and could not be downloaded ({cause[0][:200]}). "
            f"With a network, `python -m workbench models fetch {name}` gets them once; or name a local file; or use 'random'."
        ) from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of a .pth that holds nothing but data, by name.

    Of a training's file the tensors under `state_dict`, `model` or their averages (`state_dict_ema`, `model_ema`).

    Raises:
        ValueError: the file cannot be read without running code, or holds something else than tensors by name there; the
            message says what.
    """
    try:
        state: dict[str, Any] = timm.models.load_state_dict(str(path), weights_only=True)
    except (AttributeError, TypeError) as error:  # timm asks what it found for its items
        raise ValueError(f"{path} holds no tensors by name: save a state_dict (found: {error}).") from error
    except Exception as error:  # the libraries raise a dozen kinds; each means that the file is not weights
        reason = _why_unreadable(path, error)
        raise ValueError(f"{path} cannot be read as .safetensors or as a .pth of plain tensors: {reason}") from error
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others or not state:
        inner = [name for name in others if isinstance(state[name], dict)]
        raise ValueError(
            f"{path} holds {_few(others) or 'nothing'} where tensors by name are wanted, alone or under 'state_dict' or 'model'."
            + (f" Save one of {_few(inner)} alone: torch.save(checkpoint[{inner[0]!r}], ...)." if inner else "")
        )
    return state


def load_strictly(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Loads every tensor of the state into the module, in place.

    Raises:
        ValueError: a name or a shape does not match; the message says which, and a beginning that all names have.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the trunk: {explain_misfit(error)}") from error


def explain_misfit(error: Exception) -> str:
    """What torch's error of a strict loading says at length, in one line; of another error its first line.

    Names that would fit without what stands before them are told by that beginning.
    """
    text = str(error)
    missing, unexpected = (_quoted(text, f"{kind} key(s)") for kind in ("Missing", "Unexpected"))
    shapes = [
        f"{name} {there} in place of {wanted}"
        for name, there, wanted in re.findall(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", text)
    ]
    if not (missing or unexpected or shapes):
        return (text.strip().splitlines() or [type(error).__name__])[0][:300]
    before = Counter(
        name[: dot.end()]
        for name in unexpected
        for dot in re.finditer(r"\.", name)
        if name[dot.end() :] in set(missing)
    )
    most = max(before.values(), default=0)
    if most > len(missing) / 2:
        found = [prefix for prefix, count in before.items() if count == most]
        which = "one of them" if len(found) > 1 else "that beginning"
        return f"its names begin with {_few(found)}, which the model's do not: save the tensors of {which} alone, without it."
    told = {"it lacks": missing, "the model does not know": unexpected, "another shape has": shapes}
    return "; ".join(f"{words} {_few(names)}" for words, names in told.items() if names) + "."


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


def _why_unreadable(path: Path, error: Exception) -> str:
    """The reason without the libraries' advice to run what the file holds."""
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is code; save the tensors alone: torch.save(torch.jit.load(...).state_dict(), ...)"
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # it is no archive of torch at all
        objects = []
    if objects:
        return f"it holds objects of {_few(objects)}, which could run code; where you trust the file, save its tensors alone"
    return "it is neither" if "weights_only" in str(error) else str(error)


def _quoted(text: str, beginning: str) -> list[str]:
    """The names in quotes of the line that begins so."""
    lines = [line for line in text.splitlines() if line.strip().startswith(beginning)]
    return re.findall(r'"([^"]+)"', "".join(lines))


def _few(names: list[str], limit: int = 3) -> str:
    return ", ".join(map(str, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")
