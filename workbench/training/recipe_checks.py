"""What makes no sense in a recipe, and why."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from workbench.training.recipe import Recipe

CLASSIFYING = ("arcface", "subcenter_arcface", "dynamic_arcface", "cross_entropy", "max_entropy")
"""Terms of a loss that hold one weight vector a class, or several."""
BETWEEN_IMAGES = ("triplet", "center")
"""Terms of a loss that pull images of a class together."""

HeadChoice = Literal["keep", "identity", "linear", "bnneck", "adaptors", "lca"]
NeckFeature = Literal["after", "before"]
TripletDistance = Literal["euclidean", "cosine"]
Miner = Literal["batch_hard", "all"]
SamplerKind = Literal["balanced", "identity"]
Freeze = Literal["none", "trunk", "head"]
Schedule = Literal["cosine", "constant", "multistep"]
OptimizerKind = Literal["adamw", "adam", "sgd"]
Amp = Literal["off", "bfloat16", "float16"]

_CHOICES = {
    "head": HeadChoice,
    "neck_feature": NeckFeature,
    "triplet_distance": TripletDistance,
    "miner": Miner,
    "sampler": SamplerKind,
    "freeze": Freeze,
    "schedule": Schedule,
    "optimizer": OptimizerKind,
    "amp": Amp,
}
_POSITIVE = (
    *("scale", "learning_rate_trunk", "learning_rate_head", "learning_rate_loss", "learning_rate_center"),
    *("blockwise_decay", "triplet_weight", "classifier_weight", "center_weight", "lora_alpha", "gamma"),
)
_AT_LEAST_ONE = ("batch_size", "accumulation_steps", "validation_interval", "checkpoint_interval", "subcenters")
_POSITIVE_OR_NONE = ("num_steps", "num_epochs", "depth", "embedding_dim", "validation_images_per_class")
_NOT_NEGATIVE = (
    *("weight_decay", "warmup_steps", "clip_grad", "num_workers", "memory_mib", "seed"),
    *("entropy_weight", "head_first_steps", "lora_rank"),
)
_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    NoneType: "None",
    tuple: "finite numbers in brackets",
    Mapping: "numbers by name",
}
_READERS: dict[str, tuple[str, Callable[["Recipe"], bool]]] = {
    "margin_deg": ("the losses arcface and subcenter_arcface", lambda one: _has(one, "arcface", "subcenter_arcface")),
    "scale": ("ArcFace losses", lambda one: _has(one, "arcface", "subcenter_arcface", "dynamic_arcface")),
    "subcenters": ("the loss subcenter_arcface", lambda one: _has(one, "subcenter_arcface")),
    "dynamic_margin_deg": ("the loss dynamic_arcface", lambda one: _has(one, "dynamic_arcface")),
    "entropy_weight": ("the loss max_entropy", lambda one: _has(one, "max_entropy")),
    **{
        name: ("the loss triplet", lambda one: _has(one, "triplet"))
        for name in ("triplet_margin", "triplet_distance", "miner", "triplet_weight")
    },
    **{
        name: ("the loss center", lambda one: _has(one, "center")) for name in ("center_weight", "learning_rate_center")
    },
    **{
        name: ("losses with a classifier", lambda one: _has(one, *CLASSIFYING))
        for name in ("classifier_weight", "learning_rate_loss")
    },
    "images_per_identity": ("the identity sampler", lambda one: one.sampler == "identity"),
    "learning_rate_trunk": ("a trunk that is trained", lambda one: one.freeze != "trunk"),
    "lora_alpha": ("updates of a lora_rank above 0", lambda one: one.lora_rank > 0),
    "gamma": ("the multistep schedule", lambda one: one.schedule == "multistep"),
}
"""What reads a field, and whether a recipe has it."""
_RENAMED = {"learning_rate": "learning_rate_trunk"}

Checks = list[tuple[str, bool]]
"""What is said, and whether it has to be."""


def check_field_names(names: Iterable[str], known: set[str]) -> None:
    """Returns nothing when all names are fields of a recipe.

    Raises:
        ValueError: some are not; of a field that was renamed, what it is called now.
    """
    unknown = sorted(set(names) - known)
    if unknown:
        renamed = [f"{name} is called {_RENAMED[name]} now" for name in unknown if name in _RENAMED]
        raise ValueError(f"A recipe has no field {', '.join(unknown)}{''.join(f'; {text}' for text in renamed)}.")


def find_mistyped(values: Mapping[str, Any], hints: Mapping[str, Any]) -> list[str]:
    """What each value should be that is of another kind than its field; numbers are finite, and a truth is no number.

    Args:
        values: by field.
        hints: the type of each field.
    """
    told = []
    for name, value in values.items():
        kinds = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        if not any(_fits(value, kind) for kind in kinds):
            wanted = " or ".join(
                _KINDS.get(get_origin(kind) or kind, getattr(kind, "__name__", str(kind))) for kind in kinds
            )
            told.append(f"{name} is {wanted}, found {value!r}")
    return told


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:  # `_CHOICES` names the choices
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_fits(one, float) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(one, float) for one in value.values())
    return isinstance(value, kind)


def find_unread(recipe: "Recipe", names: Iterable[str]) -> list[str]:
    """Which of these fields nothing in the recipe reads, and what would."""
    return [
        f"{name} is read by {_READERS[name][0]} alone"
        for name in sorted(names)
        if name in _READERS and not _READERS[name][1](recipe)
    ]


def _has(recipe: "Recipe", *terms: str) -> bool:
    return any(term in terms for term in recipe.loss_terms)


def find_mistakes(recipe: "Recipe") -> list[str]:
    """Everything that is wrong with a recipe, in words; empty when it can be trained.

    What depends on the embedder or on the images (an lca head on a transformer, triplets without positives) is refused
    when the training begins, by `prepare`.
    """
    if mistyped := find_mistyped(vars(recipe), get_type_hints(type(recipe))):
        return mistyped
    checks = [*_values(recipe), *_length(recipe), *_loss(recipe), *_head(recipe), *_frozen(recipe), *_batches(recipe)]
    return [text for text, wrong in checks if wrong]


def _values(recipe: "Recipe") -> Checks:
    value = vars(recipe)
    checks: Checks = [(f"{name} is above 0, found {value[name]}", not value[name] > 0) for name in _POSITIVE]
    checks += [(f"{name} is at least 1, found {value[name]}", value[name] < 1) for name in _AT_LEAST_ONE]
    checks += [
        (f"{name} is above 0 or None, found {value[name]}", value[name] is not None and not value[name] > 0)
        for name in _POSITIVE_OR_NONE
    ]
    checks += [(f"{name} is at least 0, found {value[name]}", not value[name] >= 0) for name in _NOT_NEGATIVE]
    checks += [
        (f"{name} is one of {', '.join(get_args(kind))}, found {value[name]!r}", value[name] not in get_args(kind))
        for name, kind in _CHOICES.items()
    ]
    weights = recipe.domain_weights
    return [
        *checks,
        (f"last_stride is 1 or None, found {recipe.last_stride}", recipe.last_stride not in (1, None)),
        (f"ema_decay lies in [0, 1), found {recipe.ema_decay}", not 0 <= recipe.ema_decay < 1),
        (
            f"blockwise_decay above 1 would train the stem faster than the top, found {recipe.blockwise_decay}",
            recipe.blockwise_decay > 1,
        ),
        (
            f"domain_weights are at least 0 and one is above 0, found {weights}",
            weights is not None and (min(weights.values(), default=-1) < 0 or not any(weights.values())),
        ),
    ]


def _length(recipe: "Recipe") -> Checks:
    length, shares = recipe.num_steps, list(recipe.milestones)
    rising = shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)
    return [
        ("give either num_steps or num_epochs", (length is None) == (recipe.num_epochs is None)),
        (
            f"warmup_steps {recipe.warmup_steps} leave nothing of num_steps {length}",
            length is not None and recipe.warmup_steps >= length,
        ),
        (
            f"head_first_steps {recipe.head_first_steps} leave nothing of num_steps {length} for the trunk",
            length is not None and recipe.head_first_steps >= length,
        ),
        ("the multistep schedule needs milestones", recipe.schedule == "multistep" and not shares),
        ("milestones are for the multistep schedule", recipe.schedule != "multistep" and bool(shares)),
        (f"milestones rise and lie between 0 and 1, shares of the length; found {shares}", not rising),
        (f"gamma above 1 would raise the rates at a milestone, found {recipe.gamma}", recipe.gamma > 1),
    ]


def _loss(recipe: "Recipe") -> Checks:
    terms = recipe.loss_terms
    known = (*CLASSIFYING, *BETWEEN_IMAGES)
    unknown = [term for term in terms if term not in known]
    classifiers = [term for term in terms if term in CLASSIFYING]
    small, large = (*recipe.dynamic_margin_deg, 0.0, 0.0)[:2]
    margin = recipe.triplet_margin
    return [
        (f"loss is made of {', '.join(known)} joined with +, found {recipe.loss!r}", bool(unknown)),
        (f"loss names a term twice: {recipe.loss}", len(set(terms)) < len(terms)),
        (f"loss has one classifier at most, found {' and '.join(classifiers)}", len(classifiers) > 1),
        (
            "the center term alone is smallest where all images are one point: join it with a classifier",
            "center" in terms and not classifiers,
        ),
        (f"margin_deg lies in [0, 90), found {recipe.margin_deg}", not 0 <= recipe.margin_deg < 90),
        (
            "dynamic_margin_deg are the margins of the largest and of the smallest class, 0 <= first <= second < 90; "
            f"found {recipe.dynamic_margin_deg}",
            len(recipe.dynamic_margin_deg) != 2 or not 0 <= small <= large < 90,
        ),
        (f"label_smoothing lies in [0, 1), found {recipe.label_smoothing}", not 0 <= recipe.label_smoothing < 1),
        (
            f"label_smoothing is of cross_entropy, which is no term of {recipe.loss}",
            recipe.label_smoothing > 0 and "cross_entropy" not in terms,
        ),
        (f"triplet_margin is at least 0 or None, found {margin}", margin is not None and not margin >= 0),
    ]


def _head(recipe: "Recipe") -> Checks:
    return [
        (
            f"embedding_dim is for a new head that changes the width (linear, bnneck, adaptors, lca), found {recipe.head}",
            recipe.embedding_dim is not None and recipe.head in ("keep", "identity"),
        ),
        (
            "the embedding of a new adaptors head would keep its random weights: the classifier sits on the last adaptor; join "
            f"triplet to the loss {recipe.loss}",
            recipe.head == "adaptors" and "triplet" not in recipe.loss_terms,
        ),
        (
            f"neck_feature is of the bnneck head, found {recipe.head}",
            recipe.neck_feature != "after" and recipe.head != "bnneck",
        ),
    ]


def _frozen(recipe: "Recipe") -> Checks:
    frozen, first = recipe.freeze == "trunk", recipe.head_first_steps > 0
    classifier = any(term in CLASSIFYING for term in recipe.loss_terms)
    return [
        (
            f"nothing would be trained: the identity head and the loss {recipe.loss} have no weights and the trunk is frozen"
            + (" at first" if first else ""),
            (frozen or first) and recipe.head == "identity" and not classifier,
        ),
        (
            f"blockwise_decay {recipe.blockwise_decay} has no blocks to act on with a frozen trunk; set it to 1",
            frozen and recipe.blockwise_decay != 1,
        ),
        ("gradient_checkpointing saves nothing with a frozen trunk", frozen and recipe.gradient_checkpointing),
        ("head_first_steps freezes the trunk at first only, freeze='trunk' always: choose one", frozen and first),
        (
            "head_first_steps trains the head at first, freeze='head' never: choose one",
            recipe.freeze == "head" and first,
        ),
        (
            f"freeze='head' would keep a new {recipe.head} head at its random weights; use head='keep'",
            recipe.freeze == "head" and recipe.head != "keep",
        ),
        (
            "lora_rank trains updates of the trunk and keeps its own weights anyway: leave freeze='trunk' out",
            recipe.lora_rank > 0 and frozen,
        ),
    ]


def _batches(recipe: "Recipe") -> Checks:
    identity, each = recipe.sampler == "identity", recipe.images_per_identity
    parts = max(recipe.accumulation_steps, 1)
    whole = recipe.batch_size % parts == 0
    return [
        (f"batch_size {recipe.batch_size} does not divide into {parts} parts", not whole),
        (f"images_per_identity is at least 2, one image has no positive; found {each}", each < 2),
        (
            f"the identity sampler wants at least two whole identities of {each} images in each of the {parts} parts of "
            f"the batch; batch_size is {recipe.batch_size}",
            identity
            and whole
            and each >= 2
            and ((recipe.batch_size // parts) % each != 0 or recipe.batch_size // parts < 2 * each),
        ),
        (
            f"depth {recipe.depth} is no multiple of images_per_identity {each}",
            identity and each >= 2 and recipe.depth is not None and recipe.depth % each != 0,
        ),
        (
            "the identity sampler takes images of an identity as they come: leave domain_weights out, or select the domains "
            "beforehand",
            identity and recipe.domain_weights is not None,
        ),
    ]
