"""How well a training tells its classes apart on images that were held out."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from workbench.data.catalog import Catalog
from workbench.models.classifier import Classifier
from workbench.models.embedder import Embedder
from workbench.models.heads import HeadOutputs
from workbench.training.distributed import add_up, gather_parts, images_a_pass, own_part
from workbench.training.loading import Images, load_rows
from workbench.training.losses import TrainingLoss
from workbench.training.recipe import Recipe
from workbench.training.recipe_checks import CLASSIFYING
from workbench.training.sampling import rows_by
from workbench.training.steps import autocast, compute_outputs

MEAN_IMAGES = 10
"""Training images of a class that its mean embedding is taken over: enough for a mean, few enough for each validation."""


def predict_classes(
    embedder: Embedder, loss: TrainingLoss, images: Images, references: Images, recipe: Recipe, device: torch.device
) -> np.ndarray:
    """The class that each image is taken for: int64 [V], ties to the first.

    Where the loss has a classifier, it answers. A loss without one (triplet alone) has learned distances: then the class
    answers whose mean embedding is most similar (cosine), as `answers_by` says. The embedder is left in evaluation mode.
    Several processes share the images; each is given all answers.

    Args:
        embedder, loss: on the device.
        images: to be answered.
        references: the training images as they are; the means are taken over the first MEAN_IMAGES of each class.
        recipe: batch_size, accumulation_steps, amp and num_workers are read.
        device: where it is computed.
    """
    embedder.eval()
    classifier = loss.classifier()
    predicted = []
    with torch.inference_mode():
        if classifier is None:  # a classifier on embeddings whose weights are the means
            means = Classifier(_class_means(embedder, references, recipe, device), cosine=True)
        for outputs, _ in _outputs(embedder, images, own_part(np.arange(len(images))), recipe, device):
            logits_NC = means(outputs.embedding) if classifier is None else classifier(outputs.classified)
            predicted.append(logits_NC.argmax(dim=1).cpu())
    return gather_parts(torch.cat(predicted)).numpy()


def answers_by(recipe: Recipe) -> str:
    """What answers in a validation: `classifier` or `class means`."""
    return "classifier" if any(term in CLASSIFYING for term in recipe.loss_terms) else "class means"


def _class_means(embedder: Embedder, references: Images, recipe: Recipe, device: torch.device) -> torch.Tensor:
    """The mean embedding of each class, unit length, float32 [C, D]."""
    rows = np.concatenate([rows[:MEAN_IMAGES] for rows in rows_by(np.asarray(references.label_N))])
    total_CD = torch.zeros(int(np.max(np.asarray(references.label_N))) + 1, embedder.embedding_dim, device=device)
    for outputs, label_N in _outputs(embedder, references, own_part(rows), recipe, device):
        embedding_ND = nn.functional.normalize(outputs.embedding.float(), dim=1)
        members_CN = nn.functional.one_hot(label_N, len(total_CD)).T.to(device, torch.float32)
        total_CD += members_CN @ embedding_ND  # index_add would not be repeatable on a GPU
    add_up([total_CD])
    return nn.functional.normalize(total_CD, dim=1)


def _outputs(
    embedder: Embedder, images: Images, rows: np.ndarray, recipe: Recipe, device: torch.device
) -> Iterator[tuple[HeadOutputs, torch.Tensor]]:
    size = images_a_pass(recipe)
    for inputs, label_N in load_rows(images, rows, size, recipe.num_workers, pin=device.type == "cuda"):
        with autocast(device, recipe.amp):
            outputs = compute_outputs(embedder, inputs.to(device))
        yield outputs, label_N


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
                    "path": catalog.names(),
                    "label": label,
                    "predicted": names,
                    "correct": names == label,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
