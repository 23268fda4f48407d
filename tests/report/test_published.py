import pandas as pd
import pytest

from workbench.report.published import published_curves, published_results


def _one(table: pd.DataFrame) -> float:
    assert len(table) == 1
    return float(table["value"].iloc[0])


def test_known_figures_of_the_model_cards() -> None:
    accuracy = published_results("recognition", metric="accuracy")
    one_shot = accuracy[accuracy["shots"] == 1]
    assert _one(one_shot[one_shot["trunk"] == "NV-DINOv2"]) == 0.8490
    assert _one(one_shot[one_shot["trunk"] == "FAN-Base-Hybrid"]) == 0.7718
    reid = published_results("reid", metric="mAP")
    assert _one(reid[reid["condition"].str.contains("256")]) == 0.930


def test_types_and_size() -> None:
    table = published_results()
    assert len(table) == 136
    assert table["value"].dtype == "float64"
    assert table["shots"].dtype == table["queries_per_class"].dtype == "Int64"
    assert table["shots"].notna().sum() == 34
    assert (table.loc[table["unit"] == "fraction", "value"] <= 1).all()


def test_filters_combine() -> None:
    table = published_results("recognition", dataset="CAPG-GP", metric="accuracy", system="RetailKLIP (zero shot)")
    assert table["value"].tolist() == [0.8860]


def test_unknown_filter_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'recall'; the table holds recognition, reid, speed"):
        published_results("recall")
    with pytest.raises(ValueError, match="No published curve on Nowhere"):
        published_curves(["Nowhere"])


def test_curves_state_their_conditions() -> None:
    curves = published_curves(["NVIDIA retail KPI (315 classes, proprietary)"])
    assert curves["system"].value_counts().to_dict() == {
        "NVIDIA Retail Object Recognition, NV-DINOv2": 19,
        "NVIDIA Retail Object Recognition v2.0, FAN-Base-Hybrid": 12,
    }
    assert curves["condition"].unique().tolist() == [
        "NVIDIA retail KPI (315 classes, proprietary), synthetic references, real queries, 180 queries per class"
    ]
    assert len(published_curves()) == 34
