"""ReIdentificationNet: label-smoothed cross entropy and batch-hard triplet on either side of a batch norm.

Sources: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-Identification", CVPR workshops 2019, with the
authors' code (configuration softmax_triplet_with_center); NVIDIA's ReIdentificationNet, which trains so in TAO. Trunk there:
ResNet50 at 256x128 px, `timm:resnet50.a1_in1k`; one that is no ResNet wants `settings=last_stride=none`. The width is swept in
one call of notebook 02, up to 2048: `--sweep 'settings="embedding_dim=64","embedding_dim=128","embedding_dim=256"'`.

Values that are not marked are those of both. What is done with them differs from both here:
- Weight decay is on matrices and kernels of trunk and head alone; theirs is on everything, norms, biases and the classifier.
- Centers start at 0 and make the step of Wen et al. (ECCV 2016): with 4 images in the batch 0.4 of the way to their mean.
  Luo et al. start them at random and free the loss's own gradient, a mean over the batch, of its weight, so that it is 4/64
  of the way; TAO has an optimiser for them that it never calls.
- The rates rise with every step of the warm-up, from nearly 0; theirs with every epoch, from 1 %.
- An epoch is `depth` images of each identity; theirs gives each image about once, in fours.
- Crops and erased rectangles are those of `Augmentation`, see below.
"""

from workbench.data.augment import Augmentation
from workbench.training.recipe import Recipe

REID_BNNECK = Recipe(
    name="reid_bnneck",
    loss="cross_entropy+triplet+center",  # paper; TAO has with_center_loss off, which is loss="cross_entropy+triplet"
    label_smoothing=0.1,
    triplet_margin=0.3,
    triplet_distance="euclidean",
    miner="batch_hard",
    center_weight=5e-4,
    learning_rate_center=0.5,  # of another step than theirs, see above
    head="bnneck",
    embedding_dim=256,  # TAO's feat_dim; None is the trunk's 2048, as in the paper
    neck_feature="after",
    last_stride=1,
    sampler="identity",
    images_per_identity=4,
    learning_rate_trunk=3.5e-4,
    blockwise_decay=1.0,
    learning_rate_head=3.5e-4,
    learning_rate_loss=3.5e-4,  # one rate for all
    optimizer="adam",
    weight_decay=5e-4,
    num_epochs=120,  # paper
    batch_size=64,
    warmup_steps=1880,  # both: 10 epochs, here of Market-1501
    schedule="multistep",
    milestones=(40 / 120, 70 / 120),
    gamma=0.1,
    depth=16,  # images of an identity an epoch: Market-1501 has 17 on average, and an epoch its length then
    augmentation=Augmentation(
        # both pad by 10 px and crop back, which shifts by up to 8 % of the width; here a crop of 85 % of the area or more.
        # both fill 2 to 40 % of the area with the mean colour; here 2 to 20 % with noise
        crop_share=0.85,
        rotation_deg=0.0,
        perspective=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        blur_share=0.0,
        flip_share=0.5,
        erase_share=0.5,
    ),
    amp="bfloat16",  # ours
    validation_interval=500,
    checkpoint_interval=500,
    num_workers=4,
)
