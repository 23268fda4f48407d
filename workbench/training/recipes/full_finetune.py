"""Full fine-tuning with cross entropy: every weight of the trunk at one rate, a linear classifier on top.

Source: a baseline of RetailKLIP (Srivastava, VISAPP 2024), there on a ResNeXt-101 32x8d WSL, which is
`timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k`. Its rates are not published: all values below are this workbench's choice.
"""

from workbench.training.recipe import Recipe

FULL_FINETUNE = Recipe(
    name="full_finetune",
    loss="cross_entropy",  # paper
    head="identity",  # paper: the classifier sits on the trunk's features
    learning_rate_trunk=1e-4,
    blockwise_decay=1.0,
    learning_rate_head=1e-4,
    learning_rate_loss=1e-3,  # the classifier starts from noise
    weight_decay=0.05,
    num_epochs=20,
    batch_size=64,
    warmup_steps=100,
    amp="bfloat16",
    clip_grad=1.0,
    validation_interval=200,
    checkpoint_interval=200,
    num_workers=4,
)
