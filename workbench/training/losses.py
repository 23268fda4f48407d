"""Losses: what a recipe asks of a head's outputs, a weighted sum of terms.

Axes: N images of a batch, C classes, D width of the embedding, K width of what the classifier sees.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import nn

from workbench.models.classifier import Classifier
from workbench.models.heads import HeadOutputs
from workbench.training.between_images import CenterLoss, TripletLoss
from workbench.training.classifying import ArcFace, DynamicArcFaceLoss, LinearClassification, dynamic_margins
from workbench.training.recipe import Recipe
from workbench.training.recipe_checks import CLASSIFYING


class TrainingLoss(nn.Module):
    """The sum of a recipe's terms, each times its weight.

    Attributes:
        parts: one module a term, by name. Classifying terms see `classified`, the others `metric`.
        weights: of each term in the sum.
        terms: of the last call, detached: each term before its weight, and with a triplet term `triplet_anchors`, the
            share of the batch's images that have a positive and a negative in it. Where that is 0 there is no triplet,
            and the triplet term is 0 for that reason.
    """

    def __init__(self, parts: dict[str, nn.Module], weights: dict[str, float], scale: float) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.weights, self.scale = weights, scale
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, outputs: HeadOutputs, label_N: torch.Tensor) -> torch.Tensor:
        """The loss, a float32 scalar, computed in float32 whatever precision the outputs have.

        Args:
            outputs: of the head, float [N, ...].
            label_N: int64 [N], classes 0 to C-1.

        Raises:
            ValueError: not one label an image.
        """
        if label_N.shape != outputs.embedding.shape[:1]:
            raise ValueError(
                f"The loss wants one label an image: {len(outputs.embedding)} images, labels {tuple(label_N.shape)}."
            )
        total = torch.zeros((), device=outputs.embedding.device)
        self.terms = {}
        with torch.autocast(total.device.type, enabled=False):
            for name, part in self.parts.items():
                seen = outputs.classified if name in CLASSIFYING else outputs.metric
                term = part(seen.float(), label_N)
                self.terms[name] = term.detach()
                total = total + self.weights[name] * term
        if "triplet" in self.parts:
            same, other = loss_and_miner_utils.get_matches_and_diffs(label_N)
            self.terms["triplet_anchors"] = (same.any(dim=1) & other.any(dim=1)).float().mean()
        return total

    def classifier(self) -> Classifier | None:
        """A copy of the classifier as it stands; None where no term has one.

        A logit of an ArcFace term is its scale times the cosine, without the margin, which is of training alone.
        """
        for part in self.parts.values():
            if isinstance(part, LinearClassification):
                return Classifier(part.linear.weight, part.linear.bias)
            if isinstance(part, ArcFace):
                weight = part.margin_loss.W.t()
                if part.num_subcenters > 1:
                    weight = weight.unflatten(0, (-1, part.num_subcenters))
                return Classifier(weight, cosine=True, scale=self.scale)
        return None

    def center_parameters(self) -> list[nn.Parameter]:
        """The centers of the center term, none without one; plain SGD steps them after `give_centers_gradient`."""
        return [part.centers for part in self.parts.values() if isinstance(part, CenterLoss)]

    def give_centers_gradient(self, add_up: Callable[[list[torch.Tensor]], None]) -> None:
        """See `CenterLoss.give_gradient`; does nothing without a center term."""
        for part in self.parts.values():
            if isinstance(part, CenterLoss):
                part.give_gradient(add_up)


def build_loss(
    recipe: Recipe,
    num_classes: int,
    embedding_dim: int,
    *,
    classified_dim: int | None = None,
    classifier_bias: bool = True,
    num_images_C: Iterable[int] | None = None,
) -> TrainingLoss:
    """The loss of a recipe; its random weights are decided by the recipe's seed.

    Args:
        recipe: loss and what belongs to it, and seed, are read.
        num_classes: C.
        embedding_dim: D.
        classified_dim: K; None is D.
        classifier_bias: False after a BNNeck, whose classifier starts near 0 (normal, 0.001) as in its paper; of
            cross_entropy and max_entropy.
        num_images_C: images that each class has, for dynamic_arcface.

    Raises:
        ValueError: dynamic_arcface without the sizes of all classes.
    """
    width = classified_dim or embedding_dim
    parts: dict[str, nn.Module] = {}
    for term in recipe.loss_terms:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            if term == "triplet":
                parts[term] = TripletLoss(recipe.triplet_margin, recipe.triplet_distance, recipe.miner)
            elif term == "center":
                parts[term] = CenterLoss(num_classes, embedding_dim)
            elif term in ("cross_entropy", "max_entropy"):
                smoothing = recipe.label_smoothing if term == "cross_entropy" else 0.0
                entropy_weight = recipe.entropy_weight if term == "max_entropy" else 0.0
                part = LinearClassification(width, num_classes, classifier_bias, smoothing, entropy_weight)
                if not classifier_bias:
                    nn.init.normal_(part.linear.weight, std=0.001)
                parts[term] = part
            else:
                parts[term] = _build_arcface(term, recipe, num_classes, width, num_images_C)
    weights = {"triplet": recipe.triplet_weight, "center": recipe.center_weight}
    return TrainingLoss(parts, {term: weights.get(term, recipe.classifier_weight) for term in parts}, recipe.scale)


def _build_arcface(
    term: str, recipe: Recipe, num_classes: int, width: int, num_images_C: Iterable[int] | None
) -> ArcFace:
    if term == "dynamic_arcface":
        count_C = np.asarray([] if num_images_C is None else list(num_images_C))
        if len(count_C) != num_classes:
            raise ValueError(
                f"dynamic_arcface wants the number of images of {num_classes} classes; found {len(count_C)}."
            )
        margin_C = torch.from_numpy(dynamic_margins(count_C, recipe.dynamic_margin_deg)).float()
        return ArcFace(DynamicArcFaceLoss(margin_C, width, recipe.scale))
    if term == "subcenter_arcface":
        loss = losses.SubCenterArcFaceLoss(
            num_classes=num_classes,
            embedding_size=width,
            margin=recipe.margin_deg,
            scale=recipe.scale,
            sub_centers=recipe.subcenters,
        )
        return ArcFace(loss, recipe.subcenters)
    return ArcFace(losses.ArcFaceLoss(num_classes, width, margin=recipe.margin_deg, scale=recipe.scale))
