"""A training recipe: every choice that decides what the weights become, in one frozen object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from workbench.data.augment import Augmentation

LossKind = Literal["arcface"]
HeadChoice = Literal["keep", "identity", "linear"]
Schedule = Literal["cosine", "constant"]
Amp = Literal["off", "bfloat16", "float16"]

NEUTRAL_FIELDS = ("name", "num_workers", "memory_mib", "checkpoint_interval")
"""Fields that change speed or bookkeeping and not one bit of the weights: a run may be resumed with others."""


@dataclass(frozen=True)
class Recipe:
    """How an embedder is trained.

    Attributes:
        name: what reports call it.
        loss: arcface (Deng et al., CVPR 2019), as in pytorch-metric-learning.
        margin_deg, scale: of ArcFace; the margin is an angle in degrees.
        head: `keep` trains the head that the embedder has; `identity` or `linear` puts that one in its place.
        embedding_dim: width of a `linear` head; None is the trunk's width.
        learning_rate: of the trunk's top block, at the height of the schedule.
        blockwise_decay: a block's rate is that of the block above it times this; the stem comes last. 1 is one rate.
        learning_rate_head: of the head and of what follows the last block (final norm, projection).
        learning_rate_loss: of the loss's class weights.
        weight_decay: of AdamW; never on biases, norms, tokens, position encodings and the loss's class weights.
        num_steps, num_epochs: length in optimiser steps or in epochs; exactly one of them is given.
        batch_size: images an optimiser step.
        accumulation_steps: parts that a batch is computed in, one after the other, to save memory.
        warmup_steps: optimiser steps over which the rates rise linearly.
        schedule: after the warm-up, `cosine` down to zero or `constant`.
        depth: images an epoch that each class is over- or under-sampled to; None takes every image once.
        augmentation: what happens to an image each time it is seen; None shows it as it is.
        amp: mixed precision on a GPU: off, bfloat16 or float16 (with gradient scaling). A CPU computes in float32.
        gradient_checkpointing: keeps the blocks' inputs only and computes the rest twice, to save memory.
        ema_decay: of the exponential moving average of all weights, which is then validated and saved; 0 is off.
        clip_grad: largest norm of the gradient; longer ones are scaled down to it; 0 is off.
        freeze_batchnorm: keeps the statistics and the weights of BatchNorm as they are (Musgrave et al., ECCV 2020).
        domain_weights: shares of the domains (real, synthetic, packshot), of each class's images when `depth` is given
            and of the epoch's otherwise; 0 leaves a domain out; None takes images as they come.
        validation_images_per_class: images of each class that are validated on, classes with fewer left out; None
            takes all.
        validation_interval: optimiser steps between validations; there is always one at the end.
        checkpoint_interval: optimiser steps between checkpoints.
        seed: of sampling, augmentation, the loss's weights, a new head, dropout.
        num_workers: processes that prepare images; 0 prepares them in between. Results do not depend on it.
        memory_mib: decoded images are kept in memory when all together take at most this; 0 decodes each time anew.
    """

    name: str
    loss: LossKind = "arcface"
    margin_deg: float = 28.6
    scale: float = 64.0
    head: HeadChoice = "keep"
    embedding_dim: int | None = None
    learning_rate: float = 2e-4
    blockwise_decay: float = 0.7
    learning_rate_head: float = 2e-4
    learning_rate_loss: float = 2e-3
    weight_decay: float = 0.05
    num_steps: int | None = None
    num_epochs: float | None = None
    batch_size: int = 64
    accumulation_steps: int = 1
    warmup_steps: int = 0
    schedule: Schedule = "cosine"
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
        mistakes = [text for text, wrong in self._checks() if wrong]
        if mistakes:
            raise ValueError(f"The recipe {self.name!r} cannot be trained: {'; '.join(mistakes)}.")

    def _checks(self) -> list[tuple[str, bool]]:
        positive = ("scale", "learning_rate", "learning_rate_head", "learning_rate_loss", "blockwise_decay")
        whole = ("batch_size", "accumulation_steps", "validation_interval", "checkpoint_interval")
        optional = ("num_steps", "num_epochs", "depth", "embedding_dim", "validation_images_per_class")
        not_negative = ("weight_decay", "warmup_steps", "clip_grad", "num_workers", "memory_mib", "seed")
        choices = {"loss": LossKind, "head": HeadChoice, "schedule": Schedule, "amp": Amp}
        value = {one.name: getattr(self, one.name) for one in fields(self)}
        length = None if self.num_steps is None else self.num_steps
        weights = self.domain_weights
        return [
            *((f"{name} is above 0, found {value[name]}", not value[name] > 0) for name in positive),
            *((f"{name} is at least 1, found {value[name]}", value[name] < 1) for name in whole),
            *(
                (f"{name} is above 0 or None, found {value[name]}", value[name] is not None and not value[name] > 0)
                for name in optional
            ),
            *((f"{name} is at least 0, found {value[name]}", not value[name] >= 0) for name in not_negative),
            *(
                (
                    f"{name} is one of {', '.join(get_args(kind))}, found {value[name]!r}",
                    value[name] not in get_args(kind),
                )
                for name, kind in choices.items()
            ),
            ("give either num_steps or num_epochs", (self.num_steps is None) == (self.num_epochs is None)),
            (f"margin_deg lies in [0, 90), found {self.margin_deg}", not 0 <= self.margin_deg < 90),
            (
                f"blockwise_decay above 1 would train the stem faster than the top, found {self.blockwise_decay}",
                self.blockwise_decay > 1,
            ),
            (f"ema_decay lies in [0, 1), found {self.ema_decay}", not 0 <= self.ema_decay < 1),
            (
                f"batch_size {self.batch_size} does not divide into {self.accumulation_steps} parts",
                self.batch_size % max(self.accumulation_steps, 1) != 0,
            ),
            (
                f"warmup_steps {self.warmup_steps} leave nothing of num_steps {length}",
                length is not None and self.warmup_steps >= length,
            ),
            ("embedding_dim is for the linear head", self.embedding_dim is not None and self.head != "linear"),
            (
                f"domain_weights are at least 0 and one is above 0, found {weights}",
                weights is not None and (min(weights.values(), default=-1) < 0 or not any(weights.values())),
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `from_dict` reads back."""
        described = asdict(self)
        described["domain_weights"] = None if self.domain_weights is None else dict(self.domain_weights)
        return described

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_dict` described.

        Raises:
            ValueError: a field that recipes do not have, or a value that is refused.
        """
        unknown = set(described) - {one.name for one in fields(cls)}
        if unknown:
            raise ValueError(f"A recipe has no field {', '.join(sorted(unknown))}.")
        values = dict(described)
        if values.get("augmentation") is not None:
            values["augmentation"] = Augmentation(**values["augmentation"])
        return cls(**values)
