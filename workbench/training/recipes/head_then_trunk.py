"""Head first, then the trunk at a far smaller rate with the head frozen: a foundation model is moved little, and late.

Source: Shao and Cui, "1st Place Solution in Google Universal Images Embedding", 2022, with the authors' code: 64 dimensions, a
margin, in the second phase the head frozen and the trunk at a rate 80 times smaller. Trunk there: a ViT-H/14 of OpenCLIP,
`open_clip:ViT-H-14/laion2b_s32b_b79k`. In their second phase the class vectors stand still too; here they go on. They train
with SGD, the head at 0.02, and with dropout before it. What is not said here to be theirs is this workbench's choice.
"""

from workbench.training.recipe import Recipe

HEAD_THEN_TRUNK = Recipe(
    name="head_then_trunk",
    loss="arcface",  # theirs takes 0.55 off the cosine, as CosFace does
    margin_deg=28.6,
    scale=30.0,  # theirs
    head="linear",  # theirs
    embedding_dim=64,  # theirs
    head_first_steps=1000,
    learning_rate_head=8e-4,
    learning_rate_trunk=1e-5,  # theirs: 80 times smaller
    blockwise_decay=1.0,
    learning_rate_loss=8e-4,
    weight_decay=0.05,
    num_steps=3000,
    batch_size=64,
    warmup_steps=100,
    schedule="cosine",
    depth=20,
    amp="bfloat16",
    clip_grad=1.0,
    validation_interval=250,
    checkpoint_interval=250,
    num_workers=4,
)
