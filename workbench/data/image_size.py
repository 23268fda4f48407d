"""The shape in which a set's pictures are shown to a trunk, at the size of a small trial."""

import math

from workbench.data.card import Card

STEP_PX = 16  # patches and strides of most trunks divide it
_NUM_PIXELS = 128 * 64


def small_size(card: Card) -> tuple[int, int]:
    """Height and width, px, of some 8,000 pixels in the shape of the card's `image_size`; 96 x 96 where it says none.

    Sides are multiples of 16 px. The shape is of re-identification, where practice has one for each kind of individual:
    people 256 x 128 (Luo et al., CVPR workshops 2019), vehicles square (fast-reid's configurations for VeRi-776, 256 x 256).
    """
    height, width = card.protocol.get("image_size", (1, 1))
    scale = math.sqrt(_NUM_PIXELS / (height * width)) / STEP_PX
    return max(1, round(scale * height)) * STEP_PX, max(1, round(scale * width)) * STEP_PX
