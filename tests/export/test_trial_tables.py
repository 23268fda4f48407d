"""Tables of a trial, on records made by hand."""

from pathlib import Path

from workbench.export.trial_tables import exported_facts, facts_table, list_files


def test_facts_are_read_as_they_are_and_long_ones_are_cut() -> None:
    table = facts_table({"builder": "rtx", "batches": [1, 10], "words": "x" * 301}, longest=300)
    assert table["fact"].tolist() == ["builder", "batches", "words"]
    assert table["value"].tolist() == ["rtx", "[1, 10]", "x" * 300 + " …"]


def test_an_int8_export_says_how_it_was_calibrated_and_an_fp32_one_how_it_was_checked() -> None:
    told = dict.fromkeys(
        ("precision", "input", "normalised", "embedding_dim", "image_size", "opset", "weights_sha256", "versions"), 1
    )
    files = {"model.onnx": {"bytes": 3, "sha256": "ab"}}
    exact = exported_facts({**told, "files": files, "checked_against_torch": {"batch_1": {"min_cosine": 1.0}}})
    assert exact["fact"].tolist()[-2:] == ["file model.onnx", "checked against torch"]
    assert exact["value"].tolist()[-2:] == ['{"bytes": 3, "sha256": "ab"}', '{"batch_1": {"min_cosine": 1.0}}']
    int8 = exported_facts({**told, "files": files, "calibration": {"num_images": 8}, "compared_with_fp32": {}})
    assert int8["fact"].tolist()[-2:] == ["calibration", "compared with fp32"]


def test_files_are_listed_by_bundle_with_their_size(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.bin").write_bytes(bytes(2**20))
    (tmp_path / "deep" / "a.txt").write_bytes(bytes(2**19))
    table = list_files({"triton": tmp_path / "deep"})
    assert table.to_numpy().tolist() == [["triton", "a.txt", 0.5], ["triton", "er/b.bin", 1.0]]
