"""How well the loss's class weights tell the classes apart on images that were held out."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from workbench.data.catalog import Catalog
from workbench.models.embedder import Embedder
from workbench.training.loading import PlainImages, load_batches
from workbench.training.recipe import Recipe
from workbench.training.steps import autocast, to_input


def predict_classes(
    embedder: Embedder, loss: nn.Module, images: PlainImages, recipe: Recipe, device: torch.device
) -> np.ndarray:
    """The class whose weight vector each image's embedding is most similar to (cosine): int64 [V], ties to the first.

    The embedder is left in evaluation mode.
    """
    embedder.eval()
    size = max(1, recipe.batch_size // recipe.accumulation_steps)
    batches: Iterator[list[int]] = (
        list(range(start, min(start + size, len(images)))) for start in range(0, len(images), size)
    )
    num_workers = 0 if images.kept is not None else recipe.num_workers
    weight_DC = nn.functional.normalize(loss.get_parameter("W").detach(), dim=0)
    predicted = []
    with torch.inference_mode():
        for images_NHWC, _ in load_batches(images, batches, num_workers, pin=device.type == "cuda"):
            with autocast(device, recipe.amp):
                embedding_ND = embedder(to_input(embedder, images_NHWC.to(device)))
            predicted.append((embedding_ND.float() @ weight_DC).argmax(dim=1).cpu())
    return torch.cat(predicted).numpy()


def class_accuracy(label_V: np.ndarray, predicted_V: np.ndarray) -> float:
    """The mean over classes of the share of a class's images that are right, 0 to 1.

    Args:
        label_V: int64 [V], classes; those without an image do not count.
        predicted_V: int64 [V].

    Source: the measure by which RetailKLIP chooses its depth.
    """
    correct = np.bincount(label_V, weights=label_V == predicted_V)
    count = np.bincount(label_V)
    return float(np.mean(correct[count > 0] / count[count > 0]))


def per_image_table(
    predictions: dict[int, torch.Tensor], catalog: Catalog | None, class_names: np.ndarray
) -> pd.DataFrame:
    """One row a validation and image: columns step, path, label, predicted (a label) and correct."""
    columns = ("step", "path", "label", "predicted", "correct")
    if catalog is None or not predictions:
        return pd.DataFrame({name: [] for name in columns})
    tables = []
    for step, predicted in predictions.items():
        names = pd.Series(class_names[predicted.numpy()], dtype="str")
        label = catalog.frame["label"]
        tables.append(
            pd.DataFrame(
                {
                    "step": step,
                    "path": catalog.frame["path"],
                    "label": label,
                    "predicted": names,
                    "correct": names == label,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
