"""From random weights: a small convnet on a CPU, in minutes. A demonstration and a baseline, no rival to a pretrained trunk.

The values were found by measurement on `synthetic_products` (120 products, 13 pictures each, 20 epochs, timm:test_resnet
at 96 px): one packshot of each of 64 other products as the only reference, 640 queries. Batches of 64 at a rate of 2e-3
gave 60.9 %, of 32 gave 66.1 %; a rate of 4e-3 gave 70.0 %; class weights at 1e-2 and a margin of 8 degrees gave 74.1 %.
Untrained: 5.2 %. Cost: 160 seconds of one core.
"""

from workbench.training.recipe import Recipe

SCRATCH = Recipe(
    name="scratch",
    loss="arcface",
    margin_deg=8.0,  # the margin and scale for fine-tuning are too hard for random weights
    scale=20.0,
    learning_rate_trunk=4e-3,
    blockwise_decay=1.0,  # nothing is there to be preserved in the lower blocks
    learning_rate_head=4e-3,
    learning_rate_loss=1e-2,
    weight_decay=0.02,
    num_epochs=20,
    batch_size=32,
    warmup_steps=30,
    schedule="cosine",
    validation_interval=100,
    checkpoint_interval=100,
    num_workers=1,
)
