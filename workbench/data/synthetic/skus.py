"""Invented brands and their sibling products: what a product looks like, before anything is drawn."""

from dataclasses import dataclass

import numpy as np

from workbench.data.synthetic.drawing import Colour, hsv

FORMS = ("box", "can", "bottle", "pouch")
# fmt: off
PICTURES = (
    "apple", "lemon", "cherry", "leaf", "drop", "star", "heart", "fish", "wheat", "flower", "cup", "sun",
    "berry", "carrot", "mountain", "moon",
)
MARKS = (
    "ring", "shield", "star", "peak", "wave", "crown", "hexagon", "bar", "leaf", "sun", "heart", "drop",
)
WORDS = (
    "Classic", "Zero", "Mild", "Hot", "Gold", "Fresh", "Pure", "Extra", "Light", "Strong", "Wild", "Soft",
    "Night", "Royal", "Fine", "Dark", "Sweet", "Crisp", "Smooth", "Rich", "Green", "Alpine", "Smoky", "Tangy",
    "Mellow", "Golden", "Rustic", "Silky", "Urban", "Cosmic",
)
_FIRST = (
    "Bo", "Ca", "Da", "Fe", "Gri", "Ha", "Jo", "Ki", "Lu", "Ma", "No", "Or", "Pa", "Qui", "Ra", "Sa", "Ti",
    "Ul", "Va", "We", "Xa", "Yo", "Za", "Bri",
)
_MIDDLE = (
    "lo", "ri", "na", "ve", "mo", "ta", "li", "su", "po", "ra", "de", "ne", "zo", "ki", "la", "mi", "fa", "tu",
    "go", "ba",
)
_LAST = (
    "va", "nd", "lle", "x", "ra", "n", "sto", "ka", "m", "ria", "s", "do", "nna", "co", "tt",
)
# fmt: on
GROUNDS = ("plain", "fade", "slope", "arc", "stripes", "dots", "rays", "halves")
HEADERS = ("bare", "plate", "oval", "ribbon")
BANDS = ("across", "foot", "slant", "side", "belt")
# Ground, second colour, accent, as hue, saturation and value: so few that several brands look alike from afar.
PALETTES = (
    ((0.99, 0.85, 0.78), (0.13, 0.75, 0.95), (0.12, 0.12, 0.98)),
    ((0.62, 0.85, 0.5), (0.99, 0.8, 0.8), (0.6, 0.08, 0.97)),
    ((0.12, 0.12, 0.98), (0.99, 0.85, 0.72), (0.36, 0.6, 0.5)),
    ((0.36, 0.7, 0.45), (0.13, 0.7, 0.95), (0.16, 0.14, 0.98)),
    ((0.14, 0.78, 0.96), (0.62, 0.8, 0.55), (0.02, 0.8, 0.85)),
    ((0.6, 0.06, 0.97), (0.58, 0.75, 0.8), (0.95, 0.65, 0.85)),
    ((0.07, 0.55, 0.36), (0.11, 0.5, 0.85), (0.1, 0.2, 0.95)),
    ((0.52, 0.5, 0.85), (0.62, 0.75, 0.5), (0.15, 0.5, 0.98)),
)
NUM_BRANDS = 24 * 20 * 15


@dataclass(frozen=True)
class Brand:
    """What all siblings of a brand share: its package, palette, type and the places of mark, picture, band and word."""

    name: str
    number: int
    form: str
    width: float  # of the front, as a share of its height
    depth: float  # of a box, as a share of its width; of a bottle, the share of its height that is label
    base: Colour
    second: Colour
    accent: Colour
    glass: Colour
    ground: str
    header: str
    mark: str
    band: str
    bold: float
    slant: float
    stretch: float
    capitals: bool
    window: tuple[float, float, float]  # centre x and y, radius: shares of width, height and width
    gloss: float
    yaw: float  # of the packshot, in radians
    changes: tuple[str, ...]  # what differs between siblings beside the word: band, picture


@dataclass(frozen=True)
class Sku:
    """One product: its brand and what tells it from its siblings. `label` is a GTIN-13 with a valid check digit."""

    label: str
    brand: Brand
    word: str
    band_colour: Colour
    picture: str


def check_digit(digits: str) -> str:
    """The GTIN check digit of the digits before it: weights 3, 1, 3, … from the right, up to the next ten.

    Source: GS1 General Specifications, section 7.9 (check digit calculations).
    """
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits)))
    return str(-total % 10)


def design_skus(seed: int, num_skus: int, first_brand: int = 0) -> list[Sku]:
    """`num_skus` products of as many brands as needed, three to five siblings each; the same for the same arguments.

    Args:
        seed: of everything that is random; two seeds give two assortments.
        num_skus: at least 3, because a product without a sibling would be too easy.
        first_brand: the number of the first brand. Brands of different numbers have different names and GTINs, so
            that two calls with ranges that do not touch give disjoint products.

    Raises:
        ValueError: fewer than 3 products, or brand numbers past the last possible name.
    """
    if num_skus < 3:
        raise ValueError(f"num_skus is {num_skus}; a brand has three to five siblings, so at least 3 are wanted.")
    skus: list[Sku] = []
    number = first_brand
    while len(skus) < num_skus:
        if number >= NUM_BRANDS:
            raise ValueError(f"Brand {number} has no name: there are {NUM_BRANDS}. Ask for fewer products.")
        rng = np.random.default_rng([seed, number])
        left = num_skus - len(skus)
        sizes = [size for size in (3, 4, 5) if left == size or left - size >= 3]
        num_siblings = sizes[rng.integers(len(sizes))]
        skus += _design_siblings(_design_brand(number, seed, rng), num_siblings, seed, rng)
        number += 1
    return skus


def _design_brand(number: int, seed: int, rng: np.random.Generator) -> Brand:
    code = (number * 2593 + seed * 1117) % NUM_BRANDS  # 2593 shares no factor with NUM_BRANDS: every number its name
    name = _FIRST[code % 24] + _MIDDLE[code // 24 % 20] + _LAST[code // 480]
    form = FORMS[number % len(FORMS)]
    base, second, accent = (
        hsv(hue + rng.normal(0, 0.015), saturation * rng.uniform(0.8, 1.1), value * rng.uniform(0.88, 1.05))
        for hue, saturation, value in PALETTES[rng.integers(len(PALETTES))]
    )
    width = {"box": (0.6, 0.95), "can": (0.56, 0.8), "bottle": (0.42, 0.54), "pouch": (0.64, 0.86)}[form]
    depth = {"box": (0.25, 0.6), "can": (1, 1), "bottle": (0.48, 0.62), "pouch": (1, 1)}[form]
    changes = (("band",), ("picture",), ("band", "picture"))[rng.choice(3, p=[0.4, 0.35, 0.25])]
    return Brand(
        name=name,
        number=number,
        form=form,
        width=rng.uniform(*width),
        depth=rng.uniform(*depth),
        base=base,
        second=second,
        accent=accent,
        glass=hsv(rng.choice([0.3, 0.09, 0.55, 0.13]), rng.uniform(0.1, 0.85), rng.uniform(0.25, 0.85)),
        ground=GROUNDS[rng.integers(len(GROUNDS))],
        header=HEADERS[rng.integers(len(HEADERS))],
        mark=MARKS[rng.integers(len(MARKS))],
        band=BANDS[rng.integers(len(BANDS))],
        bold=rng.choice([0.0, 0.04, 0.08]),
        slant=rng.choice([0.0, 0.0, 0.25]),
        stretch=rng.choice([0.7, 1.0, 1.25]),
        capitals=bool(rng.random() < 0.5),
        window=(rng.uniform(0.4, 0.6), rng.uniform(0.5, 0.58), rng.uniform(0.27, 0.36)),
        gloss=rng.uniform(0.1, 0.5) if form in ("box", "pouch") else rng.uniform(0.3, 0.75),
        yaw=rng.choice([0.0, 0.45, -0.45]) if form == "box" else 0.0,
        changes=changes,
    )


def _design_siblings(brand: Brand, num_siblings: int, seed: int, rng: np.random.Generator) -> list[Sku]:
    """Siblings with different words and, where the brand says so, different bands or pictures; the rest is shared."""
    maker = (brand.number * 7368787 + seed * 1009) % 10_000_000
    words = rng.choice(len(WORDS), num_siblings, replace=False)
    pictures = rng.choice(len(PICTURES), num_siblings, replace=False)
    hue, saturation, value = rng.random(), rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.95)
    skus = []
    for place in range(num_siblings):
        digits = f"{maker:07d}{10 + 10 * place:05d}"
        picture = PICTURES[pictures[place if "picture" in brand.changes else 0]]
        shift = place / num_siblings + rng.uniform(-0.04, 0.04) if "band" in brand.changes else 0.0
        skus.append(
            Sku(
                label=digits + check_digit(digits),
                brand=brand,
                word=picture.title() if "picture" in brand.changes else WORDS[words[place]],
                band_colour=hsv(hue + shift, saturation, value) if "band" in brand.changes else brand.second,
                picture=picture,
            )
        )
    return skus
