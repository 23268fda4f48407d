"""LoRA on the attention of a vision transformer: peft's low-rank updates beside weights that stay, merged in the end.

A projection W [out, in] answers (W + alpha / rank B A) x while it is trained; A [rank, in] starts random and B [out, rank] at 0,
so that the trunk starts as it was. Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from workbench.models.trunk import Trunk
from workbench.training.blocks import block_of_parameters

_ATTENTIONS = ("attn", "self_attn")
_PROJECTIONS = ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "proj", "out_proj")


class SplitAttention(nn.Module):
    """The self-attention of an nn.MultiheadAttention with its own weights, through two linear layers that peft can wrap.

    peft's wrapper of nn.MultiheadAttention adds the update to the weights before each pass and subtracts it afterwards, so
    that weights which should stay drift by rounding.

    Attributes:
        qkv: to query, key and value, in this order.
        proj: back to the tokens.
        num_heads: which the width is shared out to.
    """

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = whole.num_heads
        self.qkv = nn.Linear(whole.embed_dim, 3 * whole.embed_dim, bias=whole.in_proj_bias is not None, device="meta")
        self.qkv.weight, self.qkv.bias = whole.in_proj_weight, whole.in_proj_bias
        self.proj = whole.out_proj

    def forward(
        self,
        query_NTC: torch.Tensor,
        key_NTC: torch.Tensor,
        value_NTC: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """The tokens [N, T, C] after attention among themselves, and no attention weights."""
        assert query_NTC is key_NTC is value_NTC
        assert not need_weights
        num_images, num_tokens, width = query_NTC.shape
        parts = self.qkv(query_NTC).reshape(num_images, num_tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.proj(mixed.transpose(1, 2).reshape(num_images, num_tokens, width)), None

    def whole(self) -> nn.MultiheadAttention:
        """The nn.MultiheadAttention with these weights, under its own names."""
        width, has_bias = self.proj.out_features, self.qkv.bias is not None
        built = nn.MultiheadAttention(width, self.num_heads, bias=has_bias, batch_first=True, device="meta")
        built.register_parameter("in_proj_weight", self.qkv.get_parameter("weight"))
        built.register_parameter("in_proj_bias", self.qkv.bias)
        built.out_proj = self.proj
        return built.train(self.training)


def add_lora(trunk: Trunk, rank: int, alpha: float, seed: int) -> None:
    """Puts low-rank updates beside all attention projections of the blocks, in place; they alone need a gradient afterwards.

    Args:
        trunk: a vision transformer of timm, of open_clip or of the workbench.
        rank: of each update.
        alpha: updates are scaled by alpha / rank.
        seed: of A.

    Raises:
        ValueError: a trunk without such projections (a convnet), with running statistics, or one that does not call its
            projections as layers, so that an update would have no effect. The trunk is as it was then.
    """
    tower = trunk.tower
    if any(isinstance(module, LoraLayer) for module in tower.modules()):
        raise ValueError(f"{trunk.name} has low-rank updates already; merge them first.")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tower.modules()):
        raise ValueError(
            f"LoRA is for vision transformers whose other weights stay as they are; {trunk.name} has BatchNorm layers, whose "
            "statistics would move. Take a plain vision transformer, or lora_rank=0."
        )
    in_blocks = {name for name, block in block_of_parameters(trunk, layered=False).items() if block.startswith("block")}
    attentions = [
        (name, module)
        for name, module in tower.named_modules()
        if name.rpartition(".")[2] in _ATTENTIONS and any(one.startswith(f"{name}.") for one in in_blocks)
    ]
    wholes = [(name, module) for name, module in attentions if isinstance(module, nn.MultiheadAttention)]
    targets = [
        f"{name}.{part}"
        for name, module in attentions
        for part in _PROJECTIONS
        if not isinstance(module, nn.MultiheadAttention) and isinstance(getattr(module, part, None), nn.Linear)
    ]
    _refuse(trunk, attentions, targets)
    for name, module in wholes:
        tower.set_submodule(name, SplitAttention(module))
        targets += [f"{name}.qkv", f"{name}.proj"]
    tower.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none")  # type: ignore[arg-type]  # alpha is divided only
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, tower)
    wrapped = {name for name, module in tower.named_modules() if isinstance(module, LoraLayer)}
    assert wrapped == set(targets), wrapped ^ set(targets)


def merge_lora(trunk: Trunk) -> None:
    """Adds the updates to the weights they stand beside, in place: the trunk is a plain one again, with its own names.

    Raises:
        ValueError: the trunk has no low-rank updates, or some are not finite.
    """
    tower = trunk.tower
    layers = [(name, module) for name, module in tower.named_modules() if isinstance(module, LoraLayer)]
    if not layers:
        raise ValueError(f"{trunk.name} has no low-rank updates to merge.")
    for name, layer in layers:
        layer.merge(safe_merge=True)
        tower.set_submodule(name, layer.get_base_layer())
    for name, module in list(tower.named_modules()):
        if isinstance(module, SplitAttention):
            tower.set_submodule(name, module.whole())
    if hasattr(tower, "peft_config"):
        del tower.peft_config
    tower.requires_grad_(True)


def _refuse(trunk: Trunk, attentions: list[tuple[str, nn.Module]], targets: list[str]) -> None:
    """Returns nothing when peft can wrap every attention and each wrapped layer is called."""
    if not attentions:
        raise ValueError(
            f"LoRA is for the attention of vision transformers; {trunk.name} has none in its blocks. Use lora_rank=0."
        )
    packed = [
        name
        for name, module in attentions
        if getattr(module, "in_proj_weight", None) is not None and not isinstance(module, nn.MultiheadAttention)
    ]
    packed += [
        name
        for name, module in attentions
        if isinstance(module, nn.MultiheadAttention)
        and (module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn or module.dropout)
    ]
    silent = set(targets)
    hooks = [
        trunk.tower.get_submodule(name).register_forward_hook(lambda *_, name=name: silent.discard(name))
        for name in targets
    ]
    training = trunk.training
    trunk.eval()
    with torch.no_grad():
        trunk(torch.zeros(1, 3, *trunk.preprocessing.image_size, device=next(trunk.parameters()).device))
    trunk.train(training)
    for hook in hooks:
        hook.remove()
    refused = [*packed, *sorted(silent)]
    if refused:
        raise ValueError(
            f"{trunk.name} computes its attention from the weights of {refused[0]} itself and not through a layer that could be "
            "wrapped, so that LoRA would have no effect there. Take another vision transformer, or lora_rank=0."
        )
