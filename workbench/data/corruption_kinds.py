"""The ways in which pictures get worse, each with the unit, the words and the severities that are measured."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kind:
    """One way in which pictures get worse.

    Attributes:
        title: what is varied.
        unit: of a severity, as an axis is labelled.
        phrase: how a sentence says a severity; `{}` is the number.
        brief: the same where the kind is known.
        clean: the severity that changes nothing; infinite where no number does (any size, never saved again).
        limits: the smallest and the largest severity that have a meaning.
        severities: all that are measured, mild to severe.
        few: some of them, for a quick look.
        of_longer_side: the severity is a percentage of the picture's longer side.
    """

    title: str
    unit: str
    phrase: str
    brief: str
    clean: float
    limits: tuple[float, float]
    severities: tuple[float, ...]
    few: tuple[float, ...]
    of_longer_side: bool = False

    @property
    def descends(self) -> bool:
        """Whether a smaller number is worse."""
        return self.severities[0] > self.severities[-1]

    def say(self, severity: float, input_px: int | None = None) -> str:
        """The severity in words, such as "15 % visible"; with `input_px` also in px at a trunk's input of that length."""
        text = self.phrase.format(f"{severity:g}")
        return (
            f"{text} ({severity / 100 * input_px:.2g} px of {input_px})" if self.of_longer_side and input_px else text
        )

    def say_briefly(self, severity: float, input_px: int | None = None) -> str:
        """The same in few words, where the kind is known already."""
        text = self.brief.format(f"{severity:g}")
        return f"{text} ({severity / 100 * input_px:.2g} px)" if self.of_longer_side and input_px else text


KINDS: dict[str, Kind] = {
    "size": Kind(
        title="Object size",
        unit="longer side (px)",
        phrase="{} px on the longer side",
        brief="{} px",
        clean=np.inf,
        limits=(1, np.inf),
        severities=(96, 64, 48, 32, 24, 16, 10, 6),
        few=(48, 24, 10),
    ),
    "visible": Kind(
        title="Partly hidden",
        unit="visible (%)",
        phrase="{} % visible",
        brief="{} % visible",
        clean=100,
        limits=(0, 100),
        severities=(90, 80, 70, 60, 50, 40, 30, 20),
        few=(80, 60, 40),
    ),
    "monochrome": Kind(
        title="Monochrome",
        unit="colour removed (%)",
        phrase="{} % of the colour removed",
        brief="{} % removed",
        clean=0,
        limits=(0, 100),
        severities=(25, 50, 75, 90, 100),
        few=(50, 90, 100),
    ),
    "blur": Kind(
        title="Out of focus",
        unit="blur, sigma (% of the longer side)",
        phrase="a blur with a sigma of {} % of the longer side",
        brief="{} %",
        clean=0,
        limits=(0, 100),
        severities=(0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4),
        few=(0.5, 1, 2),
        of_longer_side=True,
    ),
    "motion": Kind(
        title="Motion",
        unit="motion (% of the longer side)",
        phrase="a motion by {} % of the longer side",
        brief="{} %",
        clean=0,
        limits=(0, 100),
        severities=(1, 2, 3, 4, 6, 8, 12, 16),
        few=(2, 4, 8),
        of_longer_side=True,
    ),
    "fisheye": Kind(
        title="Warp: fish-eye lens",
        unit="barrel distortion at the corner (%)",
        phrase="a barrel distortion of {} % at the corner",
        brief="{} %",
        clean=0,
        limits=(0, 90),
        severities=(5, 10, 20, 30, 40, 50),
        few=(10, 20, 40),
    ),
    "perspective": Kind(
        title="Warp: perspective",
        unit="far side shorter by (%)",
        phrase="a far side that is {} % shorter",
        brief="{} %",
        clean=0,
        limits=(0, 95),
        severities=(5, 10, 20, 30, 40, 50, 60),
        few=(10, 20, 40),
    ),
    "jpeg": Kind(
        title="JPEG",
        unit="quality (1 to 95)",
        phrase="quality {}",
        brief="quality {}",
        clean=np.inf,
        limits=(1, 95),
        severities=(90, 70, 50, 30, 20, 10, 5),
        few=(50, 20, 5),
    ),
    "rotation": Kind(
        title="Rotation",
        unit="rotation (degrees)",
        phrase="a rotation by {}°",
        brief="{}°",
        clean=0,
        limits=(0, 180),
        severities=(5, 10, 15, 20, 30, 45, 90, 180),
        few=(10, 30, 90),
    ),
    "low_light": Kind(
        title="Low light",
        unit="underexposure (EV, stops)",
        phrase="an underexposure by {} EV",
        brief="{} EV",
        clean=0,
        limits=(0, 16),
        severities=(1, 2, 3, 4, 5, 6),
        few=(1, 3, 5),
    ),
}
"""By name. Small, hidden, dark, monochrome, warped (by a fish-eye lens) and blurred (by motion or otherwise) are the limits
that the cards of NVIDIA's retail models name in words; perspective, JPEG and rotation are what a shop adds."""
