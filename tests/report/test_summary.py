from typing import Any

import pytest
from bs4 import BeautifulSoup

from workbench.report.pictures import summary_box
from workbench.report.summary import Summary, complete_summary, lift_answer

BOX = Summary("How good?", "62 %", "1 shot", (("embedder", "timm:a, trained"), ("chance", "1 %")))


def test_the_last_box_is_lifted_and_leaves_a_link() -> None:
    first = summary_box("first?", "1", "p").data
    last = summary_box("<b>?", "62 %  [60, 64]", "1 shot", {"embedder": "a & b", "chance": "1 %"}).data
    soup = BeautifulSoup(f"<p>before</p>{first}{last}<p>after</p>", "html.parser")
    assert lift_answer(soup) == Summary("<b>?", "62 % [60, 64]", "1 shot", (("embedder", "a & b"), ("chance", "1 %")))
    assert [box.get_text() for box in soup.select(".wb-big")] == ["1"]
    (link,) = soup.select("a")
    assert (link["href"], link.get_text()) == ("#summary", "The answer stands at the top of this report.")
    assert soup.get_text().index("before") < soup.get_text().index("The answer") < soup.get_text().index("after")


def test_a_box_without_details_and_no_box() -> None:
    soup = BeautifulSoup(summary_box("a?", "b", "c").data, "html.parser")
    assert lift_answer(soup) == Summary("a?", "b", "c")
    soup = BeautifulSoup("<section>other</section>", "html.parser")
    assert lift_answer(soup) is None
    assert str(soup) == "<section>other</section>"


def test_what_the_box_lacks_comes_from_the_record() -> None:
    record = {
        "parameters": {"data": "grocery", "embedder": "timm:a", "trunk_weights": "random"},
        "facts": {"catalog": "0123456789abcdef"},
        "device": "cpu",
    }
    done = complete_summary(BOX, record, {}, "3.0 s")
    assert done is not None
    assert done["details"] == [
        ("data", "grocery (catalog 0123456789ab)"),
        ("embedder", "timm:a, trained"),
        ("cost", "3.0 s for the whole run, device cpu"),
        ("chance", "1 %"),
    ]
    assert (done["question"], done["answer"], done["protocol"]) == ("How good?", "62 %", "1 shot")
    record["facts"] = {"catalog": ["0123", "4567"]}
    done = complete_summary(BOX, record, {}, "")
    assert done is not None
    assert done["details"][0] == ("data", "grocery"), "several catalogs are no fingerprint"
    told = Summary("a", "b", "c", (("cost", "9 min"), ("data", "mine")))
    done = complete_summary(told, record, {}, "3.0 s")
    assert done is not None
    assert dict(done["details"])["cost"] == "9 min"
    assert dict(done["details"])["data"] == "mine"


@pytest.mark.parametrize(
    ("record", "model"),
    [
        ({"parameters": {"embedder": "timm:a", "trunk_weights": "random"}}, "timm:a, untrained"),
        ({"parameters": {"embedder": "timm:a", "trunk_weights": "pretrained"}}, "timm:a, trained"),
        ({"parameters": {"embedder": "/a/folder", "trunk_weights": "random"}}, "/a/folder, trained"),
        ({"facts": {"described": {"trunk": "timm:b", "embedding_dim": 96}}}, "timm:b, embeddings of 96 numbers"),
        ({"facts": {"embedding": {"trunk": "timm:c"}}, "parameters": {"embedder": "x"}}, "timm:c"),
        ({"facts": {"described": {"tuned": {"trunk": "timm:d"}}}}, None),
    ],
)
def test_model_is_told_by_what_ran_before_what_was_asked(record: dict[str, Any], model: str | None) -> None:
    done = complete_summary(Summary("a", "b", "c"), record, {}, "")
    assert done is not None
    assert dict(done["details"]).get("model") == model


def test_without_a_box_what_is_known_is_said_and_nothing_is_judged() -> None:
    metrics = {
        "a": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 1, "protocol": "p"},
        "chance/a": {"value": 0.1, "low": 0.1, "high": 0.1, "n": 1, "protocol": "p"},
    }
    done = complete_summary(None, {"parameters": {"data": "grocery"}}, metrics, "")
    assert done is not None
    assert (done["answer"], done["verdicts"], done["details"]) == ("", [], [("data", "grocery")])
    assert complete_summary(None, {}, metrics, "") is None
    done = complete_summary(Summary("q", "a", "p"), {}, metrics, "")
    assert done is not None
    assert [verdict.outcome for verdict in done["verdicts"]] == ["above"]
