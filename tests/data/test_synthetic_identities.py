import io
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.data.card import read_card
from workbench.data.catalog import open_catalog
from workbench.data.readers.listing import LayoutError
from workbench.data.readers.synthetic_identities import read
from workbench.data.synthetic import cameras, identities
from workbench.data.synthetic.cameras import BOX_WIDTH, CAMERAS, Box, Camera, find_box, take_picture
from workbench.data.synthetic.clothing import COLUMNS, head_texture, torso_texture
from workbench.data.synthetic.drawing import luminance
from workbench.data.synthetic.figures import Pose, draw_figure
from workbench.data.synthetic.identities import MIN_CAMERAS, cameras_of, draw_identities, synthetic_folder
from workbench.data.synthetic.people import GROUP_SIZE, Person, design_person

SMALL = {
    "num_train_identities": 3,
    "num_test_identities": 2,
    "train_views": 2,
    "gallery_views": 2,
    "num_distractors": 6,
    "num_junk": 4,
}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def figure(person: Person, pose: Pose, height_px: int = 200) -> tuple[np.ndarray, np.ndarray]:
    image_HWC = np.full((height_px, height_px // 2, 3), 128, np.float32)
    mask_HW = np.zeros(image_HWC.shape[:2], np.float32)
    draw_figure(image_HWC, mask_HW, person, pose, (height_px / 4, height_px * 0.95), height_px * 0.85)
    return image_HWC, mask_HW > 0.5


def picture(person: Person, camera: Camera, seed: int = 0, box: Box = "good") -> np.ndarray:
    passage, moment = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    return np.asarray(Image.open(io.BytesIO(take_picture(person, camera, 64, passage, moment, box))))


@given(st.integers(0, 9), st.integers(0, 600), st.booleans())
def test_a_group_is_dressed_alike_but_not_the_same(seed: int, group: int, even: bool) -> None:
    people = [design_person(seed, 2 * (group * GROUP_SIZE + member) + 1 + even) for member in range(GROUP_SIZE)]
    for shared in ("top", "top_colour", "bottom", "bottom_colour"):
        assert len({getattr(person, shared) for person in people}) == 1
    for own in ("pattern", "bag", "label"):
        assert len({getattr(person, own) for person in people}) == GROUP_SIZE
    for person in people:
        assert abs(luminance(person.trim) - luminance(person.top_colour)) > 45
        assert person == design_person(seed, person.number)


def test_another_seed_gives_other_people() -> None:
    first, second = ([design_person(seed, number) for number in range(1, 41)] for seed in (0, 1))
    assert not set(first) & set(second)


@given(st.integers(0, 9), st.integers(1, 9998))
def test_everybody_passes_enough_cameras(seed: int, number: int) -> None:
    passed = cameras_of(seed, number)
    assert passed == sorted(set(passed))
    assert MIN_CAMERAS <= len(passed) <= len(CAMERAS) == 6
    assert set(passed) <= set(CAMERAS)


@pytest.mark.parametrize(("box", "low", "high"), [("good", 0.5, 1.0), ("junk", 0.2, 0.5), ("distractor", 0.0, 0.2)])
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), tall=st.floats(0.8, 1.0))
def test_boxes_overlap_the_figure_as_their_kind_says(box: Box, low: float, high: float, seed: int, tall: float) -> None:
    left, top, box_high = find_box(tall, box, np.random.default_rng(seed))
    # The true box, from the text of the function: the figure and a margin, centred on it.
    true_high = 1.05 * tall + 0.06
    true = (-true_high * BOX_WIDTH / 2, -0.47 * tall - true_high / 2, true_high * BOX_WIDTH, true_high)
    wide = min(left + box_high * BOX_WIDTH, true[0] + true[2]) - max(left, true[0])
    shared = max(wide, 0) * max(min(top + box_high, true[1] + true[3]) - max(top, true[1]), 0)
    union = box_high**2 * BOX_WIDTH + true[2] * true[3] - shared
    assert low - 1e-9 <= shared / union <= high + 1e-9


@pytest.mark.parametrize("turn", [0.0, 1.2, np.pi, 4.0])
def test_a_figure_stands_on_its_feet_and_is_as_tall_as_asked(turn: float) -> None:
    for number in range(1, 30):
        rows = np.flatnonzero(figure(design_person(0, number), Pose(turn))[1].any(axis=1))
        assert abs(rows.max() - 200 * 0.95) <= 9  # the soles
        assert 0.92 * 170 <= rows.max() - rows.min() <= 1.16 * 170  # hats and hair stand out


def test_the_front_shows_a_face_and_the_back_shows_hair() -> None:
    person = next(
        person
        for number in range(1, 200)
        if (person := design_person(0, number)).hair_style == "short"
        and person.hat == "none"
        and not person.beard
        and luminance(person.skin) > luminance(person.hair) + 100
    )
    head_rows = slice(25, 40)
    lightness = []
    for turn in (0.0, np.pi):
        image_HWC, mask_HW = figure(person, Pose(turn))
        lightness.append(image_HWC[head_rows][mask_HW[head_rows]].mean())
    assert lightness[0] > lightness[1] + 30


def test_a_backpack_hides_the_back_and_leaves_the_front() -> None:
    person = next(person for number in range(1, 50) if (person := design_person(0, number)).bag == "backpack")
    # Light falls from the viewer's side, so that the middle of a surface keeps its colour.
    seen = [figure(person, Pose(turn))[0][64, 50] for turn in (np.pi, 0.0)]
    np.testing.assert_allclose(seen[0], person.bag_colour, atol=12)
    assert np.abs(seen[1] - person.bag_colour).max() > 12


def test_an_identity_is_the_same_under_every_camera() -> None:
    """Without place, light and pose, what a camera sees of a person is one function of the person's surfaces."""
    person, other = design_person(0, 2), design_person(0, 4)
    np.testing.assert_array_equal(torso_texture(person), torso_texture(design_person(0, 2)))
    assert (torso_texture(person) != torso_texture(other)).any()
    front, back = (head_texture(person)[:, column].astype(int) for column in (COLUMNS // 2, 0))
    assert np.abs(front - back).max() > 30

    def garment(camera: Camera, wearer: Person) -> np.ndarray:
        plain = Camera(camera.scene, (1, 1, 1), 1.0, camera.pitch, camera.resolution, 0, 95, 0.0, 0.0)
        views = [picture(wearer, plain, seed)[20:29, 12:20].reshape(-1, 3) for seed in range(12)]
        return np.median(np.concatenate(views), axis=0)

    plainly = [p for number in range(1, 120) if (p := design_person(0, number)).pattern == "plain" and p.bag == "none"]
    light, dark = (
        max(plainly, key=lambda p: luminance(p.top_colour)),
        min(plainly, key=lambda p: luminance(p.top_colour)),
    )
    colours = {p.number: [garment(camera, p) for camera in CAMERAS.values()] for p in (light, dark)}
    within = max(np.ptp(np.stack(seen), axis=0).max() for seen in colours.values())
    between = min(np.abs(first - second).max() for first in colours[light.number] for second in colours[dark.number])
    assert within < between


def test_cameras_differ_in_their_mean_colour_and_by_their_cast() -> None:
    people = [design_person(0, number) for number in range(2, 14, 2)]
    means = {
        number: np.mean([picture(person, camera, person.number).mean((0, 1)) for person in people], axis=0)
        for number, camera in CAMERAS.items()
    }
    for first in means:
        for second in range(1, first):
            assert np.abs(means[first] - means[second]).max() > 4
    # The same place and people through another cast alone: red over blue goes up by the ratio of the factors.
    neutral = Camera(**{**vars(CAMERAS[1]), "cast": (1.0, 1.0, 1.0), "gamma": 1.0})
    warm = Camera(**{**vars(neutral), "cast": (1.1, 1.0, 0.8)})
    plain, tinted = (
        np.mean([picture(person, camera, person.number).mean((0, 1)) for person in people], axis=0)
        for camera in (neutral, warm)
    )
    assert (tinted[0] / tinted[2]) / (plain[0] / plain[2]) == pytest.approx(1.1 / 0.8, rel=0.06)


def test_a_camera_of_low_resolution_resolves_less() -> None:
    person = design_person(0, 6)
    quiet = Camera(**{**vars(CAMERAS[1]), "noise": 0})
    sharpness = []
    for resolution in (1.0, 0.4):
        seen = picture(person, Camera(**{**vars(quiet), "resolution": resolution})).astype(int)
        sharpness.append(np.abs(np.diff(seen, axis=1)).mean())
    assert sharpness[1] < 0.75 * sharpness[0]


def test_things_in_front_hide_at_most_the_stated_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn in front of an all-black person may leave at least the stated part of the black."""
    shown: list[float] = []
    draw = cameras._expose

    def count(image_HWC: np.ndarray, *rest: object) -> bytes:
        shown.append(float((image_HWC == -1000).any(axis=2).sum()))
        return draw(np.maximum(image_HWC, 0), *rest)  # type: ignore[arg-type]

    def flat(image_HWC: np.ndarray, mask_HW: np.ndarray, person: Person, pose: Pose, *place: object) -> None:
        before = np.zeros_like(mask_HW)
        draw_figure(image_HWC.copy(), before, person, pose, *place)  # type: ignore[arg-type]
        image_HWC[before > 0.5] = -1000 if person.number == 2 else 77
        np.maximum(mask_HW, before, out=mask_HW)
        if person.number == 2:
            whole.append(float((before > 0.5).sum()))

    whole: list[float] = []
    monkeypatch.setattr(cameras, "_expose", count)
    monkeypatch.setattr(cameras, "draw_figure", flat)
    others = (design_person(0, 100), design_person(0, 200))
    for seed in range(80):
        passage, moment = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        take_picture(design_person(0, 2), CAMERAS[1 + seed % 6], 48, passage, moment, "good", others)
    hidden = 1 - np.array(shown) / np.array(whole)
    assert hidden.max() <= cameras.MOST_OCCLUDED + 0.05  # soft edges
    assert hidden.max() > 0.1
    assert 0.5 < np.mean(hidden == 0) < 0.95


def test_folders_are_equal_to_the_byte_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for name, workers, seed in (("one", 1, 0), ("four", 4, 0), ("other", 1, 1)):
        draw_identities(tmp_path / name, seed=seed, height_px=48, num_workers=workers, **SMALL)
    one, four, other = (read_files(tmp_path / name) for name in ("one", "four", "other"))
    assert one == four
    assert set(one.values()).isdisjoint(set(other.values()))
    assert len(set(one.values())) == len(one)


def test_more_of_one_thing_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    draw_identities(tmp_path / "few", height_px=48, **SMALL)
    more = {**SMALL, "num_train_identities": 4, "train_views": 3, "num_distractors": 8}
    draw_identities(tmp_path / "more", height_px=48, **more)
    few, larger = read_files(tmp_path / "few"), read_files(tmp_path / "more")
    assert few.items() < larger.items()


def test_names_parse_back_and_hold_what_was_asked_for(tmp_path: Path) -> None:
    draw_identities(tmp_path, seed=3, height_px=48, **SMALL)
    found: dict[str, Counter[tuple[int, int]]] = {}
    for path in tmp_path.rglob("*.jpg"):
        fields = re.fullmatch(r"(-1|\d{4})_c([1-6])s[12]_\d{6}_01\.jpg", path.name)
        assert fields is not None, path.name
        found.setdefault(path.parent.name, Counter())[int(fields[1]), int(fields[2])] += 1
        assert Image.open(io.BytesIO(path.read_bytes())).size == (24, 48)
    passed = {number: cameras_of(3, number) for number in range(1, 6)}
    assert found["bounding_box_train"] == {(number, camera): 2 for number in (1, 3, 5) for camera in passed[number]}
    queries = {(number, camera): 1 for number in (2, 4) for camera in passed[number]}
    assert found["query"] == queries
    gallery = found["bounding_box_test"]
    assert {key: count for key, count in gallery.items() if key[0] > 0} == dict.fromkeys(queries, 2)
    assert sum(count for key, count in gallery.items() if key[0] == 0) == 6
    assert sum(count for key, count in gallery.items() if key[0] == -1) == 4


def test_the_card_states_the_counts_and_every_query_has_a_match_elsewhere(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "take_picture", lambda *_: b"")
    catalog = open_catalog("synthetic_identities")  # the counts are checked here
    assert set(catalog.frame["domain"]) == {"synthetic"}
    gallery, query = catalog.select("gallery").frame, catalog.select("query").frame
    strays = gallery["label"].value_counts()
    options = read_card("synthetic_identities").options
    assert (strays["0"], strays["-1"]) == (options["num_distractors"], options["num_junk"])
    assert 0.1 < strays["0"] / len(gallery) < 0.2
    pairs = query.merge(gallery, on="label", suffixes=("", "_found"))
    elsewhere = pairs[pairs["camera"] != pairs["camera_found"]]
    assert set(elsewhere["path"]) == set(query["path"])
    assert not set(catalog.select("train").labels) & set(query["label"])
    assert list(catalog.frame["camera"].drop_duplicates().sort_values()) == [1, 2, 3, 4, 5, 6]


def test_cache_is_used_again_and_named_by_the_options(outputs: Path) -> None:
    folder = synthetic_folder({**SMALL, "height_px": 48})
    (folder / "mark").touch()
    assert synthetic_folder({"height_px": 48, **SMALL, "seed": 0}) == folder
    assert (folder / "mark").exists()
    other = synthetic_folder({**SMALL, "height_px": 48, "seed": 1})
    assert other != folder
    assert other.parent == folder.parent == outputs / "cache" / "synthetic"


def test_a_killed_drawing_leaves_nothing_half_made(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.fork()
    if pid == 0:  # the child dies without any clean-up in the midst of its drawing, as with kill -9
        drawn = 0

        def draw_then_die(*_: object) -> bytes:
            nonlocal drawn
            drawn += 1
            if drawn > 7:
                os._exit(9)
            return b"half"

        monkeypatch.setattr(identities, "take_picture", draw_then_die)
        synthetic_folder({**SMALL, "height_px": 48})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left_behind = list((outputs / "cache" / "synthetic").iterdir())
    assert [path.name[0] for path in left_behind] == ["."]
    assert list(left_behind[0].rglob("*.jpg"))
    folder = synthetic_folder({**SMALL, "height_px": 48})
    draw_identities(outputs / "direct", height_px=48, **SMALL)
    assert read_files(folder) == read_files(outputs / "direct")


@pytest.mark.parametrize("folder", ["query", "bounding_box_test"])
def test_a_damaged_cache_says_what_to_do(tmp_path: Path, folder: str) -> None:
    draw_identities(tmp_path, height_px=32, **{**SMALL, "num_junk": 0, "num_distractors": 0})
    card = read_card("synthetic_identities")
    assert len(read(tmp_path, card)) == len(read_files(tmp_path))
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(LayoutError, match=f"lacks the folders {folder}") as caught:
        read(tmp_path, card)
    assert f"Remove the folder {tmp_path}; it is drawn anew." in str(caught.value)
    (tmp_path / folder).mkdir()
    with pytest.raises(LayoutError, match=r"is empty.* it is drawn anew"):
        read(tmp_path, card)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_test_identity": 6}, "Did you mean 'num_test_identities'"),
        ({"folder": 1}, "folder"),
        ({"num_workers": 2}, "num_workers"),
        ({"seed": "0"}, "seed='0'"),
        ({"height_px": 128.0}, "height_px=128.0"),
        ({"seed": True}, "seed=True"),
        ({"seed": -1}, "seed is -1"),
        ({"height_px": 16}, "height_px is 16"),
        ({"gallery_views": 0}, "gallery_views is 0"),
        ({"num_train_identities": 5000}, "num_train_identities is 5000"),
        ({"num_test_identities": 0}, "num_test_identities is 0"),
        ({"num_junk": -1}, "num_junk is -1"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_drawn(
    outputs: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        synthetic_folder(options)
    assert not list(outputs.rglob("*.jpg"))


def test_a_colour_histogram_does_not_solve_it() -> None:
    people = [design_person(0, number) for number in range(2, 50, 2)]

    def histogram(seen: np.ndarray) -> np.ndarray:
        bins = (seen.astype(int) // 32) @ np.array([64, 8, 1])
        return np.sqrt(np.bincount(bins.ravel(), minlength=512) / bins.size)

    gallery = np.stack([histogram(picture(person, CAMERAS[3], person.number)) for person in people])
    hits = [
        np.argmax(gallery @ histogram(picture(person, CAMERAS[camera], 1000 * camera + person.number))) == place
        for place, person in enumerate(people)
        for camera in (1, 2, 4, 5, 6)
    ]
    assert np.mean(hits) < 0.4
