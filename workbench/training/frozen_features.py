"""A frozen trunk answers alike each time it sees an image: its features are computed once, and training takes seconds."""

import numpy as np
import torch

from workbench.models.embedder import Embedder
from workbench.models.heads import takes_map
from workbench.training.distributed import gather_parts, images_a_pass, own_part
from workbench.training.loading import FrozenFeatures, Images, load_rows
from workbench.training.recipe import Recipe
from workbench.training.steps import autocast, to_input


def can_embed_once(embedder: Embedder, recipe: Recipe) -> bool:
    """Whether the head sees the same features of an image each time: a frozen trunk and no augmentation.

    A frozen trunk computes as in an evaluation, so that neither dropout nor the batch's own statistics change them. The
    map that an lca head takes is many times an image's features, and is computed anew.
    """
    return recipe.freeze == "trunk" and recipe.augmentation is None and not takes_map(embedder.head)


def embed_once(embedder: Embedder, images: Images, recipe: Recipe, device: torch.device) -> FrozenFeatures:
    """The features of all images; the embedder is left in evaluation mode. Several processes share the work.

    Args:
        embedder: on the device.
        images: without augmentation.
        recipe: batch_size, accumulation_steps, amp and num_workers are read.
        device: where the features stay.

    Raises:
        ValueError: images that would be augmented.
    """
    embedder.eval()
    size = images_a_pass(recipe)
    rows = own_part(np.arange(len(images)))
    features, labels = [], []
    with torch.no_grad():
        pin = device.type == "cuda"
        for images_NHWC, label_N in load_rows(images, rows, size, recipe.num_workers, pin):
            with autocast(device, recipe.amp):
                features.append(embedder.features(to_input(embedder, images_NHWC.to(device))))
            labels.append(label_N)
    return FrozenFeatures(gather_parts(torch.cat(features)), gather_parts(torch.cat(labels)))
