"""What the surfaces of a figure look like: garments and heads, unrolled into textures.

A texture is uint8 [rows, columns, 3], RGB: rows go down the part of the body, columns once around it, the front in the
middle, the person's right before it and left after it.
"""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.synthetic.drawing import Colour, ink_on, mix
from workbench.data.synthetic.people import Person

ROWS, COLUMNS = 64, 128
_FRONT = COLUMNS // 2


@lru_cache(maxsize=4096)
def plain_texture(colour: Colour) -> np.ndarray:
    """One colour all around, uint8 [1, 1, 3]."""
    return np.array(colour, np.uint8).reshape(1, 1, 3)


@lru_cache(maxsize=512)
def torso_texture(person: Person) -> np.ndarray:
    """The upper garment around the trunk, neck to hips, with its pattern, mark, opening and the straps of a bag."""
    image = Image.new("RGB", (COLUMNS, ROWS), person.top_colour)
    draw = ImageDraw.Draw(image)
    _draw_pattern(draw, person)
    _draw_mark(draw, person, _FRONT)
    if person.mark_behind:
        _draw_mark(draw, person, 0)
        _draw_mark(draw, person, COLUMNS)
    if person.top in ("jacket", "coat"):
        under = mix(person.trim, (240, 240, 240), 0.5)
        draw.polygon([(_FRONT - 10, 0), (_FRONT + 10, 0), (_FRONT, 20)], fill=under)
        draw.line([(_FRONT, 14), (_FRONT, ROWS)], fill=mix(person.top_colour, ink_on(person.top_colour), 0.6), width=2)
    else:
        draw.ellipse([_FRONT - 8, -5, _FRONT + 8, 5], fill=person.skin)
    if person.top == "vest":
        draw.rectangle([_FRONT - 42, 0, _FRONT - 22, 12], fill=person.skin)
        draw.rectangle([_FRONT + 22, 0, _FRONT + 42, 12], fill=person.skin)
    if person.top == "shirt":
        draw.rectangle([0, ROWS - 4, COLUMNS, ROWS], fill=mix(person.bottom_colour, (20, 16, 14), 0.6))
    if person.bag == "backpack":
        for x in (_FRONT - 17, _FRONT + 17):
            draw.rectangle([x - 3, 0, x + 3, 34], fill=person.bag_colour)
    if person.bag == "shoulder bag":
        draw.line([(_FRONT - 22, 0), (_FRONT + 30, ROWS)], fill=person.bag_colour, width=5)
        draw.line([(22, 0), (-30, ROWS)], fill=person.bag_colour, width=5)
        draw.line([(22 + COLUMNS, 0), (COLUMNS - 30, ROWS)], fill=person.bag_colour, width=5)
    return np.asarray(image)


@lru_cache(maxsize=512)
def sleeve_textures(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """The upper arm and the forearm, each from its upper end down; the hand is the end of the forearm."""
    colour = person.trim if person.pattern == "sleeves" else person.top_colour
    arm = np.empty((2 * ROWS, 1, 3), np.uint8)
    arm[:] = colour
    if person.pattern == "stripes":
        arm[(np.arange(2 * ROWS) // 9) % 2 == 1] = person.trim
    if person.pattern == "panels":
        arm[:12] = person.trim
    bare_from = {"shirt": 44, "vest": 0}.get(person.top, 2 * ROWS - 15)
    arm[bare_from:] = person.skin
    return arm[:ROWS], arm[ROWS:]


@lru_cache(maxsize=512)
def leg_textures(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """The thigh and the shin, each from its upper end down."""
    leg = np.empty((2 * ROWS, 1, 3), np.uint8)
    leg[:] = person.bottom_colour
    if person.bottom != "trousers":
        leg[ROWS - 6 :] = person.skin
        leg[2 * ROWS - 22 :] = person.socks
    return leg[:ROWS], leg[ROWS:]


@lru_cache(maxsize=512)
def head_texture(person: Person) -> np.ndarray:
    """The head, crown to chin: hair by its style, ears' height, eyes, mouth and beard."""
    image = Image.new("RGB", (COLUMNS, ROWS), person.skin)
    draw = ImageDraw.Draw(image)
    dark = mix(person.skin, (30, 14, 12), 0.62)
    if person.hair_style != "bald":
        nape = {"short": 38, "afro": 42, "bob": 56, "long": 60}.get(person.hair_style, 46)
        side = {"bob": 24, "long": 22}.get(person.hair_style, 30)
        draw.rectangle([0, 0, COLUMNS, 19], fill=person.hair)
        draw.rectangle([0, 0, _FRONT - side, nape], fill=person.hair)
        draw.rectangle([_FRONT + side, 0, COLUMNS, nape], fill=person.hair)
    if person.beard:
        draw.rectangle([_FRONT - 30, 44, _FRONT + 30, ROWS], fill=mix(person.hair, person.skin, 0.15))
    for x in (_FRONT - 9, _FRONT + 9):
        draw.ellipse([x - 4, 29, x + 4, 35], fill=dark)
    draw.rectangle([_FRONT - 7, 48, _FRONT + 7, 51], fill=mix(person.skin, (150, 40, 40), 0.55))
    return np.asarray(image)


def _draw_pattern(draw: ImageDraw.ImageDraw, person: Person) -> None:
    trim = person.trim
    if person.pattern == "stripes":
        for y in range(4, ROWS, 14):
            draw.rectangle([0, y, COLUMNS, y + 6], fill=trim)
    elif person.pattern == "upright stripes":
        for x in range(0, COLUMNS, 16):
            draw.rectangle([x, 0, x + 6, ROWS], fill=trim)
    elif person.pattern == "chest band":
        draw.rectangle([0, 18, COLUMNS, 32], fill=trim)
    elif person.pattern == "two halves":
        draw.rectangle([0, 0, COLUMNS, 28], fill=trim)
    elif person.pattern == "checks":
        for y in range(0, ROWS, 16):
            for x in range((y // 16) % 2 * 16, COLUMNS, 32):
                draw.rectangle([x, y, x + 15, y + 15], fill=trim)
    elif person.pattern == "dots":
        for y in range(2, ROWS, 15):
            for x in range((y // 15) % 2 * 8, COLUMNS, 16):
                draw.ellipse([x, y, x + 8, y + 8], fill=trim)
    elif person.pattern == "panels":
        for centre in (0, _FRONT, COLUMNS):
            draw.rectangle([centre - 13, 0, centre + 13, ROWS], fill=trim)


def _draw_mark(draw: ImageDraw.ImageDraw, person: Person, x: int) -> None:
    ground = person.trim if person.pattern in ("panels", "two halves", "chest band") else person.top_colour
    colour, y = mix(ink_on(ground), person.trim, 0.25 if ground == person.top_colour else 0.0), 23
    if person.mark == "disc":
        draw.ellipse([x - 10, y - 9, x + 10, y + 9], fill=colour)
    elif person.mark == "bar":
        draw.rectangle([x - 15, y - 4, x + 15, y + 4], fill=colour)
    elif person.mark == "triangle":
        draw.polygon([(x - 12, y + 9), (x + 12, y + 9), (x, y - 10)], fill=colour)
    elif person.mark == "cross":
        draw.rectangle([x - 3, y - 10, x + 3, y + 10], fill=colour)
        draw.rectangle([x - 11, y - 3, x + 11, y + 3], fill=colour)
    elif person.mark == "square":
        draw.rectangle([x - 10, y - 9, x + 10, y + 9], fill=colour)
        draw.rectangle([x - 5, y - 4, x + 5, y + 4], fill=ground)
