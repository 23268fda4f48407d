"""NVIDIA's Retail Object Recognition v2.0: a frozen trunk, four serial adaptors, an embedding and a classifier trained jointly.

Source: the cards of Retail Object Recognition v2.0 and NV-DINOv2. Trunks there: FAN-B-Hybrid, 448 features
(`workbench:fan_base_hybrid`), and NV-DINOv2, 1024 (`workbench:nv_dinov2`). The cards name architecture and losses; TAO
cannot train them (classifier and cross entropy are gone from it), so that rates and length are this workbench's choice.
Both outputs are kept: the embedding for a gallery, the classifier for the classes of the training. Set augmentation to None
and each image is embedded once, which turns hours into seconds.
"""

from workbench.training.recipe import Recipe

NVIDIA_ADAPTORS = Recipe(
    name="nvidia_adaptors",
    loss="cross_entropy+triplet",  # card: cross entropy on the last adaptor, triplet on the embedding
    triplet_distance="cosine",
    triplet_margin=0.3,
    head="adaptors",  # card: four adaptors; in series by a reading of the released weights
    freeze="trunk",  # card
    sampler="identity",
    images_per_identity=4,
    blockwise_decay=1.0,
    learning_rate_head=1e-3,
    learning_rate_loss=1e-3,
    weight_decay=0.05,
    num_epochs=30,
    batch_size=64,
    warmup_steps=100,
    depth=20,
    amp="bfloat16",
    clip_grad=1.0,
    validation_interval=200,
    checkpoint_interval=200,
    num_workers=4,
)
