"""Who the drawn individuals are: build, hair, skin, clothing, shoes and what they carry.

People come in groups that are dressed in the same colours, so that a colour alone tells nobody apart: within a group the
patterns and the bags differ, and hair, skin, shoes and build are each person's own.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.data.synthetic.drawing import SKIN_TONES, Colour, hsv, luminance, mix

GROUP_SIZE = 4
PATTERNS = ("plain", "stripes", "upright stripes", "chest band", "two halves", "checks", "dots", "sleeves", "panels")
BAGS = ("none", "backpack", "shoulder bag", "handbag")
HAIR_STYLES = ("short", "bald", "long", "ponytail", "bun", "afro", "bob")
HATS = ("none", "cap", "beanie")
MARKS = ("none", "disc", "bar", "triangle", "cross", "square")

Top = Literal["shirt", "jumper", "jacket", "coat", "vest"]
Bottom = Literal["trousers", "shorts", "skirt"]

_TOP_COLOURS = (
    (38, 38, 44),
    (226, 224, 220),
    (128, 130, 134),
    (36, 48, 98),
    (170, 36, 40),
    (66, 92, 56),
    (196, 172, 132),
    (98, 152, 204),
    (222, 186, 62),
    (206, 122, 146),
    (96, 54, 110),
    (40, 128, 124),
    (206, 112, 44),
)
_BOTTOM_COLOURS = (
    (34, 34, 40),
    (52, 72, 118),
    (98, 128, 168),
    (104, 104, 108),
    (164, 146, 112),
    (206, 204, 198),
    (86, 62, 46),
    (64, 74, 56),
)
_HAIR_COLOURS = (
    (26, 22, 22),
    (44, 30, 24),
    (84, 54, 34),
    (132, 82, 44),
    (212, 174, 104),
    (150, 60, 32),
    (168, 168, 170),
)
_SHOE_COLOURS = (
    (28, 28, 30),
    (236, 236, 234),
    (110, 74, 46),
    (184, 40, 44),
    (60, 90, 160),
    (150, 150, 152),
    (226, 190, 60),
)


@dataclass(frozen=True)
class Person:
    """One individual; lengths are shares of the standing height, colours are RGB.

    Attributes:
        number: of the person, 1 or larger; the label is it with at least four digits.
        legs: height of the hips.
        girth: width of trunk and limbs against the usual.
        shoulders: width of the shoulders against the usual.
        top: kind of the upper garment; `top_colour` is its ground, `trim` the colour of its pattern.
        mark: print on the chest; on the back as well when `mark_behind`.
        bottom: kind of the lower garment.
    """

    number: int
    legs: float
    girth: float
    shoulders: float
    skin: Colour
    hair: Colour
    hair_style: str
    beard: bool
    hat: str
    hat_colour: Colour
    top: Top
    top_colour: Colour
    trim: Colour
    pattern: str
    mark: str
    mark_behind: bool
    bottom: Bottom
    bottom_colour: Colour
    socks: Colour
    shoes: Colour
    bag: str
    bag_colour: Colour

    @property
    def label(self) -> str:
        """The identity as it stands in a file name of the Market-1501 layout: at least four digits."""
        return f"{self.number:04d}"


def design_person(seed: int, number: int) -> Person:
    """The individual of that number, the same for the same seed whoever else is drawn.

    Odd and even numbers are two separate populations: each is cut, in order, into groups of `GROUP_SIZE` who wear the
    same kinds and ground colours of garments; no two of a group have the same pattern, nor the same kind of bag.

    Args:
        seed: 0 or larger.
        number: 1 or larger.
    """
    parity, place = number % 2, (number - 1) // 2
    shared = np.random.default_rng([seed, 1, parity, place // GROUP_SIZE])
    member = place % GROUP_SIZE
    top_colour, bottom_colour = (
        _shade(_pick(_TOP_COLOURS, shared), shared),
        _shade(_pick(_BOTTOM_COLOURS, shared), shared),
    )
    top: Top = ("shirt", "jumper", "jacket", "coat", "vest")[shared.choice(5, p=[0.3, 0.25, 0.25, 0.12, 0.08])]
    bottom: Bottom = ("trousers", "shorts", "skirt")[shared.choice(3, p=[0.66, 0.2, 0.14])]
    pattern = PATTERNS[shared.permutation(len(PATTERNS))[member]]
    bag = BAGS[shared.permutation(len(BAGS))[member]]
    own = np.random.default_rng([seed, 2, number])
    hair_style = HAIR_STYLES[own.choice(7, p=[0.34, 0.06, 0.2, 0.13, 0.08, 0.08, 0.11])]
    skin = SKIN_TONES[own.integers(len(SKIN_TONES))]
    return Person(
        number=number,
        legs=own.uniform(0.475, 0.53),
        girth=float(np.clip(own.normal(1.0, 0.13), 0.78, 1.36)),
        shoulders=own.uniform(0.88, 1.14),
        skin=skin,
        hair=_pick(_HAIR_COLOURS, own) if luminance(skin) > 130 else _HAIR_COLOURS[own.integers(3)],
        hair_style=hair_style,
        beard=bool(own.random() < 0.3 and hair_style in ("short", "bald", "afro")),
        hat=HATS[own.choice(3, p=[0.76, 0.14, 0.1])],
        hat_colour=_shade(_pick(_TOP_COLOURS, own), own),
        top=top,
        top_colour=top_colour,
        trim=_trim(top_colour, own),
        pattern=pattern,
        mark=MARKS[own.integers(len(MARKS))],
        mark_behind=bool(own.random() < 0.5),
        bottom=bottom,
        bottom_colour=bottom_colour,
        socks=skin if own.random() < 0.5 else _pick(_SHOE_COLOURS, own),
        shoes=_pick(_SHOE_COLOURS, own),
        bag=bag,
        bag_colour=_shade(_pick(_TOP_COLOURS, own), own),
    )


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[rng.integers(len(colours))]


def _shade(colour: Colour, rng: np.random.Generator) -> Colour:
    """A near relative of `colour`, as dye lots and washing make them."""
    target = (255, 255, 255) if rng.random() < 0.5 else (0, 0, 0)
    return mix(colour, target, rng.uniform(0, 0.14))


def _trim(ground: Colour, rng: np.random.Generator) -> Colour:
    """A colour that is seen on `ground`."""
    while True:
        colour = _pick(_TOP_COLOURS, rng) if rng.random() < 0.8 else hsv(rng.random(), 0.7, 0.9)
        if abs(luminance(colour) - luminance(ground)) > 45:
            return colour
