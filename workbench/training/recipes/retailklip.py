"""RetailKLIP: an OpenCLIP ViT-L/14 image tower tuned with ArcFace so that one reference image a product is enough.

Source: Srivastava, "RetailKLIP: Finetuning OpenCLIP Backbone Using Metric Learning on a Single GPU for Zero-Shot Retail
Product Image Classification", VISAPP 2024. Trunk in the paper: `open_clip:ViT-L-14/laion2b_s32b_b82k`.

What the paper states is marked "paper" below. Everything else is this workbench's choice. Cost: ViT-L/14 at 224 px does
some 490 GFLOP an image and step, forward and backward.
"""

from dataclasses import replace

from workbench.training.recipe import Recipe

RETAILKLIP = Recipe(
    name="retailklip",
    loss="arcface",  # paper, as in pytorch-metric-learning
    margin_deg=28.6,  # pytorch-metric-learning's default, 0.5 rad as in ArcFace's own paper
    scale=64.0,  # pytorch-metric-learning's default, as in ArcFace's own paper
    head="keep",  # paper: the image tower's own embedding
    learning_rate_trunk=2e-4,  # paper: at the top block
    blockwise_decay=0.7,  # paper: from block to block, stem last
    learning_rate_head=2e-4,  # not published: that of the top block
    learning_rate_loss=2e-3,  # not published: class weights start from noise and move ten times faster
    weight_decay=0.05,  # not published; AdamW is (paper). The usual value for fine-tuning vision transformers
    num_epochs=10,  # not published
    batch_size=64,  # not published
    warmup_steps=100,  # not published
    schedule="cosine",  # not published
    depth=20,  # paper: chosen by a sweep on validation, value depends on the data; 20 to 30 images are a usual class
    amp="bfloat16",  # not published
    clip_grad=1.0,  # not published; ArcFace from noise has large gradients at first
    validation_images_per_class=2,  # paper: equally many a class, of the classes seen in training; the count is not
    validation_interval=200,
    checkpoint_interval=200,
    num_workers=4,
)

RETAILKLIP_11GB = replace(
    RETAILKLIP,
    name="retailklip_11gb",
    # paper: fitted on one GPU of 11 GB, whose generation (Turing) computes in float16 and not in bfloat16
    amp="float16",
    gradient_checkpointing=True,
    accumulation_steps=4,
)
