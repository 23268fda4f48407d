"""NVIDIA's Retail Object Recognition v1.0: a ResNet101, one linear embedder of its width, triplet loss on cosine.

Source: its model card, and TAO's metric learning recognition, whose option names are in `tao_counterparts`. Trunk there:
ResNet101 at 224 px, `timm:resnet101.a1_in1k`, embedder 2048 -> 2048. In its code of 2024 TAO's scheduler never steps, so that
its rates stay at 1 % of what is asked (before, it did); here they are what they say. What is not marked is this workbench's
choice.
"""

from workbench.training.recipe import Recipe

NVIDIA_V1_TRIPLET = Recipe(
    name="nvidia_v1_triplet",
    loss="triplet",  # card
    triplet_distance="cosine",  # card; TAO's loss takes the Euclidean distance of vectors of length 1
    triplet_margin=0.3,  # TAO's example, which puts softplus in the place of the hinge (smooth_loss)
    miner="batch_hard",  # TAO mines by multi-similarity
    head="linear",  # card: one layer, as wide as the trunk (embedding_dim None)
    sampler="identity",  # TAO samples m images a class too (PML's MPerClassSampler)
    images_per_identity=4,  # TAO's example
    learning_rate_trunk=1e-4,  # card: rates apart, the embedder's the smaller; 1e-5 and 1e-6 in TAO's example
    learning_rate_head=2e-5,
    blockwise_decay=1.0,
    optimizer="adam",  # TAO
    weight_decay=1e-4,  # TAO's example; there on norms too, and 5e-4 on biases
    num_epochs=60,
    batch_size=64,
    warmup_steps=100,
    schedule="multistep",  # TAO: warm-up, then steps
    milestones=(1 / 3, 7 / 12),  # epochs 40 and 70 of 140 in TAO's example
    gamma=0.1,  # TAO's example
    depth=20,
    amp="bfloat16",
    freeze_batchnorm=True,  # with Musgrave et al.: batches are no random sample of the data
    validation_interval=200,
    checkpoint_interval=200,
    num_workers=4,
)
