"""Full fine-tuning with local concepts accumulation and the maximum-entropy loss.

Sources: Srivastava, "Bag of Tricks for Retail Product Image Classification", ICIAR 2020 (the LCA layer, on a ResNeXt WSL,
`timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k`); Dubey et al., "Maximum-Entropy Fine-Grained Classification", NeurIPS 2018; a
baseline of RetailKLIP (Srivastava, VISAPP 2024). What is not marked "paper" is this workbench's choice.
"""

from dataclasses import replace

from workbench.training.recipes.full_finetune import FULL_FINETUNE

FULL_FINETUNE_LCA_MAXENT = replace(
    FULL_FINETUNE,
    name="full_finetune_lca_maxent",
    loss="max_entropy",  # paper: cross entropy minus gamma times the prediction's entropy
    entropy_weight=0.1,  # gamma
    head="lca",  # paper: every window of the last map larger than 1x1 through one layer with ReLU, averaged
    learning_rate_head=1e-3,  # the layer starts from noise
)
