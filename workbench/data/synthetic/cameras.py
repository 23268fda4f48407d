"""Six cameras and the pictures that they take of people who walk by, cut out by a detector."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from workbench.data.synthetic.drawing import blur, encode_jpeg, hsv, mix, noise, paste, to_uint8
from workbench.data.synthetic.figures import Pose, draw_figure
from workbench.data.synthetic.people import Person
from workbench.data.synthetic.scenes import HORIZON_PX, PERSON_PX, SCENE_PX, scene

MOST_OCCLUDED = 0.4  # of a person's pixels in the frame, by things and other people
BOX_WIDTH = 0.5  # of a detector's box, against its height
_OVERSAMPLING = 1.5  # pixels that are drawn for one of the picture, in each direction

# How far a detector's box agrees with the true one (intersection over union). Source: Zheng et al., "Scalable Person
# Re-identification: A Benchmark", ICCV 2015, section 3.1: above 0.5 a good box, below 0.2 a distractor, between them junk.
Box = Literal["good", "junk", "distractor"]
_OVERLAPS: dict[Box, tuple[float, float]] = {"good": (0.68, 1.0), "junk": (0.2, 0.5), "distractor": (0.0, 0.2)}


@dataclass(frozen=True)
class Camera:
    """A camera and its place.

    Attributes:
        scene: what it looks at.
        cast: factors on red, green and blue.
        gamma: exponent on the brightness; above 1 is darker.
        pitch: how far it looks down, radians.
        resolution: share of the picture's pixels in each direction that it resolves.
        noise: most grey levels of noise.
        jpeg: quality of the compression, 1 to 95.
        side_light: where the light comes from, -1 (left) to 1 (right).
        path: the direction in which people pass: 0 towards it and away, a quarter turn from side to side; radians.
    """

    scene: str
    cast: tuple[float, float, float]
    gamma: float
    pitch: float
    resolution: float
    noise: float
    jpeg: int
    side_light: float
    path: float


CAMERAS: dict[int, Camera] = {
    1: Camera("plaza", (1.02, 1.0, 0.97), 1.0, 0.12, 1.0, 4, 90, 0.6, 0.2),
    2: Camera("brick wall", (0.95, 0.98, 1.06), 1.04, 0.28, 0.8, 5, 84, -0.5, 1.3),
    3: Camera("shop", (1.07, 1.0, 0.91), 1.0, 0.06, 0.9, 6, 86, 0.1, 0.7),
    4: Camera("corridor", (0.97, 1.04, 0.96), 0.95, 0.4, 0.75, 5, 80, 0.0, 0.0),
    5: Camera("car park", (0.93, 0.94, 0.99), 1.08, 0.33, 0.6, 9, 76, -0.7, 2.2),
    6: Camera("park", (1.04, 1.04, 0.96), 0.93, 0.2, 0.45, 5, 74, 0.4, 1.7),
}


def take_picture(
    person: Person,
    camera: Camera,
    height_px: int,
    passage: np.random.Generator,
    moment: np.random.Generator,
    box: Box = "good",
    others: tuple[Person, ...] = (),
) -> bytes:
    """A JPEG of `person` under `camera`, `height_px` high and `BOX_WIDTH` times as wide.

    Args:
        person: who; a distractor's box holds next to nothing of the person.
        camera: where.
        height_px: at least 32.
        passage: decides what stays while the person walks by: direction, place, light. Generators in the same state
            give the same passage.
        moment: decides the rest: phase of the walk, box, things in front, blur, noise.
        box: how well the detector's box fits.
        others: people who may walk before or behind.
    """
    work_px = round(height_px * _OVERSAMPLING)
    turn = camera.path + (np.pi if passage.random() < 0.5 else 0.0) + passage.normal(0, 0.35)
    feet = passage.uniform(1.5, SCENE_PX[0] / PERSON_PX - 1.5), HORIZON_PX / PERSON_PX + passage.uniform(0.1, 1.3)
    pitch = max(camera.pitch + passage.normal(0, 0.03), 0.0)
    stride = 0.0 if passage.random() < 0.12 else passage.uniform(0.28, 0.5)
    exposure = float(np.exp(passage.normal(0, 0.1)))

    def pose(turn: float) -> Pose:
        phase, wobble, lean = moment.uniform(0, 2 * np.pi), moment.normal(0, 0.12), moment.normal(0, 0.02)
        return Pose(turn + wobble, phase, stride, pitch, lean, camera.side_light)

    left, top, high = find_box(float(np.cos(pitch)), box, moment)
    scale = work_px / high
    image_HWC = _cut_scene(camera, feet[0] + left, feet[1] + top, high, work_px)
    mask_HW = np.zeros(image_HWC.shape[:2], np.float32)
    feet_px = -left * scale, -top * scale
    if others and moment.random() < 0.3:
        beside = feet_px[0] + scale * moment.uniform(-0.5, 0.5), feet_px[1] - scale * moment.uniform(0.02, 0.12)
        other = others[moment.integers(len(others))]
        draw_figure(image_HWC, mask_HW, other, pose(moment.uniform(0, 2 * np.pi)), beside, 0.92 * scale)
        mask_HW[:] = 0
    _shade_ground(image_HWC, feet_px, scale, camera.side_light)
    draw_figure(image_HWC, mask_HW, person, pose(turn), feet_px, scale)
    if moment.random() < 0.35:
        front_HWC, front_HW = image_HWC.copy(), np.zeros_like(mask_HW)
        if others and moment.random() < 0.4:
            beside = feet_px[0] + scale * moment.choice([-1, 1]) * moment.uniform(0.2, 0.42), feet_px[1] + 0.08 * scale
            other = others[moment.integers(len(others))]
            draw_figure(front_HWC, front_HW, other, pose(moment.uniform(0, 2 * np.pi)), beside, 1.04 * scale)
        else:
            _draw_thing(front_HWC, front_HW, feet_px, scale, moment)
        if np.minimum(front_HW, mask_HW).sum() <= MOST_OCCLUDED * mask_HW.sum():
            image_HWC = front_HWC
    return _expose(image_HWC, camera, height_px, exposure, moment)


def find_box(tall: float, box: Box, rng: np.random.Generator) -> tuple[float, float, float]:
    """A detector's box whose overlap with the true box of a figure is as its kind wants.

    Returns:
        Its left and upper edge, from the feet (right and down), and its height; in standing heights.

    Args:
        tall: the height of the figure as it is seen.
        box: the kind.
        rng: decides.
    """
    low, high = _OVERLAPS[box]
    spread, size_spread = {"good": (0.02, 0.04), "junk": (0.25, 0.3), "distractor": (0.6, 0.4)}[box]
    true_high = 1.05 * tall + 0.06
    while True:
        tall_box = true_high * float(np.exp(rng.normal(0, size_spread)))
        x, y = rng.normal(0, spread), -0.47 * tall + rng.normal(0, 1.4 * spread)
        ratio = tall_box / true_high
        apart = abs(x) / (BOX_WIDTH * true_high), abs(y + 0.47 * tall) / true_high
        shared = [max(0.0, min(1.0, ratio, (1 + ratio) / 2 - gap)) for gap in apart]
        inside = shared[0] * shared[1]
        if low <= inside / (1 + ratio**2 - inside) < high:
            return x - BOX_WIDTH * tall_box / 2, y - tall_box / 2, tall_box


def _cut_scene(camera: Camera, left: float, top: float, high: float, work_px: int) -> np.ndarray:
    """The empty scene in a box (standing heights; moved inside where it hangs over), float32 [work_px, width, 3]."""
    high_px = min(high * PERSON_PX, SCENE_PX[1])
    wide_px = high_px * BOX_WIDTH
    x = min(max(left * PERSON_PX, 0.0), SCENE_PX[0] - wide_px)
    y = min(max(top * PERSON_PX, 0.0), SCENE_PX[1] - high_px)
    size = round(work_px * BOX_WIDTH), work_px
    cut = scene(camera.scene).resize(size, Image.Resampling.BILINEAR, (x, y, x + wide_px, y + high_px))
    return np.asarray(cut).astype(np.float32)


def _shade_ground(image_HWC: np.ndarray, feet_px: tuple[float, float], scale: float, side_light: float) -> None:
    """Darkens the ground around the feet in place."""
    height, width = image_HWC.shape[:2]
    top, bottom = (min(max(round(feet_px[1] + reach * scale), 0), height) for reach in (-0.07, 0.07))
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(feet_px[1])) / np.float32(0.05 * scale)
    across = np.arange(width, dtype=np.float32) - np.float32(feet_px[0] - 0.12 * side_light * scale)
    far = np.hypot(across / np.float32(0.26 * scale), down)
    image_HWC[top:bottom] *= (1 - np.float32(0.5) * np.clip(1.3 - far, 0, 1))[..., None]


def _draw_thing(
    image_HWC: np.ndarray, mask_HW: np.ndarray, feet_px: tuple[float, float], scale: float, rng: np.random.Generator
) -> None:
    """Draws a pole, a bin, a bush or a board that stands before the person, and marks it in `mask_HW`."""
    layer = Image.new("RGBA", (image_HWC.shape[1], image_HWC.shape[0]))
    draw = ImageDraw.Draw(layer)
    colour = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.15, 0.8))
    ink, shaded = (*colour, 255), (*mix(colour, (0, 0, 0), 0.3), 255)
    x, foot = feet_px[0] + scale * rng.uniform(-0.28, 0.28), feet_px[1] + scale * 0.07
    kind = rng.choice(["pole", "bin", "bush", "board"])
    if kind == "pole":
        half = scale * rng.uniform(0.015, 0.04)
        draw.rectangle([x - half, min(-2, foot), x + half, foot], fill=ink)
        draw.rectangle([x, min(-2, foot), x + half, foot], fill=shaded)
    elif kind == "bush":
        for _ in range(26):
            dx, dy, radius = rng.normal(0, 0.09), rng.uniform(0, 0.3), rng.uniform(0.03, 0.07) * scale
            middle = x + dx * scale, foot - dy * scale
            leaf = (*hsv(rng.uniform(0.22, 0.34), 0.5, rng.uniform(0.2, 0.5)), 255)
            draw.ellipse([middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius], fill=leaf)
    else:
        half, high = scale * rng.uniform(0.08, 0.16), scale * rng.uniform(0.22, 0.42)
        draw.rounded_rectangle([x - half, foot - high, x + half, foot], scale * 0.02, fill=ink)
        band = 0.2 if kind == "bin" else 0.5
        draw.rectangle([x - half, foot - high, x + half, foot - high * (1 - band)], fill=shaded)
    paste(image_HWC, layer)
    np.copyto(mask_HW, np.asarray(layer.getchannel("A"), np.float32) / 255)


def _expose(image_HWC: np.ndarray, camera: Camera, height_px: int, exposure: float, rng: np.random.Generator) -> bytes:
    """The JPEG, `height_px` high, that the camera makes of the light that falls on it."""
    size = round(height_px * BOX_WIDTH), height_px
    seen = Image.fromarray(to_uint8(image_HWC))
    coarse = max(8, round(size[0] * camera.resolution)), max(16, round(size[1] * camera.resolution))
    seen = seen.resize(coarse, Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)
    seen = blur(seen, rng, 0.9)
    levels = np.outer(exposure * np.array(camera.cast), np.arange(256) / 255)
    seen = seen.point(to_uint8(255 * levels**camera.gamma).ravel().tolist())
    return encode_jpeg(noise(seen, rng, camera.noise), camera.jpeg)
