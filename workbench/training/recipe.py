"""A training recipe: every choice that decides what the weights become, in one frozen object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from workbench.data.augment import Augmentation
from workbench.training.recipe_checks import (
    Amp,
    Freeze,
    HeadChoice,
    Miner,
    NeckFeature,
    OptimizerKind,
    SamplerKind,
    Schedule,
    TripletDistance,
    check_field_names,
    find_mistakes,
)

NEUTRAL_FIELDS = ("name", "num_workers", "memory_mib", "checkpoint_interval")
"""Fields that change speed or bookkeeping and not one bit of the weights: a run may be resumed with others."""


@dataclass(frozen=True)
class Recipe:
    """How an embedder is trained.

    Attributes:
        name: what reports call it.
        loss: terms joined with `+`, at most one of them with a classifier (arcface, subcenter_arcface, dynamic_arcface,
            cross_entropy, max_entropy), and triplet, center. Such as `cross_entropy+triplet`.
        margin_deg, scale: of the ArcFace losses; the margin is an angle in degrees.
        subcenters: weight vectors a class, of subcenter_arcface.
        dynamic_margin_deg: margins of the largest and of the smallest class, degrees, of dynamic_arcface.
        label_smoothing: share of the truth that cross_entropy spreads over all classes.
        entropy_weight: of the prediction's entropy, which max_entropy rewards.
        triplet_margin: of triplet, in units of its distance; None is the soft margin, log(1 + exp(d_ap - d_an)).
        triplet_distance: euclidean (of vectors as they are) or cosine.
        miner: batch_hard (hardest positive and negative of each anchor) or all triplets.
        triplet_weight, classifier_weight, center_weight: of the terms in the sum.
        learning_rate_center: of the centers, which a plain SGD of their own steps, free of center_weight.
        head: `keep` trains the head that the embedder has; any other is put in its place, with random weights, unless the
            embedder has one of that kind and width (see `models.heads`).
        embedding_dim: width of a new head's embedding; None is the trunk's width.
        neck_feature: which side of a bnneck's norm is the embedding, after or before.
        last_stride: 1 keeps the last map of a timm ResNet twice as high and wide (see `models.strides`), which changes no
            weight; None keeps the trunk as it is.
        sampler: balanced (by breadth and depth) or identity (batches of P identities with K images each).
        images_per_identity: K of the identity sampler; P is batch_size / K.
        freeze: `trunk` or `head` keeps that part as it is, bit for bit, running statistics included; or none.
        head_first_steps: so many steps train head and loss alone, the others trunk and loss with the head frozen; 0 is
            off. One schedule goes over all steps.
        lora_rank, lora_alpha: low-rank updates of the attention take the place of the trunk's own weights, which stay;
            rank 0 is off, updates are scaled by alpha / rank.
        learning_rate_trunk: of the trunk's top block, at the height of the schedule.
        blockwise_decay: a block's rate is that of the block above it times this; the stem comes last. 1 is one rate, which
            trunks that cannot be layered want (see `blocks.block_of_parameters`).
        learning_rate_head: of the head and of what follows the last block (final norm, projection).
        learning_rate_loss: of the loss's class weights.
        optimizer: adamw, adam (weight decay enters the gradient) or sgd (momentum 0.9).
        weight_decay: of the optimiser; never on biases, norms, tokens, position encodings and the loss's class weights.
        num_steps, num_epochs: length in optimiser steps or in epochs; exactly one of them is given.
        batch_size: images an optimiser step.
        accumulation_steps: parts that a batch is computed in, one after the other, to save memory. Triplets are found
            within a part.
        warmup_steps: optimiser steps over which the rates rise linearly.
        schedule: after the warm-up, `cosine` down to zero, `constant`, or `multistep`.
        milestones, gamma: of multistep: at each of these shares of the length the rates are multiplied by gamma.
        depth: images an epoch that each class is over- or under-sampled to; None takes every image once, and with the
            identity sampler images_per_identity of each class.
        augmentation: what happens to an image each time it is seen; None shows it as it is.
        amp: mixed precision on a GPU: off, bfloat16 or float16 (with gradient scaling). A CPU computes in float32.
        gradient_checkpointing: keeps the blocks' inputs only and computes the rest twice, to save memory.
        ema_decay: of the exponential moving average of all weights, which is then validated and saved; 0 is off.
        clip_grad: largest norm of the gradient; longer ones are scaled down to it; 0 is off.
        freeze_batchnorm: keeps statistics and weights of the trunk's BatchNorm as they are (Musgrave et al., ECCV 2020).
        domain_weights: shares of the domains (real, synthetic, packshot), of each class's images when `depth` is given
            and of the epoch's otherwise; 0 leaves a domain out; None takes images as they come.
        validation_images_per_class: images of each class that are validated on, classes with fewer left out; None
            takes all.
        validation_interval: optimiser steps between validations; there is always one at the end.
        checkpoint_interval: optimiser steps between checkpoints.
        seed: of sampling, augmentation, the loss's weights, a new head, dropout.
        num_workers: processes that prepare images; 0 prepares them in between. Results do not depend on it.
        memory_mib: decoded images are kept in memory when all together take at most this; 0 decodes each time anew.

    Raises:
        ValueError: values or combinations that make no sense, all of them in one message, each with its reason.
    """

    name: str
    loss: str = "arcface"
    margin_deg: float = 28.6
    scale: float = 64.0
    subcenters: int = 3
    dynamic_margin_deg: tuple[float, float] = (2.9, 28.6)
    label_smoothing: float = 0.0
    entropy_weight: float = 0.1
    triplet_margin: float | None = 0.3
    triplet_distance: TripletDistance = "euclidean"
    miner: Miner = "batch_hard"
    triplet_weight: float = 1.0
    classifier_weight: float = 1.0
    center_weight: float = 5e-4
    learning_rate_center: float = 0.5
    head: HeadChoice = "keep"
    embedding_dim: int | None = None
    neck_feature: NeckFeature = "after"
    last_stride: int | None = None
    sampler: SamplerKind = "balanced"
    images_per_identity: int = 4
    freeze: Freeze = "none"
    head_first_steps: int = 0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    learning_rate_trunk: float = 2e-4
    blockwise_decay: float = 0.7
    learning_rate_head: float = 2e-4
    learning_rate_loss: float = 2e-3
    optimizer: OptimizerKind = "adamw"
    weight_decay: float = 0.05
    num_steps: int | None = None
    num_epochs: float | None = None
    batch_size: int = 64
    accumulation_steps: int = 1
    warmup_steps: int = 0
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    depth: int | None = None
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    amp: Amp = "off"
    gradient_checkpointing: bool = False
    ema_decay: float = 0.0
    clip_grad: float = 0.0
    freeze_batchnorm: bool = False
    domain_weights: Mapping[str, float] | None = None
    validation_images_per_class: int | None = None
    validation_interval: int = 100
    checkpoint_interval: int = 100
    seed: int = 0
    num_workers: int = 2
    memory_mib: int = 1024

    def __post_init__(self) -> None:
        mistakes = find_mistakes(self)
        if mistakes:
            raise ValueError(f"The recipe {self.name!r} cannot be trained: {'; '.join(mistakes)}.")

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """The terms of the loss, in the order in which they are named."""
        return tuple(self.loss.split("+"))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `from_dict` reads back."""
        described = asdict(self)
        described["domain_weights"] = None if self.domain_weights is None else dict(self.domain_weights)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in described.items()}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_dict` described.

        Raises:
            ValueError: a field that recipes do not have (any more: the message says what it is called now), or a value
                that is refused.
        """
        check_field_names(described, {one.name for one in fields(cls)})
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in described.items()
        }
        if values.get("augmentation") is not None:
            values["augmentation"] = Augmentation(**values["augmentation"])
        return cls(**values)
