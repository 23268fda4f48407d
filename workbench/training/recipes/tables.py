"""The recipes side by side, and what users of TAO will look for."""

import pandas as pd

from workbench.training.recipes import RECIPES

_PUBLISHED = {
    "scratch": ("timm:test_resnet, random weights", "this workbench, measured on synthetic_products"),
    "retailklip": ("open_clip:ViT-L-14/laion2b_s32b_b82k", "Srivastava, VISAPP 2024"),
    "retailklip_11gb": ("open_clip:ViT-L-14/laion2b_s32b_b82k", "Srivastava, VISAPP 2024"),
    "subcenter_arcface": ("a network of faces; here as retailklip", "Deng et al., ECCV 2020"),
    "dynamic_margin": ("networks of landmarks; here as retailklip", "Ha et al., Google Landmark 2020, third place"),
    "lora": ("language models; here as retailklip", "Hu et al., ICLR 2022"),
    "head_then_trunk": ("open_clip:ViT-H-14/laion2b_s32b_b79k", "Shao and Cui, Google Universal Images Embedding 2022"),
    "full_finetune": ("timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "baseline of Srivastava, VISAPP 2024"),
    "full_finetune_lca_maxent": ("timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "Srivastava, ICIAR 2020"),
    "linear_probe": ("timm:resnext101_32x8d.fb_swsl_ig1b_ft_in1k", "baseline of Srivastava, VISAPP 2024"),
    "nvidia_v1_triplet": ("timm:resnet101.a1_in1k (theirs: NVIDIA's own)", "NVIDIA Retail Object Recognition v1.0"),
    "nvidia_adaptors": ("workbench:fan_base_hybrid, workbench:nv_dinov2", "NVIDIA Retail Object Recognition v2.0"),
    "reid_bnneck": ("timm:resnet50.a1_in1k, 256x128 px, last_stride 1", "Luo et al., CVPRW 2019; ReIdentificationNet"),
}


def recipe_table() -> pd.DataFrame:
    """One row a recipe: columns recipe, trunk (that it was published with), loss, head, sampler, frozen, rates, length, source.

    `rates` are those of trunk (its top block), head and loss; a dash stands for a part that is not trained.
    """
    rows = []
    for name, recipe in RECIPES.items():
        trunk, source = _PUBLISHED[name]
        frozen = f"trunk for {recipe.head_first_steps} steps, then head" if recipe.head_first_steps else recipe.freeze
        decay = f" x {recipe.blockwise_decay:g} a block" if recipe.blockwise_decay != 1 else ""
        of_trunk = "-" if recipe.freeze == "trunk" else f"{recipe.learning_rate_trunk:.1e}{decay}"
        of_head = "-" if recipe.head == "identity" else f"{recipe.learning_rate_head:.1e}"
        of_loss = "-" if recipe.loss == "triplet" else f"{recipe.learning_rate_loss:.1e}"
        rows.append(
            {
                "recipe": name,
                "trunk": trunk,
                "loss": recipe.loss.replace("+", " + "),
                "head": recipe.head if recipe.embedding_dim is None else f"{recipe.head} {recipe.embedding_dim}",
                "sampler": f"P x {recipe.images_per_identity}" if recipe.sampler == "identity" else recipe.sampler,
                "frozen": f"trunk but for LoRA, rank {recipe.lora_rank}" if recipe.lora_rank else frozen,
                "rates": f"{recipe.optimizer}: {of_trunk}, {of_head}, {of_loss}",
                "length": f"{recipe.num_steps} steps" if recipe.num_steps else f"{recipe.num_epochs:g} epochs",
                "source": source,
            }
        )
    return pd.DataFrame(rows)


def tao_counterparts() -> pd.DataFrame:
    """One row an option of NVIDIA's TAO (metric learning recognition, re-identification): columns tao, here and difference."""
    rows = [
        (
            "smooth_loss",
            "triplet_margin=None",
            "here the margin is 0 then, log(1 + exp(d_ap - d_an)); TAO keeps its margin",
        ),
        ("triplet_loss_margin", "triplet_margin", ""),
        ("checkpoint_interval", "checkpoint_interval", "optimiser steps here, epochs there; a run goes on bit for bit"),
        (
            "report_accuracy_per_class",
            "always: tables per class in notebooks 03 and 04",
            "the headline stays what it is; TAO's changes from the mean over images to the mean over classes",
        ),
        (
            "topk",
            "accuracy@1 and accuracy@5, rank-1, -5, -10 and -20 always",
            "k counts distinct classes here, images there",
        ),
        ("neck_feat", "neck_feature", ""),
        ("with_flip_feature", "flip of notebook 04", ""),
        ("with_center_loss", "loss='cross_entropy+triplet+center'", "the centers are stepped here, never there"),
        ("center_loss_weight, center_lr", "center_weight, learning_rate_center", "the step is that of Wen et al. here"),
        ("label_smooth", "label_smoothing=0.1", "TAO's share is fixed at 0.1"),
        (
            "feat_dim: 256",
            "embedding_dim=256",
            """any width, swept with --sweep 'settings="embedding_dim=64","embedding_dim=128"'""",
        ),
        ("last_stride", "last_stride=1", "of trained weights too, at the beginning of a training"),
        ("num_instances", "images_per_identity, with sampler='identity'", ""),
        ("re_prob", "augmentation.erase_share", ""),
        (
            "optim.trunk.base_lr",
            "learning_rate_trunk",
            "TAO's metric learning (code of 2024) never steps its scheduler and stays at 1 %",
        ),
        ("optim.embedder.base_lr", "learning_rate_head", ""),
        ("base_lr", "learning_rate_trunk, learning_rate_head, learning_rate_loss", "one rate there"),
        (
            "weight_decay, weight_decay_bias",
            "weight_decay",
            "on matrices and kernels of trunk and head alone; on norms, biases and the classifier too there",
        ),
        ("warmup_iters, warmup_epochs", "warmup_steps", "optimiser steps here, epochs there; linear"),
        ("warmup_factor", "1 / warmup_steps, the first step's share", ""),
        ("lr_steps: [40, 70] of 120 epochs", "schedule='multistep', milestones=(1/3, 7/12)", "shares of the length"),
        ("gamma", "gamma", ""),
    ]
    return pd.DataFrame(rows, columns=["tao", "here", "difference"])
