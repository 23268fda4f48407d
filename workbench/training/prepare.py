"""What a training needs before its first step: usable images, classes, sampler, validation set, identity of the run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.data.augment import AUGMENTATION_VERSION
from workbench.data.catalog import DISTRACTOR_LABEL, JUNK_LABEL, Catalog
from workbench.data.fingerprints import content_fingerprint, place_fingerprint, read_content_keys
from workbench.data.images import DECODE_VERSION, check_quarantine
from workbench.models.embedder import Embedder, replace_head
from workbench.models.heads import takes_map
from workbench.models.preprocessing import Preprocessing
from workbench.models.strides import set_last_stride
from workbench.training.blocks import block_of_parameters
from workbench.training.distributed import images_a_pass
from workbench.training.frozen_features import embed_once
from workbench.training.identity_sampling import IdentitySampler
from workbench.training.loading import (
    Images,
    PlainImages,
    Render,
    TrainingImages,
    read_images,
    render_plain,
    render_training,
)
from workbench.training.recipe import NEUTRAL_FIELDS, Recipe
from workbench.training.sampling import BalancedSampler, balance_validation, share_with_positive
from workbench.training.validation import answers_by

FORMAT_VERSION = 3
"""Of checkpoints; 1 had recipes with ArcFace alone and a `learning_rate` for the trunk, 2 did not know what is in the images."""

LEAST_SHARE_WITH_POSITIVE = 0.5
"""Of the images in a random batch; below it most of a triplet loss's work is for nothing."""


@dataclass(frozen=True)
class Prepared:
    """Data ready to train with.

    Attributes:
        class_names: text [C], sorted: class c of the loss is the label class_names[c].
        sampler: of the usable images.
        training: by sample.
        references: the training images as they are, by row.
        validation: by row of `validation_catalog`; None without one.
        validation_catalog: the images that are validated on.
        validation_labels: int64 [V], their classes.
        quarantine: columns part (train or val), row (of the given catalog), path, reason.
        images: of each part, by what its images are known again: `place` and `content` (see `data.fingerprints`), and
            `num_bytes`, what they take in memory.
    """

    class_names: np.ndarray
    sampler: BalancedSampler | IdentitySampler
    training: Images
    references: Images
    validation: Images | None
    validation_catalog: Catalog | None
    validation_labels: np.ndarray
    quarantine: pd.DataFrame
    images: dict[str, dict[str, Any]]


def prepare(
    recipe: Recipe, preprocessing: Preprocessing, train: Catalog, val: Catalog | None, known: dict[str, Any] | None
) -> Prepared:
    """The data of a training.

    Args:
        recipe: sampling, augmentation, memory_mib and validation_images_per_class are read.
        preprocessing: of the embedder.
        train, val: as given by the caller.
        known: `quarantine` (its rows) and `images` of the run that is gone on with. Images that did not fit into memory are
            then not decoded a second time to find out, and read only where their files have been touched since.

    Raises:
        ValueError: fewer than two classes, labels of no individual, validation without a common class, batches that hold
            no positives for a triplet loss, or images that have changed since the run began.
        QuarantineError: more than 1 % of the images cannot be decoded.
    """
    rows = _trainable_rows(train, recipe)
    images: dict[str, dict[str, Any]] = {}
    kept, bad, images["train"] = _read(train, rows, "train", render_training(preprocessing), recipe, known)
    usable = rows[~np.isin(rows, bad["row"].to_numpy())]
    check_quarantine(bad, len(rows))
    chosen = train.take(usable)
    class_names, label_N = np.unique(chosen.labels.astype(str), return_inverse=True)
    if len(class_names) < 2:
        raise ValueError(f"Training wants at least two classes; found {len(class_names)} among {len(train)} images.")
    domains = chosen.frame["domain"].to_numpy(dtype=str)
    sampler = _build_sampler(recipe, label_N, domains)
    pictures = chosen.pictures()
    training, references = (
        TrainingImages(pictures, label_N, preprocessing, augmentation, recipe.seed, kept)
        for augmentation in (recipe.augmentation, None)
    )
    if val is None:
        nobody = np.empty(0, dtype=np.int64)
        return Prepared(class_names, sampler, training, references, None, None, nobody, bad, images)
    asked, _ = balance_validation(val, class_names, recipe.validation_images_per_class, recipe.seed)
    all_rows = np.arange(len(asked))
    kept_val, bad_val, images["val"] = _read(asked, all_rows, "val", render_plain(preprocessing), recipe, known)
    check_quarantine(bad_val, len(asked))
    seen = asked.take(all_rows[~np.isin(all_rows, bad_val["row"].to_numpy())])
    label_V = np.searchsorted(class_names, seen.labels.astype(str)).astype(np.int64)
    validation = PlainImages(seen.pictures(), label_V, preprocessing, kept_val)
    quarantine = pd.concat([bad, bad_val], ignore_index=True)
    return Prepared(class_names, sampler, training, references, validation, seen, label_V, quarantine, images)


def embed_frozen(data: Prepared, embedder: Embedder, recipe: Recipe, device: torch.device) -> Prepared:
    """The data with the trunk's features in place of the images (see `frozen_features.can_embed_once`)."""
    training = embed_once(embedder, data.references, recipe, device)
    validation = None if data.validation is None else embed_once(embedder, data.validation, recipe, device)
    return replace(data, training=training, references=training, validation=validation)


def describe_run(recipe: Recipe, embedder: Embedder, train: Catalog, val: Catalog | None) -> dict[str, Any]:
    """What makes two trainings the same one: the recipe but for speed and bookkeeping, the pixels, the first weights."""
    deciding = {name: value for name, value in recipe.to_dict().items() if name not in NEUTRAL_FIELDS}
    return {
        "format_version": FORMAT_VERSION,
        "decode_version": DECODE_VERSION,
        "augmentation_version": AUGMENTATION_VERSION,
        "recipe": deciding,
        "train": train.fingerprint,
        "val": None if val is None else val.fingerprint,
        "embedder": embedder.fingerprint(),
    }


def check_same_run(saved: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Returns nothing when a checkpoint's description of its run is the wanted one.

    Raises:
        ValueError: it is not; the message names each difference.
    """
    if saved["format_version"] != wanted["format_version"]:
        raise ValueError(
            f"{folder} holds a training of an older workbench (format {saved['format_version']}), which this one (format "
            f"{wanted['format_version']}) cannot go on with. Choose another folder, or remove this one."
        )

    def flat(run: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in run.items():
            out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
        return out

    before, now = flat(saved), flat(wanted)
    differing = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} here"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise ValueError(
            f"{folder} holds another training, which this one cannot go on with ({'; '.join(differing)}). "
            "Choose another folder, or remove this one."
        )


def ready_embedder(embedder: Embedder, recipe: Recipe) -> Embedder:
    """The embedder with the last stride, the head and the low-rank updates that the recipe wants, changed in place.

    A new head starts from random weights, an earlier training's classifier is taken off, and only what the recipe ever
    trains needs a gradient.

    Raises:
        ValueError: a trunk that does not fit the recipe (one whose rates cannot be layered, too), or nothing that could be
            trained.
    """
    if recipe.last_stride is not None and "last_stride" not in embedder.described:
        try:
            set_last_stride(embedder.trunk.name, embedder.trunk.tower, recipe.last_stride)
        except ValueError as error:
            raise ValueError(f"{error} Give last_stride=none among the settings.") from error
        embedder.described = {**embedder.described, "last_stride": recipe.last_stride}
    described = embedder.described
    if recipe.head != "keep":
        width = recipe.embedding_dim or (
            embedder.trunk.count_map_channels() if takes_map(recipe.head) else described["num_features"]
        )
        there = (described["head"], described["embedding_dim"], described.get("neck_feature", "after"))
        if there != (recipe.head, width, recipe.neck_feature):
            replace_head(embedder, recipe.head, width, neck_feature=recipe.neck_feature, seed=recipe.seed)
    embedder.attach_classifier(None)
    block_of_parameters(embedder.trunk, layered=recipe.blockwise_decay != 1)  # refused now, before images are read
    has_head = any(True for _ in embedder.head.parameters())
    if recipe.freeze == "head" and not has_head:
        raise ValueError("freeze='head' has nothing to keep: the embedder's head has no weights.")
    at_first = recipe.head_first_steps > 0
    if (recipe.freeze == "trunk" or at_first) and not has_head and answers_by(recipe) != "classifier":
        raise ValueError(
            f"Nothing would be trained{' at first' * at_first}: the trunk is frozen, and neither the embedder's head nor the "
            f"loss {recipe.loss} has weights. Give a head, such as linear."
        )
    embedder.requires_grad_(True)
    if recipe.lora_rank:
        from workbench.training.lora import add_lora  # peft takes seconds to import

        add_lora(embedder.trunk, recipe.lora_rank, recipe.lora_alpha, recipe.seed)
    if recipe.freeze != "none":
        embedder.get_submodule(recipe.freeze).requires_grad_(False)
    return embedder


def _build_sampler(recipe: Recipe, label_N: np.ndarray, domain_N: np.ndarray) -> BalancedSampler | IdentitySampler:
    """The sampler that the recipe wants; refuses a triplet loss whose batches would hold no positives."""
    if recipe.sampler == "identity":
        return IdentitySampler(label_N, recipe.batch_size, recipe.images_per_identity, recipe.depth, recipe.seed)
    sampler = BalancedSampler(label_N, domain_N, recipe.depth, recipe.domain_weights, recipe.seed)
    size = images_a_pass(recipe)
    if "triplet" in recipe.loss_terms:
        share = share_with_positive(label_N[sampler.epoch_rows(0)], size)
        if share < LEAST_SHARE_WITH_POSITIVE:
            raise ValueError(
                f"In a random batch of {size} images {share:.0%} of them meet another of their class, and the triplet loss "
                "learns from no other. Set sampler to 'identity', or take a larger batch."
            )
    return sampler


def _trainable_rows(train: Catalog, recipe: Recipe) -> np.ndarray:
    if train.is_nobody.any():
        raise ValueError(
            f"{int(train.is_nobody.sum())} training images have the label of junk ({JUNK_LABEL}) or distractors "
            f"({DISTRACTOR_LABEL}), which is no individual. Take the split that holds identities."
        )
    left_out = [domain for domain, weight in (recipe.domain_weights or {}).items() if weight == 0]
    return np.flatnonzero(~train.frame["domain"].isin(left_out).to_numpy())


def _read(
    catalog: Catalog, rows: np.ndarray, part: str, render: Render, recipe: Recipe, known: dict[str, Any] | None
) -> tuple[list[np.ndarray | None] | None, pd.DataFrame, dict[str, Any]]:
    """The usable images of `rows` where they fit into memory, in order, the table of the others, and what they all are."""
    asked = catalog.take(rows)
    pictures = asked.pictures()
    place = place_fingerprint(pictures)
    before = None if known is None else known["images"][part]
    if known is not None and before is not None and before["num_bytes"] > recipe.memory_mib * 2**20:
        if place != before["place"]:
            _check_content(content_fingerprint(read_content_keys(pictures)), before, part)
        return None, _table([item for item in known["quarantine"] if item[0] == part]), {**before, "place": place}
    read = read_images(pictures, render, recipe.memory_mib)
    content = content_fingerprint(read.keys)
    if before is not None:
        _check_content(content, before, part)
    names = asked.names()
    found = [[part, int(rows[number]), str(names[number]), reason] for number, reason in sorted(read.failures.items())]
    kept: list[np.ndarray | None] | None = None
    if read.kept is not None:
        kept = [picture for picture in read.kept if picture is not None]
    return kept, _table(found), {"place": place, "content": content, "num_bytes": read.num_bytes}


def _check_content(content: str, before: dict[str, Any], part: str) -> None:
    if content != before["content"]:
        raise ValueError(
            f"Images of the {part} set have changed since this training began: other pictures lie under the same names. "
            "Restore them, or train in another folder."
        )


def _table(items: list[list[Any]]) -> pd.DataFrame:
    columns = {"part": "str", "row": "int64", "path": "str", "reason": "str"}
    return pd.DataFrame(items, columns=list(columns)).astype(columns)
