"""LoRA: low-rank updates of the attention of a vision transformer; the trunk's own weights stay and the updates are merged.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, through peft. Rank, alpha and rates are
this workbench's choice, of the order that is usual for vision transformers; all else is RetailKLIP's recipe.
"""

from dataclasses import replace

from workbench.training.recipes.retailklip import RETAILKLIP

LORA = replace(
    RETAILKLIP,
    name="lora",
    lora_rank=8,
    lora_alpha=16.0,
    learning_rate_trunk=1e-3,  # updates start at zero and are few, so they bear a larger rate than the weights
    blockwise_decay=1.0,
    weight_decay=0.0,
)
