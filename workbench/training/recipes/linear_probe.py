"""A linear classifier on a frozen trunk: what the trunk knows already. The embedding stays the trunk's own.

Source: a baseline of RetailKLIP (Srivastava, VISAPP 2024), there on trunks of semi-supervised learning (Yalniz et al., 2019):
`timm:resnext101_32x8d.fb_swsl_ig1b_ft_in1k`, `timm:resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k`. Its rates are not published.
Without augmentation each image is embedded once: a training costs one pass over the images and then seconds.
"""

from workbench.training.recipe import Recipe

LINEAR_PROBE = Recipe(
    name="linear_probe",
    loss="cross_entropy",
    head="identity",
    freeze="trunk",  # paper
    blockwise_decay=1.0,
    learning_rate_loss=1e-2,  # not published: convex, and cheap to try others
    weight_decay=0.0,
    num_epochs=100,
    batch_size=256,
    warmup_steps=20,
    augmentation=None,
    amp="bfloat16",
    validation_interval=200,
    checkpoint_interval=500,
    num_workers=4,
)
