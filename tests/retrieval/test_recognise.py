"""Recognising pictures and boxes: the same answers as a plain loop and Gallery.search_labels, and nothing lost."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workbench.data.boxes import Box
from workbench.data.images import load_image
from workbench.data.inputs import Input
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.answers import check_out, csv_text, json_lines, write_answers
from workbench.retrieval.calibration import Calibration, fit_calibration
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_measure import answers_once, describe_gallery, measure_gallery
from workbench.retrieval.leave_out import LeftOut
from workbench.retrieval.recognise import check_fit, choose_acceptance, made_by, recognise

HOSTILE = ["00012345678905", "12345678905", '=1+1,"x"', "<img src=x onerror=alert(1)>", "a\r\nb\u2028c", " NA ", "nan"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven pictures of noise in colours of their own; the last one is broken in the middle."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for row in range(11):
        shape = (40 + row, 60, 3)
        noise = rng.integers(0, 256, shape) * rng.uniform(size=3) + rng.integers(0, 80, 3)
        paths.append(folder / f"{row:02d}.png")
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(paths[-1])
    paths[-1].write_bytes(paths[-1].read_bytes()[:900])
    return paths


def embed_plainly(embedder: Embedder, images: list[Image.Image]) -> np.ndarray:
    rows = []
    for image in images:
        pixels = embedder.preprocessing.apply(image.convert("RGB"))
        with torch.no_grad():
            rows.append(embedder(embedder.preprocessing.normalise(torch.from_numpy(pixels.copy())[None]))[0].numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def gallery(embedder: Embedder, pictures: list[Path]) -> Gallery:
    """Seven references with hostile labels, an eighth of the first label, and a calibration."""
    embedding_ND = embed_plainly(embedder, [load_image(path) for path in pictures[:8]])
    gallery = Gallery.build(embedding_ND, [*HOSTILE, HOSTILE[0]])
    fitted = fit_calibration([0.9, 0.95, 0.97, 0.99, 0.999, 1.0], [0, 0, 1, 0, 1, 1])
    gallery.about |= made_by(embedder) | {"calibration": fitted.to_dict()}
    return gallery


def ask(embedder: Embedder, gallery: Gallery, inputs: list[Input], **options: object) -> pd.DataFrame:
    given = {"threshold": -1.0, "device": "cpu", **options}
    return recognise(embedder, gallery, inputs, **given)  # type: ignore[arg-type]


def whole(path: Path) -> Input:
    return Input(path, str(path))


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_answers_are_those_of_a_plain_loop(
    embedder: Embedder, gallery: Gallery, pictures: list[Path], batch_size: int
) -> None:
    asked = [pictures[place] for place in (9, 2, 10, 8, 0)]
    answers = ask(embedder, gallery, [whole(path) for path in asked], top=3, batch_size=batch_size)
    expected = gallery.search_labels(
        embed_plainly(embedder, [load_image(path) for path in asked if path != asked[2]]), 3
    )
    good = answers.drop(index=2)
    assert answers["path"].tolist() == [str(path) for path in asked]
    for place in range(3):
        assert good[f"label_{place + 1}"].tolist() == expected.label_QK[:, place].tolist()
        np.testing.assert_allclose(good[f"similarity_{place + 1}"], expected.similarity_QK[:, place], atol=1e-5)
    assert good["decision"].tolist() == expected.label_QK[:, 0].tolist()
    fitted = Calibration.from_dict(gallery.about["calibration"])
    # what is shown is the float32's fewest digits: reading them as float32 gives back the similarity that was judged
    np.testing.assert_allclose(
        good["probability"], fitted.probability(good["similarity_1"].to_numpy(np.float32)), rtol=1e-12
    )
    assert good["probability"].between(0, 1).all()
    by_similarity = good.sort_values("similarity_1")["probability"].to_numpy()
    assert (np.diff(by_similarity) >= 0).all()
    broken = answers.loc[2]
    assert broken["error"].startswith("truncated: ")
    assert broken.drop(["path", "error"]).isna().all()
    assert good["error"].isna().all()
    assert list(answers.columns) == [
        *(
            "path",
            "decision",
            "probability",
            "label_1",
            "similarity_1",
            "label_2",
            "similarity_2",
            "label_3",
            "similarity_3",
        ),
        *("note", "error"),
    ]


def test_boxes_are_answered_as_if_each_were_a_picture(
    embedder: Embedder, gallery: Gallery, pictures: list[Path], tmp_path: Path
) -> None:
    shelf = Image.new("RGB", (300, 200), "grey")
    places = {0: (10, 20), 1: (100, 5), 2: (200, 90)}
    for picture, corner in places.items():
        shelf.paste(load_image(pictures[picture]), corner)
    shelf.save(tmp_path / "shelf.png")
    path = tmp_path / "shelf.png"
    sizes = {picture: load_image(pictures[picture]).size for picture in places}
    inputs = [Input(path, "shelf", Box(*places[picture], *sizes[picture])) for picture in places]
    inputs.insert(1, whole(pictures[5]))
    inputs += [
        Input(path, "shelf"),
        Input(path, "shelf", Box(300, 0, 9, 9)),
        Input(path, "shelf", Box(280, 150, 40, 20)),
    ]
    inputs += [Input(path, "", fault="row 9 has no path"), Input(tmp_path / "gone.png", "gone", Box(0, 0, 1, 1))]
    answers = ask(embedder, gallery, inputs, top=1, batch_size=2)
    assert answers["label_1"].tolist()[:4] == [HOSTILE[0], HOSTILE[5], HOSTILE[1], HOSTILE[2]]
    assert answers["similarity_1"].to_numpy()[:4] == pytest.approx([1.0] * 4, abs=1e-5)
    alone = embed_plainly(embedder, [shelf, shelf.crop((280, 150, 300, 170))])
    expected = gallery.search_labels(alone, 1)
    assert answers["label_1"].tolist()[4] == expected.label_QK[0, 0]
    assert answers["label_1"].tolist()[6] == expected.label_QK[1, 0]
    np.testing.assert_allclose(answers["similarity_1"].to_numpy()[[4, 6]], expected.similarity_QK[:, 0], atol=1e-5)
    assert answers["error"].fillna("").tolist() == [
        *[""] * 5,
        "the box lies outside the picture of 300 x 200 px",
        "",
        "row 9 has no path",
        "no such file",
    ]
    assert answers["note"].dropna().to_dict() == {6: "box clipped at the border of the picture of 300 x 200 px"}
    assert answers[["x", "y", "width", "height"]].to_numpy()[6].tolist() == [280, 150, 40, 20]
    assert answers[["x", "y", "width", "height"]].isna().all(axis=1).tolist() == [row in (1, 4, 7) for row in range(9)]


def test_a_box_counts_in_the_upright_picture(
    embedder: Embedder, gallery: Gallery, pictures: list[Path], tmp_path: Path
) -> None:
    upright = Image.new("RGB", (200, 120), "white")
    upright.paste(load_image(pictures[3]), (130, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise to be seen upright
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    size = load_image(pictures[3]).size
    answers = ask(embedder, gallery, [Input(tmp_path / "turned.png", "t", Box(130, 10, *size))], top=1)
    assert answers["label_1"].tolist() == [HOSTILE[3]]
    assert answers["similarity_1"][0] == pytest.approx(1, abs=1e-5)


def test_what_is_not_above_the_threshold_is_unknown(embedder: Embedder, gallery: Gallery, pictures: list[Path]) -> None:
    inputs = [whole(path) for path in pictures[:10]]
    everything = ask(embedder, gallery, inputs)
    nearest = everything["similarity_1"].to_numpy()
    threshold = float(np.sort(nearest)[4])
    answers = ask(embedder, gallery, inputs, threshold=threshold, unknown="?")
    assert (answers["decision"] == "?").sum() == (nearest <= threshold).sum() >= 5
    known = answers["decision"] != "?"
    assert (answers["decision"][known] == answers["label_1"][known]).all()
    assert (nearest[known.to_numpy()] > threshold).all()
    with pytest.raises(ValueError, match="The gallery has the label 'nan', which could not be told from the decision"):
        ask(embedder, gallery, inputs, unknown="nan")


def test_more_labels_than_the_gallery_has_stay_empty_and_no_input_is_no_row(
    embedder: Embedder, gallery: Gallery, pictures: list[Path]
) -> None:
    answers = ask(embedder, gallery, [whole(pictures[0])], top=9)
    assert set(answers.iloc[0][[f"label_{place}" for place in range(1, 8)]]) == set(HOSTILE)
    assert answers[["label_8", "similarity_8", "label_9", "similarity_9"]].isna().all(axis=None)
    assert len(ask(embedder, gallery, [], top=2)) == 0
    assert ask(embedder, gallery, [whole(pictures[10])])["decision"].isna().all()
    with pytest.raises(ValueError, match="top is at least 1"):
        ask(embedder, gallery, [], top=0)


def test_the_embedder_must_be_the_gallerys(embedder: Embedder, gallery: Gallery) -> None:
    assert check_fit(embedder, gallery, "mine", "shop") == []
    other = build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=2)
    with pytest.raises(ValueError, match=r"The embedder mine .* did not make the gallery shop") as refused:
        check_fit(other, gallery, "mine", "shop")
    assert other.fingerprint()[:12] in str(refused.value)
    assert embedder.fingerprint()[:12] in str(refused.value)
    older = Gallery.build(np.eye(96), [str(row) for row in range(96)])
    older.about |= {"embedder": embedder.fingerprint()}
    (note,) = check_fit(embedder, older, "mine", "shop")
    assert "without their colour profiles" in note
    silent = Gallery.build(np.eye(96), [str(row) for row in range(96)])
    (note,) = check_fit(embedder, silent, "mine", "shop")
    assert "does not say which embedder made it; its width, 96, is this embedder's" in note
    with pytest.raises(ValueError, match="has embeddings of width 3, the embedder mine gives 96"):
        check_fit(embedder, Gallery.build(np.eye(3), ["a", "b", "c"]), "mine", "shop")
    with pytest.raises(ValueError, match="shop is empty"):
        check_fit(embedder, Gallery(96), "mine", "shop")


def measured_gallery(num_labels: int, num_references: int) -> Gallery:
    rng = np.random.default_rng(0)
    centre_CD = rng.normal(size=(num_labels, 16))
    rows_ND = np.repeat(centre_CD, num_references, axis=0) + 0.6 * rng.normal(size=(num_labels * num_references, 16))
    gallery = Gallery.build(rows_ND, [f"{row // num_references:04d}" for row in range(len(rows_ND))])
    measure_gallery(gallery)
    return gallery


def test_the_threshold_comes_from_what_was_measured() -> None:
    gallery = measured_gallery(30, 10)
    rows = {row["rate"]: row for row in gallery.about["measured"]["false_accepts"]}
    # two queries of one label surpass all others' when it is out: 0.005 of 300 cannot be told
    assert sorted(rows) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    acceptance, notes = choose_acceptance(gallery)
    assert (acceptance.threshold, notes) == (rows[0.01]["threshold"], [])
    assert f"0.01 false accepts: {rows[0.01]['false_accepts']['value']:.2%} [" in acceptance.words
    assert "300 references, each asked without its own image" in acceptance.words
    acceptance, notes = choose_acceptance(gallery, false_accepts=0.03)
    assert acceptance.threshold == rows[0.02]["threshold"]
    assert notes == ["a rate of 0.03 was not measured; the threshold is that of 0.02"]
    assert choose_acceptance(gallery, threshold=-1)[0].threshold == -1
    with pytest.raises(
        ValueError, match=r"0\.001 cannot be told from 300 queries; the smallest that was measured is 0\.01"
    ):
        choose_acceptance(gallery, false_accepts=0.001)
    for wrong in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            choose_acceptance(gallery, false_accepts=wrong)
    with pytest.raises(ValueError, match="from -1 to 1"):
        choose_acceptance(gallery, threshold=float("nan"))
    with pytest.raises(ValueError, match="not both"):
        choose_acceptance(gallery, threshold=0.5, false_accepts=0.01)
    gallery.add("new", np.eye(16)[:1])
    assert "measured at version 1 of the gallery, which is at version 2" in choose_acceptance(gallery)[1][0]
    with pytest.raises(ValueError, match=r"keeps no measured threshold: measure it .* or give --threshold"):
        choose_acceptance(Gallery.build(np.eye(3), ["a", "b", "c"]))


def test_a_gallery_says_what_is_not_known(tmp_path: Path) -> None:
    one_each = measured_gallery(20, 1)  # the two nearest are each other's: both surpass all that is left without them
    assert one_each.about["calibration"] is None
    assert one_each.about["measured"]["accuracy"] is None
    text = "\n".join(describe_gallery(one_each))
    assert "not known: False accepts of 1 % cannot be told from 20 queries (the smallest rate is 0.1)" in text
    assert "not known: How often answers are right" in text
    acceptance, notes = choose_acceptance(one_each)  # the smallest rate there is, and it is said
    assert acceptance.threshold == one_each.about["measured"]["false_accepts"][0]["threshold"]
    assert notes == ["a rate of 0.01 was not measured; the threshold is that of 0.1"]
    with pytest.raises(ValueError, match="nothing is mistaken for another"):
        choose_acceptance(measured_gallery(1, 5))
    several = measured_gallery(30, 10)
    several.save(tmp_path / "g")
    kept = Gallery.load(tmp_path / "g")
    assert kept.about == several.about
    assert describe_gallery(kept) == describe_gallery(several)


def test_probabilities_know_of_unknown_products() -> None:
    gallery = measured_gallery(30, 10)
    fitted = Calibration.from_dict(gallery.about["calibration"])
    measured = gallery.about["measured"]
    assert fitted.num_answers == measured["num_known"] == 300  # one in five asked as unknown, none asked twice
    assert fitted.num_right == pytest.approx(measured["accuracy"]["value"] * 240, abs=10)
    similarity_N = np.linspace(-1, 1, 201)
    assert (np.diff(fitted.probability(similarity_N)) >= 0).all()
    assert 0 <= fitted.probability(-1.0) < 0.1 < 0.9 < fitted.probability(1.0) <= 1


def test_each_query_is_one_answer_of_the_calibration() -> None:
    # x has no reference, y no other label (and no reference but itself): of 11 that can be asked, x first and one more are unknown
    nan = np.nan
    known = np.array([*np.arange(10) / 10, nan, nan], np.float32)
    unknown = np.array([*-np.arange(10) / 10, -2, nan], np.float32)
    label_Q = np.array([*"aabbccddee", "x", "y"], object)
    left_out = LeftOut(label_Q, known, known > 0.45, unknown, label_Q, unknown)
    similarity_N, right_N, label_N = answers_once(left_out, seed=3)
    as_unknown = np.flatnonzero(similarity_N < 0)
    assert len(similarity_N) == 11
    assert len(as_unknown) == 2
    assert similarity_N.min() == -2
    assert sorted(np.abs(similarity_N)) == pytest.approx([*np.arange(10) / 10, 2])
    assert sorted(label_N) == sorted([*"aabbccddee", "x"])
    assert not right_N[as_unknown].any()
    rest = np.setdiff1d(np.arange(11), as_unknown)
    assert (right_N[rest] == (similarity_N[rest] > 0.45)).all()
    # three of four have no reference: one in five of what is used, not three in four, is unknown
    many = LeftOut(label_Q, np.where(np.arange(12) < 4, known, np.float32(nan)), known > 1, unknown, label_Q, unknown)
    assert (len(answers_once(many)[0]), (answers_once(many)[0] < 0).sum()) == (5, 1)


def hostile_answers() -> pd.DataFrame:
    names = [*HOSTILE, 'say "x"', "café \U0001f34e", "\x85", ""]
    numbers = np.linspace(-1, 1, len(names)).astype(np.float32).astype(str).astype(np.float64)
    numbers[3] = np.nan
    columns = {
        "path": pd.Series(names[::-1], dtype="str"),
        "decision": pd.Series([None, *names[1:]], dtype="str"),
        "similarity_1": numbers,
    }
    return pd.DataFrame(columns)


def test_csv_gives_every_text_and_number_back() -> None:
    answers = hostile_answers()
    lines = list(csv.reader(io.StringIO(csv_text(answers), newline="")))
    assert lines[0] == list(answers.columns)
    for row, line in enumerate(lines[1:]):
        assert line[0] == answers["path"][row]
        assert line[1] == ("" if row == 0 else answers["decision"][row])
        assert line[2] == "" if row == 3 else float(line[2]) == answers["similarity_1"][row]
    read = pd.read_csv(io.StringIO(csv_text(answers).replace("\x85", "y")), dtype=str, keep_default_na=False)
    assert read["decision"][1] == "12345678905"
    assert read["path"].tolist()[-1] == "00012345678905"
    assert csv_text(answers.head(0)) == "path,decision,similarity_1\n"


def test_json_lines_are_one_object_a_line_whatever_is_in_them(tmp_path: Path) -> None:
    answers = hostile_answers()
    write_answers(answers, tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()  # breaks at U+2028 and U+0085, too
    assert len(lines) == len(answers)
    for row, line in enumerate(lines):
        found = json.loads(line)
        assert found["path"] == answers["path"][row]
        assert found["decision"] == (None if row == 0 else answers["decision"][row])
        assert found["similarity_1"] == (None if row == 3 else answers["similarity_1"][row])
    assert "café" in json_lines(answers)


def test_parquet_gives_every_text_and_number_back(tmp_path: Path) -> None:
    answers = hostile_answers()
    write_answers(answers, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), answers)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_where_answers_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.csv, \.jsonl, \.parquet; found 'a\.xlsx'"):
        check_out(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_out(tmp_path / "b.csv")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_out(tmp_path / "file" / "a.csv")
