"""One learning rate a block: which parameter belongs to which block of a trunk, and the rates that follow."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import open_clip
import open_clip.model
from torch import nn

from workbench.models.embedder import Embedder
from workbench.models.trunk import Trunk
from workbench.training.losses import TrainingLoss
from workbench.training.recipe import Recipe

STEM, FINAL, HEAD, LOSS = "stem", "final", "head", "loss"
_OPEN_CLIP_VIT = {
    "stem": r"^class_embedding|^positional_embedding|^conv1|^ln_pre",
    "blocks": r"^transformer\.resblocks\.(\d+)",
}
_OPEN_CLIP_RESNET = {"stem": r"^conv\d|^bn\d", "blocks": r"^layer(\d+)"}
_TOKENS = {"class_embedding", "positional_embedding", "latent"}
_FOLDED = (99999,)  # timm's mark of what goes with the group before it (MATCH_PREV_GROUP)

Matcher = dict[str, Any] | Callable[[str], Any]
"""What timm's `group_matcher` gives: regular expressions by group, or a function from a name to its place."""


def block_of_parameters(trunk: Trunk, *, layered: bool = True) -> dict[str, str]:
    """The block of each parameter of a trunk's tower: `stem`, `block 0` (next to the stem) up to `block L-1`, `final`.

    The rule is timm's coarse grouping of parameters (`group_matcher`), which is made for layer decay; its sequence for
    checkpoints (`checkpoint_seq`) says nothing of stems, norms and what lies between stages. A block is one transformer
    block of a vision transformer and one stage of a convnet or of a transformer with stages; in a network of single layers
    (vgg) it is a layer. timm's first group is the stem. What timm folds into the group before it stays there when it is
    numbered (a transition between stages); otherwise (a final norm, the last convolution of mobile networks) it stands
    after the last block and is `final`, as is what timm leaves to the classifier (a projection, attention pooling).

    Args:
        trunk: of timm, open_clip or the workbench.
        layered: False takes a tower that cannot be layered as one block, `block 0`.

    Raises:
        ValueError: the tower cannot be layered; the message says which, why and what to do.
    """
    blocks = _find_blocks(trunk)
    if isinstance(blocks, dict):
        return blocks
    if layered:
        raise ValueError(
            f"The learning rates of {trunk.name} cannot be layered: {blocks}. Train all of it at one rate "
            "(blockwise_decay=1), or take another trunk."
        )
    return {name: "block 0" for name, _ in trunk.tower.named_parameters()}


def block_modules(trunk: Trunk) -> list[str]:
    """The names, within the tower, of the modules that are its blocks, from the stem upwards.

    A block that no single module holds is named by its parts; a tower that cannot be layered has none.
    """
    blocks = _find_blocks(trunk)
    if not isinstance(blocks, dict):
        return []
    held: dict[str, set[str]] = {}
    for name, block in blocks.items():
        for parent in _parents(name):
            held.setdefault(parent, set()).add(block)
    whole = {
        name: int(next(iter(found)).removeprefix("block "))
        for name, found in held.items()
        if len(found) == 1
        and found.isdisjoint((STEM, FINAL))
        and not isinstance(trunk.tower.get_submodule(name), nn.ModuleList | nn.ModuleDict)  # nobody calls these
    }
    outermost = [name for name in whole if whole.keys().isdisjoint(_parents(name))]
    return sorted(outermost, key=lambda name: whole[name])


def blockwise_groups(embedder: Embedder, loss: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: every trainable parameter of embedder and loss in exactly one of them.

    The centers of a center term are in none: they have an optimiser of their own.

    Each group has `params`, `lr` (the rate at the height of the schedule), `weight_decay`, `name` (stem, block 0 and up,
    final, head or loss) and `parameters` (their names). A block has up to two groups, with and without weight decay.
    The top block has `recipe.learning_rate_trunk`, each block below it `recipe.blockwise_decay` times the one above, the
    stem last. With a decay of 1 a trunk that cannot be layered is one block.

    Raises:
        ValueError: a decay other than 1 and a trunk that cannot be layered.

    Source: one rate a block, 0.7 from block to block: RetailKLIP (Srivastava, 2023). No weight decay on vectors, tokens
    and position encodings: the practice of timm.
    """
    tower = embedder.trunk.tower
    blocks = block_of_parameters(embedder.trunk, layered=recipe.blockwise_decay != 1)
    num_blocks = len(set(blocks.values()) - {STEM, FINAL})
    rates = {
        STEM: recipe.learning_rate_trunk * recipe.blockwise_decay**num_blocks,
        **{
            f"block {number}": recipe.learning_rate_trunk * recipe.blockwise_decay ** (num_blocks - 1 - number)
            for number in range(num_blocks)
        },
        FINAL: recipe.learning_rate_head,
        HEAD: recipe.learning_rate_head,
        LOSS: recipe.learning_rate_loss,
    }
    undecayed = _undecayed_names(tower)
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, block, parameter in _all_parameters(embedder, loss, blocks):
        if not parameter.requires_grad:
            continue
        is_token = name in undecayed or name.rpartition(".")[2] in _TOKENS
        decays = block != LOSS and parameter.ndim > 1 and not is_token
        group = groups.setdefault(
            (block, decays),
            {
                "params": [],
                "lr": rates[block],
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "name": block,
                "parameters": [],
            },
        )
        group["params"].append(parameter)
        group["parameters"].append(name)
    order = list(rates)
    return [groups[key] for key in sorted(groups, key=lambda key: (order.index(key[0]), not key[1]))]


def _find_blocks(trunk: Trunk) -> dict[str, str] | str:
    """The block of each parameter, or why there are none."""
    inner, prefix = _inner(trunk.tower)
    try:
        matcher = _matcher_of(inner)
    except (AssertionError, AttributeError, KeyError) as error:
        return f"timm's group_matcher fails on it ({type(error).__name__}: {error})"
    if matcher is None:
        return "it does not say which parameters make a block (group_matcher)"
    names = [name for name, _ in trunk.tower.named_parameters()]
    spots = {name: _spot(name.removeprefix(prefix), matcher) if name.startswith(prefix) else FINAL for name in names}
    number_of: dict[tuple[float, ...], int] = {}
    for key in sorted({key for key in spots.values() if isinstance(key, tuple)}):
        folded = number_of and key[-1:] == _FOLDED
        number_of[key] = max(number_of.values(), default=-1) + (not folded)
    if not number_of:
        return "none of its parameters belongs to a block"
    return {name: key if isinstance(key, str) else f"block {number_of[key]}" for name, key in spots.items()}


def _inner(tower: nn.Module) -> tuple[nn.Module, str]:
    """The module that knows its groups, and what its parameters' names begin with."""
    return (tower.trunk, "trunk.") if isinstance(tower, open_clip.model.TimmModel) else (tower, "")


def _matcher_of(tower: nn.Module) -> Matcher | None:
    if isinstance(tower, open_clip.model.VisionTransformer):
        return _OPEN_CLIP_VIT
    if isinstance(tower, open_clip.model.ModifiedResNet):
        return _OPEN_CLIP_RESNET
    group_matcher: Callable[..., Matcher] | None = getattr(tower, "group_matcher", None)
    return group_matcher and group_matcher(coarse=True)


def _spot(name: str, matcher: Matcher) -> str | tuple[float, ...]:
    """`stem`, `final`, or the numbers by which timm sorts a parameter's group; the first pattern that matches counts."""
    if not isinstance(matcher, dict):
        place = float(matcher(name))
        return STEM if place == 0 else FINAL if place == math.inf else (place,)
    for group, rules in enumerate(matcher.values()):
        for pattern, suffix in [(rules, None)] if isinstance(rules, str) else rules or []:
            if match := re.match(pattern, name):
                if group == 0:
                    return STEM
                if suffix == _FOLDED and not match.groups():
                    return FINAL
                return (group, *map(float, match.groups()), *(suffix or ()))
    return FINAL


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def _undecayed_names(tower: nn.Module) -> set[str]:
    inner, prefix = _inner(tower)
    stated = inner.no_weight_decay() if hasattr(inner, "no_weight_decay") else ()  # type: ignore[operator]
    return {f"{prefix}{name}" for name in stated}


def _all_parameters(
    embedder: Embedder, loss: nn.Module, blocks: dict[str, str]
) -> Iterator[tuple[str, str, nn.Parameter]]:
    for name, parameter in embedder.trunk.tower.named_parameters():
        yield name, blocks[name], parameter
    for name, parameter in embedder.head.named_parameters():
        yield f"head.{name}", HEAD, parameter
    centers = {id(center) for center in loss.center_parameters()} if isinstance(loss, TrainingLoss) else set()
    for name, parameter in loss.named_parameters():
        if id(parameter) in centers:
            continue
        yield f"loss.{name}", LOSS, parameter
