"""Figures of people: a body of tubes in space that walks, turns and is seen from above, drawn into a picture.

The body's axes: x to the person's left, y up, z forward; the unit is the standing height and the origin lies on the
ground between the feet. The viewer's axes: across to the right, up, and towards the viewer.
"""

from dataclasses import dataclass

import numpy as np

from workbench.data.synthetic.clothing import (
    head_texture,
    leg_textures,
    plain_texture,
    sleeve_textures,
    torso_texture,
)
from workbench.data.synthetic.drawing import Point, mix
from workbench.data.synthetic.people import Person

Place = tuple[float, float, float]
_ROUND = (0.3, 0.62, 0.84, 0.95, 1.0, 1.0, 0.95, 0.84, 0.62, 0.3)  # half-widths of a ball or an egg, end to end


@dataclass(frozen=True)
class Pose:
    """How a person stands or walks and is seen; angles in radians.

    Attributes:
        turn: 0 faces the viewer, pi turns the back, a quarter shows a side.
        phase: of the walk.
        stride: how far the legs swing.
        pitch: how far the camera looks down.
        lean: of the figure in the picture, to the right.
        side_light: where the light comes from, -1 (left) to 1 (right).
    """

    turn: float
    phase: float = 0.0
    stride: float = 0.0
    pitch: float = 0.0
    lean: float = 0.0
    side_light: float = 0.0


@dataclass(frozen=True)
class _Tube:
    start: Place
    end: Place
    widths: tuple[float, ...]  # half-widths across the body, evenly from start to end
    depth: float  # half-width front to back, as a share of that across
    texture: np.ndarray
    front: float = 0.0  # drawn as if it were so much nearer
    flat: float = 1.0  # how flat the ends are; 1 is a half ball


def draw_figure(
    image_HWC: np.ndarray, mask_HW: np.ndarray, person: Person, pose: Pose, feet_px: Point, height_px: float
) -> None:
    """Draws a person into `image_HWC` (float32, RGB, 0 to 255) in place and marks the pixels in `mask_HW`.

    Args:
        image_HWC: what falls outside it is lost.
        mask_HW: float32, 0 to 1; becomes 1 where the figure lies.
        person: who.
        pose: how.
        feet_px: the place on the ground between the feet, across and down.
        height_px: the standing height.
    """
    tubes = _body(person, pose) + _head(person) + _bag(person, pose)
    ends = np.array([(tube.start, tube.end) for tube in tubes])
    sine, cosine = np.sin(pose.turn), np.cos(pose.turn)
    across = ends[..., 0] * cosine + ends[..., 2] * sine
    near = ends[..., 2] * cosine - ends[..., 0] * sine
    up = ends[..., 1] * np.cos(pose.pitch) - near * np.sin(pose.pitch)
    depth = near * np.cos(pose.pitch) + ends[..., 1] * np.sin(pose.pitch)
    closeness = 1 + 0.22 * (depth - 0.5 * np.sin(pose.pitch))
    x_px = feet_px[0] + height_px * closeness * (across + pose.lean * up)
    y_px = feet_px[1] - height_px * up
    points_px = np.stack([x_px, y_px], axis=-1)
    scales = height_px * closeness.mean(1) * np.hypot(cosine, sine * np.array([tube.depth for tube in tubes]))
    nearest = depth.mean(1) + [tube.front for tube in tubes]
    for place in np.argsort(nearest, kind="stable"):
        widths_px = np.array(tubes[place].widths) * scales[place]
        _draw_tube(image_HWC, mask_HW, points_px[place], widths_px, tubes[place], pose)


def _draw_tube(
    image_HWC: np.ndarray, mask_HW: np.ndarray, points: np.ndarray, widths_px: np.ndarray, tube: _Tube, pose: Pose
) -> None:
    height, width = mask_HW.shape
    margin = widths_px.max() + 1.5
    x0, y0 = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    x1, y1 = (np.ceil(points.max(0) + margin) + 1).astype(int)
    x1, y1 = min(x1, width), min(y1, height)
    if x1 <= x0 or y1 <= y0:
        return
    axis = points[1] - points[0]
    length = max(float(np.hypot(*axis)), 1e-3)
    right = np.arange(x0, x1, dtype=np.float32) - np.float32(points[0, 0])
    down = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(points[0, 1])
    cos, sin = np.float32(axis[0] / length), np.float32(axis[1] / length)
    along = right * cos + down * sin
    off = right * sin - down * cos
    share = np.minimum(np.maximum(along * np.float32(1 / length), 0), 1)
    radius = np.interp(share * np.float32(len(widths_px) - 1), range(len(widths_px)), widths_px).astype(np.float32)
    over = np.maximum(np.maximum(-along, along - np.float32(length)), 0) * np.float32(tube.flat)
    cover = np.minimum(np.maximum(radius - np.sqrt(off * off + over * over) + np.float32(0.5), 0), 1)
    side = np.minimum(np.maximum(off / np.maximum(radius, np.float32(0.5)), np.float32(-0.999)), np.float32(0.999))
    facing = np.sqrt(1 - side * side)
    rows, columns = tube.texture.shape[:2]
    if columns == 1:
        colour = tube.texture[(share * np.float32(rows - 0.01)).astype(np.intp), 0]
    else:
        around = (np.arcsin(side) - np.float32(pose.turn)) * np.float32(0.5 / np.pi) + np.float32(0.5)
        column = ((around % 1) * np.float32(columns - 0.01)).astype(np.intp)
        colour = tube.texture[(share * np.float32(rows - 0.01)).astype(np.intp), column]
    shade = np.float32(0.62) + np.float32(0.38) * facing + np.float32(0.24 * pose.side_light) * side
    below = image_HWC[y0:y1, x0:x1]
    below += (colour * shade[..., None] - below) * cover[..., None]
    np.maximum(mask_HW[y0:y1, x0:x1], cover, out=mask_HW[y0:y1, x0:x1])


def _body(person: Person, pose: Pose) -> list[_Tube]:
    girth, hip = person.girth, person.legs
    shoulder, wide = 0.825, 0.118 * person.shoulders * (0.7 + 0.3 * girth)
    thigh, shin = leg_textures(person)
    upper, fore = sleeve_textures(person)
    loose = {"jacket": 1.12, "coat": 1.14, "jumper": 1.06}.get(person.top, 1.0)
    leg_width = (1.12 if person.bottom == "trousers" else 1.0) * girth
    tubes = []
    for side in (-1, 1):
        swing = side * pose.stride * np.sin(pose.phase)
        bend = 0.1 + 1.1 * pose.stride * max(0.0, side * float(np.cos(pose.phase)))
        top = (side * 0.047 * girth, hip, 0.0)
        knee = _reach(top, swing, hip * 0.49)
        ankle = _reach(knee, swing - bend, hip * 0.43)
        toe = _reach(ankle, swing - bend + 1.35, 0.085)
        tubes += [
            _Tube(top, knee, (0.055 * leg_width, 0.05 * leg_width, 0.039 * leg_width), 1.0, thigh),
            _Tube(knee, ankle, (0.038 * leg_width, 0.037 * leg_width, 0.027 * leg_width), 1.0, shin, -0.005),
            _Tube(ankle, toe, (0.029, 0.028, 0.023), 1.0, plain_texture(person.shoes), 0.01),
        ]
        joint = (side * wide, shoulder - 0.02, 0.0)
        drop = 0.12 + 0.05 * girth
        arm_swing = -0.85 * swing
        elbow = _reach(joint, arm_swing, 0.165, side * drop)
        hand = _reach(elbow, arm_swing + 0.22 + 0.5 * pose.stride, 0.175, side * drop * 0.4)
        arm = loose * (0.6 + 0.4 * girth)
        tubes += [
            _Tube(joint, elbow, (0.038 * arm, 0.034 * arm, 0.03 * arm), 1.0, upper, 0.01),
            _Tube(elbow, hand, (0.029 * arm, 0.026 * arm, 0.019, 0.022), 1.0, fore, 0.012),
        ]
    waist, hips = 0.083 * girth**1.3 * loose, 0.092 * girth * loose
    tubes.append(
        _Tube(
            (0, shoulder, 0),
            (0, hip - 0.015, 0),
            (wide * 0.86, wide * 1.0 * loose, (wide + waist) / 2 * loose, waist, hips),
            0.62 * girth**0.4,
            torso_texture(person),
            0.06,
            2.6,
        )
    )
    if person.top == "coat":
        coat = plain_texture(person.trim if person.pattern == "panels" else person.top_colour)
        tubes.append(_Tube((0, hip, 0), (0, hip * 0.62, 0), (hips, hips * 1.12, hips * 1.2), 0.75, coat, 0.09, 4))
    if person.bottom == "skirt":
        skirt = plain_texture(person.bottom_colour)
        tubes.append(
            _Tube((0, hip + 0.03, 0), (0, hip * 0.52, 0), (hips * 0.9, hips * 1.15, hips * 1.4), 0.8, skirt, 0.07, 5)
        )
    return tubes


def _head(person: Person) -> list[_Tube]:
    hair = plain_texture(person.hair)
    egg = tuple(0.056 * width for width in _ROUND)
    tubes = [
        _Tube(
            (0, 0.87, 0.005),
            (0, 0.82, 0),
            (0.03, 0.034, 0.045),
            1.0,
            plain_texture(mix(person.skin, (60, 30, 20), 0.15)),
            0.025,
            3,
        ),
        _Tube((0, 0.985, 0.012), (0, 0.868, 0.018), egg, 1.12, head_texture(person), 0.05),
    ]
    if person.hair_style == "long":
        tubes.append(_Tube((0, 0.96, -0.03), (0, 0.76, -0.05), (0.05, 0.062, 0.064, 0.05), 0.6, hair, 0.035))
    elif person.hair_style == "bob":
        tubes.append(_Tube((0, 0.95, -0.018), (0, 0.86, -0.022), (0.055, 0.066, 0.062), 0.8, hair, 0.03))
    elif person.hair_style == "ponytail":
        tubes.append(_Tube((0, 0.955, -0.06), (0, 0.79, -0.085), (0.02, 0.028, 0.026, 0.012), 1.0, hair, 0.03))
    elif person.hair_style == "bun":
        tubes.append(_Tube((0, 1.0, -0.035), (0, 0.985, -0.05), (0.032, 0.032), 1.0, hair, 0.04))
    elif person.hair_style == "afro":
        tubes.append(_Tube((0, 0.97, -0.015), (0, 0.93, -0.02), (0.082, 0.084), 1.0, hair, 0.0))
    if person.hat != "none":
        hat = plain_texture(person.hat_colour)
        tubes.append(_Tube((0, 0.995, 0.005), (0, 0.955, 0.008), (0.045, 0.06, 0.063), 1.1, hat, 0.09, 2.5))
    if person.hat == "cap":
        brim = plain_texture(mix(person.hat_colour, (0, 0, 0), 0.25))
        tubes.append(_Tube((0, 0.953, 0.05), (0, 0.947, 0.11), (0.045, 0.036), 0.35, brim, 0.08, 2))
    return tubes


def _bag(person: Person, pose: Pose) -> list[_Tube]:
    bag, dark = plain_texture(person.bag_colour), plain_texture(mix(person.bag_colour, (0, 0, 0), 0.4))
    back = -0.085 * person.girth
    if person.bag == "backpack":
        return [
            _Tube((0, 0.8, back - 0.025), (0, 0.6, back - 0.03), (0.075, 0.088, 0.09, 0.085), 0.62, bag, 0.03, 2.5),
            _Tube((0, 0.675, back - 0.06), (0, 0.62, back - 0.06), (0.055, 0.055), 0.4, dark, 0.05, 2),
        ]
    if person.bag == "shoulder bag":
        x = 0.12 * person.girth
        return [
            _Tube((x, person.legs + 0.03, 0.0), (x, person.legs - 0.09, 0.0), (0.055, 0.06, 0.06), 1.2, bag, 0.05, 3)
        ]
    if person.bag == "handbag":
        swing = -0.85 * pose.stride * np.sin(pose.phase)
        x, y, z = -0.16 * person.shoulders, 0.485, float(np.sin(swing)) * 0.3
        return [
            _Tube((x, y, z), (x, y - 0.06, z), (0.012, 0.03), 1.0, dark, 0.0),
            _Tube((x, y - 0.07, z), (x, y - 0.17, z), (0.05, 0.064, 0.066), 1.25, bag, 0.02, 3),
        ]
    return []


def _reach(start: Place, angle: float, length: float, outward: float = 0.0) -> Place:
    """The end of a limb that hangs from `start`, swung forward by `angle` and outward by `outward`."""
    return (
        start[0] + length * float(np.sin(outward)),
        start[1] - length * float(np.cos(angle) * np.cos(outward)),
        start[2] + length * float(np.sin(angle)),
    )
