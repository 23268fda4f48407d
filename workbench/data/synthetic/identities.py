"""Synthetic individuals under several cameras, drawn by code in the layout of Market-1501, the same for the same seed.

People walk past six cameras, each with a place, a colour cast, a height and a resolution of its own. The file names
say who is seen and where; the gallery also holds distractors and junk.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np

from workbench.data.synthetic.cache import default_options, drawn_folder
from workbench.data.synthetic.cameras import CAMERAS, Box, take_picture
from workbench.data.synthetic.people import GROUP_SIZE, Person, design_person

DRAWING_VERSION = 1  # raise it when the same options give other pixels, so that no old drawing is taken for a new one
MIN_CAMERAS = 4  # that an individual passes
_MOST_IDENTITIES = 4999  # of a split: numbers of four digits, the odd ones for train, the even ones for test
_NUM_STRANGERS = 24


def draw_identities(
    folder: Path,
    *,
    seed: int = 0,
    num_train_identities: int = 100,
    num_test_identities: int = 60,
    train_views: int = 3,
    gallery_views: int = 2,
    num_distractors: int = 110,
    num_junk: int = 45,
    height_px: int = 128,
    num_workers: int | None = None,
) -> None:
    """Draws people into `folder`: `bounding_box_train`, `query` and `bounding_box_test`, JPEG files named as there.

    Each person passes at least `MIN_CAMERAS` of the six cameras, twice each. Train: `train_views` pictures of each
    train person under each camera that the person passes. Query: one of each test person under each camera; gallery:
    `gallery_views` others, so that every query has its match under other cameras. A third of the distractors
    (identity 0) are passers-by whom no query shows, the others boxes with next to nobody in them; junk (identity -1)
    are boxes that fit a test person badly. Every picture has its own random numbers: neither the number of workers nor
    another option changes any of them.

    Args:
        folder: is created when missing; use a new one.
        seed: of the people and the pictures.
        num_train_identities: 1 to 4999.
        num_test_identities: 1 to 4999.
        train_views: for each person and camera, 1 to 999.
        gallery_views: for each person and camera, 1 to 999.
        num_distractors: 0 to 99999.
        num_junk: 0 to 99999.
        height_px: of the pictures, at least 32; they are half as wide.
        num_workers: threads; None takes one for each core that this process may use.

    Raises:
        ValueError: a count or size out of range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it is 0 or larger.")
    for name, count, low, high in (
        ("num_train_identities", num_train_identities, 1, _MOST_IDENTITIES),
        ("num_test_identities", num_test_identities, 1, _MOST_IDENTITIES),
        ("train_views", train_views, 1, 999),
        ("gallery_views", gallery_views, 1, 999),
        ("num_distractors", num_distractors, 0, 99999),
        ("num_junk", num_junk, 0, 99999),
    ):
        if not low <= count <= high:
            raise ValueError(f"{name} is {count}; wanted: {low} to {high}.")
    if height_px < 32:
        raise ValueError(f"height_px is {height_px}; below 32 px nothing of a person is left.")
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def draw_person(number: int) -> None:
        person, is_query = design_person(seed, number), number % 2 == 0
        for camera in cameras_of(seed, number):
            for view in range(gallery_views + 1 if is_query else train_views):
                split = "bounding_box_train" if not is_query else "bounding_box_test" if view else "query"
                frame = int(np.random.default_rng([seed, 3, number, camera]).integers(1, 900_000)) + 25 * view
                name = f"{person.label}_c{camera}s{view % 2 + 1}_{frame:06d}_01.jpg"
                moment = np.random.default_rng([seed, 7, number, camera, view])
                content = _picture(seed, person, camera, view % 2, height_px, moment, "good")
                (folder / split / name).write_bytes(content)

    def draw_astray(task: tuple[Box, int]) -> None:
        box, place = task
        rng = np.random.default_rng([seed, 4, int(box == "junk"), place])
        if box == "distractor" and place % 3 == 0:
            person, box = design_person(seed, _stranger_number(_NUM_STRANGERS + place)), "good"
        else:
            person = design_person(seed, 2 * int(rng.integers(num_test_identities)) + 2)
        camera = int(rng.choice(cameras_of(seed, person.number)))
        name = f"{'-1' if box == 'junk' else '0000'}_c{camera}s1_{place:06d}_01.jpg"
        content = _picture(seed, person, camera, place % 2, height_px, rng, box)
        (folder / "bounding_box_test" / name).write_bytes(content)

    numbers = [2 * place + 1 for place in range(num_train_identities)]
    numbers += [2 * place + 2 for place in range(num_test_identities)]
    astray: list[tuple[Box, int]] = [("distractor", place) for place in range(num_distractors)]
    astray += [("junk", place) for place in range(num_junk)]
    with ThreadPoolExecutor(num_workers or joblib.cpu_count()) as workers:
        for _ in workers.map(draw_person, numbers):
            pass
        for _ in workers.map(draw_astray, astray):
            pass


def cameras_of(seed: int, number: int) -> list[int]:
    """The numbers of the cameras that a person passes, in rising order: at least `MIN_CAMERAS` of them."""
    rng = np.random.default_rng([seed, 5, number])
    count = int(rng.integers(MIN_CAMERAS, len(CAMERAS) + 1))
    return sorted(rng.permutation(list(CAMERAS))[:count].tolist())


def synthetic_folder(options: Mapping[str, object]) -> Path:
    """The folder with the people that `options` describe (see `draw_identities`), drawn when it is not there yet.

    Raises:
        ValueError: an option that does not exist, or a value that is not a whole number or out of range.
    """
    return drawn_folder(draw_identities, "identities", DRAWING_VERSION, _DEFAULTS, options)


def _picture(
    seed: int, person: Person, camera: int, passage: int, height_px: int, moment: np.random.Generator, box: Box
) -> bytes:
    way = np.random.default_rng([seed, 6, person.number, camera, passage])
    return take_picture(person, CAMERAS[camera], height_px, way, moment, box, _strangers(seed))


@lru_cache(maxsize=2)
def _strangers(seed: int) -> tuple[Person, ...]:
    """People who walk about in the pictures of others."""
    return tuple(design_person(seed, _stranger_number(place)) for place in range(_NUM_STRANGERS))


def _stranger_number(place: int) -> int:
    """The number of a person who is in no split; no two strangers are of one group."""
    return 2 * _MOST_IDENTITIES + 2 * GROUP_SIZE * (place + 1)


_DEFAULTS = default_options(draw_identities)
