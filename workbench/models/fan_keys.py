"""Which published tensor of FAN is which of ours, and a report of what did not match."""

import logging
import re

import pandas as pd
import torch

from workbench.models.fan import FAN
from workbench.models.weights import outer_prefix

logger = logging.getLogger(__name__)

# Published names, without what comes after the last dot of a module, and ours; class blocks are numbered on from the others.
_MODULES = {
    r"patch_embed\.backbone\.stem\.0": "patches.stem",
    r"patch_embed\.backbone\.stem\.1": "patches.stem_norm",
    r"patch_embed\.backbone\.stages\.1\.downsample\.0": "patches.between_norm",
    r"patch_embed\.backbone\.stages\.1\.downsample\.1": "patches.between",
    r"patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)": r"patches.stage_\1.\2",
    r"patch_embed\.proj": "patches.projection",
    r"pos_embed\.token_projection": "position.token_projection",
    r"blocks\.(\d+)\.norm1": r"blocks.\1.token_norm",
    r"blocks\.(\d+)\.norm2": r"blocks.\1.channel_norm",
    r"blocks\.(\d+)\.gamma1": r"blocks.\1.token_gamma",
    r"blocks\.(\d+)\.gamma2": r"blocks.\1.channel_gamma",
    r"blocks\.(\d+)\.attn\.q": r"blocks.\1.attention.query",
    r"blocks\.(\d+)\.attn\.kv": r"blocks.\1.attention.key_value",
    r"blocks\.(\d+)\.attn\.proj": r"blocks.\1.attention.projection",
    r"blocks\.(\d+)\.mlp\.temperature": r"blocks.\1.channels.temperature",
    r"blocks\.(\d+)\.mlp\.q": r"blocks.\1.channels.query",
    r"blocks\.(\d+)\.mlp\.norm_v": r"blocks.\1.channels.norm",
    r"blocks\.(\d+)\.mlp\.mlp_v\.gamma": r"blocks.\1.channels.values.gamma",
    r"blocks\.(\d+)\.mlp\.mlp_v\.fc1": r"blocks.\1.channels.values.expand",
    r"blocks\.(\d+)\.mlp\.mlp_v\.fc2": r"blocks.\1.channels.values.contract",
    r"blocks\.(\d+)\.mlp\.mlp_v\.dwconv\.conv1": r"blocks.\1.channels.values.local.first",
    r"blocks\.(\d+)\.mlp\.mlp_v\.dwconv\.bn": r"blocks.\1.channels.values.local.batch_norm",
    r"blocks\.(\d+)\.mlp\.mlp_v\.dwconv\.conv2": r"blocks.\1.channels.values.local.second",
    r"cls_token": "class_token",
}
COLUMNS = ["status", "name_in_file", "own_name", "shape_in_file", "own_shape"]
REFUSED = ("missing", "unexpected", "shape differs")


def match_names(tower: FAN, state: dict[str, torch.Tensor]) -> pd.DataFrame:
    """How a state fits a FAN: one row a tensor of either, columns `COLUMNS`; nothing is loaded.

    `status` is matched; missing (ours, not in the state); unexpected (in the state, not ours); shape differs; or left
    out: the classifier (`head`), and what stands outside the trunk's prefix. Axes of length 1 do not count in a
    shape: a 1x1 kernel is a matrix. Names and shapes of the side that lacks a tensor are None.

    Args:
        tower: what the state is for.
        state: under the published names or under ours, either may follow a known prefix such as `module.backbone.`.

    Raises:
        ValueError: the state has no class token, or several, or stands under a prefix that is not known.
    """
    prefix = outer_prefix(list(state), ("cls_token", "class_token"))
    published = f"{prefix}cls_token" in state
    own = tower.state_dict()
    rows: list[tuple[str, str | None, str | None, tuple[int, ...] | None, tuple[int, ...] | None]] = []
    for name, value in state.items():
        inner = name.removeprefix(prefix) if name.startswith(prefix) else None
        if inner is None or inner.startswith("head."):
            rows.append(("left out", name, None, tuple(value.shape), None))
            continue
        renamed = _rename(inner, tower.num_patch_blocks) if published else inner
        if renamed not in own:
            rows.append(("unexpected", name, None, tuple(value.shape), None))
            continue
        shapes = tuple(value.shape), tuple(own[renamed].shape)
        fits = [size for size in shapes[0] if size != 1] == [size for size in shapes[1] if size != 1]
        rows.append(("matched" if fits else "shape differs", name, renamed, *shapes))
    given = {row[2] for row in rows}
    rows += [
        ("missing", None, name, None, tuple(value.shape))
        for name, value in own.items()
        if name not in given and not name.endswith("num_batches_tracked")  # a counter that no output depends on
    ]
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def load_published(tower: FAN, state: dict[str, torch.Tensor], origin: str = "The state") -> pd.DataFrame:
    """Loads a state into a FAN, in place, whole or not at all; returns and logs the report of `match_names`.

    Args:
        tower: is changed only if everything fits.
        state: under the published names or under ours.
        origin: what the messages call it, such as the file's path.

    Raises:
        ValueError: something is missing, unexpected or of another shape; the message has the report.
    """
    try:
        report = match_names(tower, state)
    except ValueError as error:
        raise ValueError(f"{origin} does not fit FAN: {error}") from error
    counts = ", ".join(f"{number} {status}" for status, number in report["status"].value_counts().items())
    wrong = report[report["status"].isin(REFUSED)]
    if len(wrong):
        shown = wrong.head(20).to_string(index=False)
        raise ValueError(
            f"{origin} does not fit FAN: {counts}. Nothing was loaded. The first that did not match:\n{shown}"
        )
    matched = report[report["status"] == "matched"]
    own = tower.state_dict()
    for name, own_name in zip(matched["name_in_file"], matched["own_name"], strict=True):
        own[own_name].copy_(state[name].reshape(own[own_name].shape))
    left_out = list(report.loc[report["status"] == "left out", "name_in_file"])
    logger.info("%s: %s.%s", origin, counts, f" Left out: {', '.join(left_out[:10])}." if left_out else "")
    return report


def _rename(name: str, num_patch_blocks: int) -> str | None:
    """Our name of a published one; None where there is none."""
    if match := re.fullmatch(r"cls_attn_blocks\.(\d+)\.(.+)", name):
        return f"blocks.{num_patch_blocks + int(match[1])}.{match[2]}"
    if re.fullmatch(r"norm\.(weight|bias)", name):
        return name
    for published, own in _MODULES.items():
        if match := re.match(rf"{published}(?=\.|$)", name):
            return match.expand(own) + name[match.end() :]
    return None
