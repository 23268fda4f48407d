"""One learning rate a block: which parameter belongs to which block of a trunk, and the rates that follow."""

import re
from collections.abc import Iterator
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


def block_of_parameters(trunk: Trunk) -> dict[str, str]:
    """The block of each parameter of a trunk's tower: `stem`, `block 0` (next to the stem) up to `block L-1`, `final`.

    A block is one transformer block of a vision transformer and one stage of a convnet or of a transformer with stages,
    as timm groups them. `final` is what follows the last block: a final norm, a projection, attention pooling.

    Raises:
        ValueError: the tower says nothing of its blocks.
    """
    spots = {name: _spot(name, matcher_of(trunk)) for name, _ in trunk.tower.named_parameters()}
    order = {
        key: number for number, key in enumerate(sorted({key for key in spots.values() if isinstance(key, tuple)}))
    }
    if not order:
        raise ValueError(
            f"No block was found among the parameters of {trunk.name}; its learning rates cannot be layered."
        )
    return {name: key if isinstance(key, str) else f"block {order[key]}" for name, key in spots.items()}


def block_modules(trunk: Trunk) -> list[str]:
    """The names, within the tower, of the modules that are its blocks, from the stem upwards."""
    patterns = _block_patterns(matcher_of(trunk))
    found: dict[str, tuple[float, ...]] = {}
    for name, _ in trunk.tower.named_parameters():
        for pattern in patterns:
            if match := re.match(pattern, name):
                found[match.group(0)] = tuple(map(float, match.groups()))
                break
    return sorted(found, key=lambda name: found[name])


def blockwise_groups(embedder: Embedder, loss: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: every trainable parameter of embedder and loss in exactly one of them.

    The centers of a center term are in none: they have an optimiser of their own.

    Each group has `params`, `lr` (the rate at the height of the schedule), `weight_decay`, `name` (stem, block 0 and up,
    final, head or loss) and `parameters` (their names). A block has up to two groups, with and without weight decay.
    The top block has `recipe.learning_rate_trunk`, each block below it `recipe.blockwise_decay` times the one above, the
    stem last.

    Source: one rate a block, 0.7 from block to block: RetailKLIP (Srivastava, 2023). No weight decay on vectors, tokens
    and position encodings: the practice of timm and DINOv2.
    """
    tower = embedder.trunk.tower
    blocks = block_of_parameters(embedder.trunk)
    num_blocks = len(block_modules(embedder.trunk))
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


def matcher_of(trunk: Trunk) -> dict[str, Any]:
    """Regular expressions for the tower's parameter names, as timm's `group_matcher` gives them, keys stem and blocks."""
    tower = trunk.tower
    if isinstance(tower, open_clip.model.VisionTransformer):
        return _OPEN_CLIP_VIT
    if isinstance(tower, open_clip.model.ModifiedResNet):
        return _OPEN_CLIP_RESNET
    inner, prefix = (tower.trunk, r"trunk\.") if isinstance(tower, open_clip.model.TimmModel) else (tower, "")
    if not hasattr(inner, "group_matcher"):
        raise ValueError(f"{trunk.name} does not say which parameters make a block; take another trunk.")
    matcher = inner.group_matcher(coarse=True)  # type: ignore[operator]
    return {key: _prefixed(value, prefix) for key, value in matcher.items()}


def _prefixed(patterns: Any, prefix: str) -> Any:
    if not prefix or patterns is None:
        return patterns
    if isinstance(patterns, str):
        return re.compile(prefix + f"(?:{patterns.replace('^', '')})").pattern
    return [(_prefixed(pattern, prefix), suffix) for pattern, suffix in patterns]


def _block_patterns(matcher: dict[str, Any]) -> list[str]:
    """The patterns of real blocks; those with a suffix add a final norm to the block before, here it is `final`."""
    blocks = matcher["blocks"]
    return [blocks] if isinstance(blocks, str) else [pattern for pattern, suffix in blocks if suffix is None]


def _spot(name: str, matcher: dict[str, Any]) -> str | tuple[float, ...]:
    stems = [matcher["stem"]] if isinstance(matcher["stem"], str) else [pattern for pattern, _ in matcher["stem"]]
    if any(re.match(pattern, name) for pattern in stems):
        return STEM
    for pattern in _block_patterns(matcher):
        if match := re.match(pattern, name):
            return tuple(map(float, match.groups()))
    return FINAL


def _undecayed_names(tower: nn.Module) -> set[str]:
    inner, prefix = (tower.trunk, "trunk.") if isinstance(tower, open_clip.model.TimmModel) else (tower, "")
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
