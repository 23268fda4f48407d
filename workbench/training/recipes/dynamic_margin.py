"""ArcFace with a margin for each class: the fewer images, the larger.

Source: Ha et al., "Google Landmark Recognition 2020 Competition Third Place Solution", 2020, with the authors' code: there on
sub-centers and at scale 80. All else is RetailKLIP's recipe, so that the margin alone differs.
"""

from dataclasses import replace

from workbench.training.recipes.retailklip import RETAILKLIP

DYNAMIC_MARGIN = replace(
    RETAILKLIP,
    name="dynamic_margin",
    loss="dynamic_arcface",
    dynamic_margin_deg=(2.9, 28.6),  # paper: from 0.05 rad for the largest class to 0.5 rad for the smallest
)
