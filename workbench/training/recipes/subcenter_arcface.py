"""Sub-center ArcFace: several weight vectors a class, for labels with errors and for products with several faces.

Source: Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces", ECCV 2020. All else is
RetailKLIP's recipe, so that the loss alone differs.
"""

from dataclasses import replace

from workbench.training.recipes.retailklip import RETAILKLIP

SUBCENTER_ARCFACE = replace(
    RETAILKLIP,
    name="subcenter_arcface",
    loss="subcenter_arcface",
    subcenters=3,  # paper
)
