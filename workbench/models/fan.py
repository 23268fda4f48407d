"""FAN, the fully attentional network, written from its paper: self-attention over tokens, then attention over channels.

Axes: N images, T tokens, C channels of a token, A attention heads, E channels of one head (C = A E), D channels of the
hidden layer; H and W rows and columns of the map of tokens, 16 px each.

Source: Zhou et al., Understanding The Robustness in Vision Transformers (ICML 2022). The ConvNeXt blocks (Liu et al.
2022), the Fourier position encoding and the class attention (El-Nouby et al. 2021, XCiT, after Touvron et al. 2021,
CaiT) are timm's. Where the paper leaves it open: queries, keys and values have biases; norms have epsilon 1e-6, but for
that of the channels' values, which the authors' weights were trained with at 1e-5; the hidden layer of the channel MLP is
added to its depthwise branch and has no other activation; class attention normalises all tokens and doubles those of
patches, as XCiT does.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d, trunc_normal_
from timm.models.convnext import ConvNeXtBlock
from timm.models.xcit import ClassAttentionBlock, PositionalEncodingFourier
from torch import nn
from torch.nn import functional

PATCH_PX = 16
_LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class FAN(nn.Module):
    """The hybrid form: ConvNeXt blocks make the tokens, FAN blocks work on them, class attention sums them up.

    Attributes:
        patches: from images to the map of tokens, a convolutional network.
        position: Fourier encoding of the place in the map, added once; it has no size of its own.
        blocks: `num_blocks` FAN blocks and after them the class attention blocks, numbered on.
        num_features: width of a token; num_prefix_tokens: 1, the class token; patch_size: px that a token stands for.
        revision: of what is computed from the same weights, part of an embedder's fingerprint. 2: softmax before the mean of
            the channels' key, epsilon 1e-5 of the values' norm.
    """

    revision = 2
    num_prefix_tokens = 1
    patch_size = PATCH_PX

    def __init__(
        self,
        widths: tuple[int, int] = (128, 256),
        num_convolution_blocks: int = 3,
        num_features: int = 448,
        num_blocks: int = 16,
        num_class_blocks: int = 2,
        num_heads: int = 8,
    ) -> None:
        super().__init__()
        self.num_features, self.num_patch_blocks = num_features, num_blocks
        narrow, wide = widths
        parts: dict[str, nn.Module] = {
            "stem": nn.Conv2d(3, narrow, 4, stride=4),
            "stem_norm": LayerNorm2d(narrow),
            "stage_0": nn.Sequential(*(ConvNeXtBlock(narrow) for _ in range(num_convolution_blocks))),
            "between_norm": LayerNorm2d(narrow),
            "between": nn.Conv2d(narrow, wide, 2, stride=2),
            "stage_1": nn.Sequential(*(ConvNeXtBlock(wide) for _ in range(num_convolution_blocks))),
            "projection": nn.Conv2d(wide, num_features, 2, stride=2),
        }
        self.patches = nn.Sequential(OrderedDict(parts))
        self.position = PositionalEncodingFourier(hidden_dim=32, dim=num_features)
        patch_blocks = [FANBlock(num_features, num_heads) for _ in range(num_blocks)]
        class_blocks = [
            ClassAttentionBlock(
                num_features,
                num_heads,
                qkv_bias=True,
                norm_layer=_LayerNorm,  # type: ignore[arg-type]
                tokens_norm=True,
            )
            for _ in range(num_class_blocks)
        ]
        self.blocks = nn.ModuleList([*patch_blocks, *class_blocks])
        self.class_token = nn.Parameter(torch.zeros(1, 1, num_features))
        self.norm = _LayerNorm(num_features)
        self.apply(_start)
        trunc_normal_(self.class_token, std=0.02)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """The class token after the final norm, float [N, num_features]."""
        return self.forward_features(images_NCHW)[:, 0]

    def forward_features(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """All tokens after the final norm, float [N, 1 + T, num_features], the class token first, then row by row.

        Raises:
            ValueError: a side of the images is no multiple of 16 px.
        """
        if images_NCHW.shape[2] % PATCH_PX or images_NCHW.shape[3] % PATCH_PX:
            raise ValueError(
                f"FAN makes a token of {PATCH_PX}x{PATCH_PX} px: images of {tuple(images_NCHW.shape[2:])} do not divide."
            )
        map_NCHW = self.patches(images_NCHW)
        grid = (map_NCHW.shape[2], map_NCHW.shape[3])
        tokens_NTC = (map_NCHW + self.position(1, *grid)).flatten(2).transpose(1, 2)
        blocks = list(self.blocks)
        for block in blocks[: self.num_patch_blocks]:
            tokens_NTC = block(tokens_NTC, grid)
        tokens_NTC = torch.cat([self.class_token.expand(tokens_NTC.shape[0], -1, -1), tokens_NTC], dim=1)
        for block in blocks[self.num_patch_blocks :]:
            tokens_NTC = block(tokens_NTC)
        normed_NTC: torch.Tensor = self.norm(tokens_NTC)
        return normed_NTC

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters are the stem and which a block, as timm's models say it; `coarse` changes nothing."""
        return {"stem": r"^class_token|^patches\.|^position\.", "blocks": r"^blocks\.(\d+)"}

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters with more than one axis that weight decay leaves alone."""
        temperatures = {f"blocks.{number}.channels.temperature" for number in range(self.num_patch_blocks)}
        return {"class_token", *temperatures}


class FANBlock(nn.Module):
    """Self-attention and channel processing, each on normed tokens, scaled by channel and added; scales start at 1."""

    def __init__(self, num_channels: int, num_heads: int) -> None:
        super().__init__()
        self.token_norm = _LayerNorm(num_channels)
        self.attention = TokenAttention(num_channels, num_heads)
        self.token_gamma = nn.Parameter(torch.ones(num_channels))
        self.channel_norm = _LayerNorm(num_channels)
        self.channels = ChannelProcessing(num_channels, num_heads)
        self.channel_gamma = nn.Parameter(torch.ones(num_channels))

    def forward(self, tokens_NTC: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Tokens, float [N, T, C], of a map of `grid` rows and columns."""
        tokens_NTC = tokens_NTC + self.token_gamma * self.attention(self.token_norm(tokens_NTC))
        return tokens_NTC + self.channel_gamma * self.channels(self.channel_norm(tokens_NTC), grid)


class TokenAttention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, num_channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(num_channels, num_channels)
        self.key_value = nn.Linear(num_channels, 2 * num_channels)
        self.projection = nn.Linear(num_channels, num_channels)

    def forward(self, tokens_NTC: torch.Tensor) -> torch.Tensor:
        """Tokens, float [N, T, C]."""
        key_NTC, value_NTC = self.key_value(tokens_NTC).chunk(2, dim=2)
        attended_NATE = functional.scaled_dot_product_attention(
            _by_head(self.query(tokens_NTC), self.num_heads),
            _by_head(key_NTC, self.num_heads),
            _by_head(value_NTC, self.num_heads),
        )
        projected: torch.Tensor = self.projection(attended_NATE.transpose(1, 2).flatten(2))
        return projected


class ChannelProcessing(nn.Module):
    """What FAN has in place of a transformer's MLP: an MLP's output, each channel weighted by how it fits its head.

    Per head: the query of a channel is its linear map, softmax over tokens; the key is the softmax over tokens of each of
    the head's channels, and then their mean; the sigmoid of their product, times the head's temperature, weights the
    channel's values.
    """

    def __init__(self, num_channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.query = nn.Linear(num_channels, num_channels)
        self.values = LocalMlp(num_channels, 4 * num_channels)
        self.norm = nn.LayerNorm(num_channels, eps=1e-5)

    def forward(self, tokens_NTC: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Tokens, float [N, T, C], of a map of `grid` rows and columns."""
        weight_N1C = self.weigh(tokens_NTC)
        weighted: torch.Tensor = weight_N1C * self.norm(self.values(tokens_NTC, grid))
        return weighted

    def weigh(self, tokens_NTC: torch.Tensor) -> torch.Tensor:
        """The weight of each channel, float [N, 1, C], between 0 and its head's temperature."""
        query_NATE = _by_head(self.query(tokens_NTC), self.num_heads).softmax(dim=2)
        key_NAT1 = _by_head(tokens_NTC, self.num_heads).softmax(dim=2).mean(dim=3, keepdim=True)
        weight_NAE1 = torch.sigmoid(query_NATE.transpose(2, 3) @ key_NAT1) * self.temperature
        return weight_NAE1.flatten(1)[:, None]


class LocalMlp(nn.Module):
    """Two linear layers; between them a depthwise branch, 3x3 twice, looks at the neighbours in the map and is added."""

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(num_channels, num_hidden)
        local: dict[str, nn.Module] = {
            "first": nn.Conv2d(num_hidden, num_hidden, 3, padding=1, groups=num_hidden),
            "activation": nn.GELU(),
            "batch_norm": nn.BatchNorm2d(num_hidden),
            "second": nn.Conv2d(num_hidden, num_hidden, 3, padding=1, groups=num_hidden),
        }
        self.local = nn.Sequential(OrderedDict(local))
        self.gamma = nn.Parameter(torch.ones(num_hidden))
        self.contract = nn.Linear(num_hidden, num_channels)

    def forward(self, tokens_NTC: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Tokens, float [N, T, C], of a map of `grid` rows and columns."""
        hidden_NTD = self.expand(tokens_NTC)
        local_NDHW = self.local(hidden_NTD.transpose(1, 2).unflatten(2, grid))
        hidden_NTD = hidden_NTD + self.gamma * local_NDHW.flatten(2).transpose(1, 2)
        contracted: torch.Tensor = self.contract(hidden_NTD)
        return contracted


def fan_base_hybrid() -> FAN:
    """FAN-B-Hybrid with random weights: 448 features, 196 tokens at 224 px, 50 026 048 parameters."""
    return FAN()


def _by_head(tokens_NTC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The channels of each head apart, float [N, A, T, E]."""
    return tokens_NTC.unflatten(2, (num_heads, -1)).transpose(1, 2)


def _start(module: Any) -> None:
    """Matrices and kernels from a normal of deviation 0.02, cut at 2; biases 0, as ViT and ConvNeXt start."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
