"""Strict parameters: what the tagged cell may hold, and what is refused before anything runs."""

from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runs.parameters import Parameter, ParameterError, check_parameters, read_parameters

CELL = """# What the run is about.
data: str = "synthetic # products"  # a card; 1..3 joined with +
image_size: int = 128  # 16..1024 px, side of the square the trunk sees
rate: "float | None" = None  # > 0
share: float = 1  # 0.0..1.0, of the images
vote: Literal["nearest", "prototype"] = "nearest"
shots: list[int] = [
    1,
    5,
]  # >= 1, references per class
names: list[str] = []
smoke: bool = False
margin: Optional[float] = -0.5  # <= 0
level: Literal[-1, 0, 2] | None = None
"""


def write_cells(folder: Path, *sources: str, tag: str = "parameters") -> Path:
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}) for source in sources]
    path = folder / "cells.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x: int = 9"), *cells]), path)
    return path


def read_cell(folder: Path, source: str) -> list[Parameter]:
    return read_parameters(write_cells(folder, source))


def test_a_cell_is_read_without_running_it(tmp_path: Path) -> None:
    found = {parameter.name: parameter for parameter in read_cell(tmp_path, CELL)}
    assert {name: parameter.default for name, parameter in found.items()} == {
        "data": "synthetic # products",
        "image_size": 128,
        "rate": None,
        "share": 1.0,
        "vote": "nearest",
        "shots": [1, 5],
        "names": [],
        "smoke": False,
        "margin": -0.5,
        "level": None,
    }
    assert found["data"].comment == "a card; 1..3 joined with +"
    assert found["data"].minimum is None
    assert (found["image_size"].minimum, found["image_size"].maximum) == (16, 1024)
    assert found["rate"] == Parameter("rate", "float | None", None, None, 0, None, "> 0", minimum_excluded=True)
    assert (found["shots"].minimum, found["shots"].maximum) == (1, None)
    assert found["vote"].choices == ("nearest", "prototype")
    assert found["level"].choices == (-1, 0, 2)
    assert (found["margin"].minimum, found["margin"].maximum) == (None, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"image_size": "224"}, 224),
        ({"image_size": " 1_000 "}, 1000),
        ({"rate": "1e-3"}, 0.001),
        ({"rate": "None"}, None),
        ({"rate": 2}, 2.0),
        ({"data": "007"}, "007"),
        ({"vote": "prototype"}, "prototype"),
        ({"shots": "1,2, 3"}, [1, 2, 3]),
        ({"shots": "[4]"}, [4]),
        ({"names": "a,b c"}, ["a", "b c"]),
        ({"names": '["a,b"]'}, ["a,b"]),
        ({"names": "[a, b]"}, ["a", "b"]),
        ({"names": ""}, []),
        ({"smoke": "True"}, True),
        ({"level": "-1"}, -1),
        ({"level": "none"}, None),
    ],
)
def test_text_is_read_as_the_wanted_type(tmp_path: Path, text: dict[str, object], expected: object) -> None:
    values = check_parameters(read_cell(tmp_path, CELL), text)
    (name,) = text
    assert values[name] == expected
    assert type(values[name]) is type(expected)
    assert values["share"] == 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"imag_size": "3"}, "There is no parameter 'imag_size'. Did you mean 'image_size'?"),
        ({"image_size": "big"}, "image_size: wanted int, found 'big' (str)"),
        ({"image_size": "3.0"}, "wanted int"),
        ({"image_size": True}, "wanted int, found True (bool)"),
        ({"image_size": 8}, "image_size: wanted at least 16 and at most 1024, found 8"),
        ({"image_size": None}, "wanted int, found None"),
        ({"rate": "0"}, "rate: wanted above 0, found 0.0"),
        ({"rate": "nan"}, "wanted float | None, found 'nan'"),
        ({"rate": "inf"}, "wanted float | None"),
        ({"rate": 10**400}, "wanted float | None"),
        ({"share": "1.01"}, "at most 1.0"),
        ({"vote": "Nearest"}, "vote: wanted one of 'nearest', 'prototype', found 'Nearest'"),
        ({"shots": "1,0"}, "shots: wanted at least 1, found 0"),
        ({"shots": "1,,2"}, "wanted list[int]"),
        ({"shots": "[1"}, "wanted list[int]"),
        ({"shots": "{1}"}, "wanted list[int]"),
        ({"smoke": "yes"}, "smoke: wanted bool"),
        ({"smoke": 1}, "smoke: wanted bool"),
        ({"data": 7}, "data: wanted str, found 7 (int)"),
        ({"data": "[a, b]"}, "data: wanted str, found '[a, b]'"),
        ({"data": ' ["a"] '}, "data: wanted str"),
        ({"data": "a\udcff"}, "data: wanted str, found 'a\\udcff'"),
        ({"names": "[a, [b]]"}, "names: wanted list[str]"),
        ({"level": True}, "level: wanted one of -1, 0, 2"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError) as error:
        check_parameters(read_cell(tmp_path, CELL), wrong)
    assert message in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as error:
        check_parameters(read_cell(tmp_path, CELL), {"image_size": "x", "nothing": "1", "vote": "best"})
    assert len(str(error.value).splitlines()) == 3


def test_values_of_python_are_not_read_as_text(tmp_path: Path) -> None:
    parameters = read_cell(tmp_path, CELL)
    assert check_parameters(parameters, {"image_size": 32}, text_allowed=False)["image_size"] == 32
    for wrong in ({"image_size": "32"}, {"rate": "none"}, {"shots": "1,2"}, {"level": "0"}):
        with pytest.raises(ParameterError, match="wanted"):
            check_parameters(parameters, wrong, text_allowed=False)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a = 1; b = 2", "wanted `name: type = literal`"),
        ("a: int = 1; b: int = 2", "wanted one name a line"),
        ("import os", "the cell holds nothing else"),
        ("a: int = 1\nb: int = a + 1", "line 2, `b: int = a + 1`: wanted `name: type = literal`, found the expression"),
        ("a: int", "wanted `name: type = literal`"),
        ("a: dict = {}", "the type `dict` is not allowed"),
        ("a: int | str = 1", "is not allowed"),
        ("a: list = []", "is not allowed"),
        ("a: 'int |' = 1", "cannot be read"),
        ("a: Literal[b] = 1", "is not allowed"),
        ("a: int = 'text'", "a: wanted int, found 'text'"),
        ("a: int = None", "wanted int, found None"),
        ("a: int = 5  # 1..3", "at most 3"),
        ("a: int = 1  # 3..1", "the range `3..1` is empty"),
        ("a: int = 1  # 1...3", "is empty"),
        ("a: int = 1  # 1..100_000", "cannot be read"),
        ("a: int = 1  # >= one", "cannot be read"),
        ("a: str = 'x'  # 1..3 words", "its type is not a number"),
        ("a: int = 1\na: int = 2", "'a' is there twice"),
        ("%matplotlib inline", "not Python that could be read"),
        ("a: int = (1", "not Python that could be read"),
        ("self.a: int = 1", "wanted `name: type = literal`"),
    ],
)
def test_a_cell_with_anything_else_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        read_cell(tmp_path, source)
    assert message in str(error.value)
    assert "cells.ipynb" in str(error.value)


def test_exactly_one_cell_is_tagged(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="has 2 cells tagged `parameters`"):
        read_parameters(write_cells(tmp_path, "a: int = 1", "b: int = 1"))
    with pytest.raises(ParameterError, match="has 0 cells"):
        read_parameters(write_cells(tmp_path, "a: int = 1", tag="injected-parameters"))
    (tmp_path / "broken.ipynb").write_text("no notebook")
    with pytest.raises(ParameterError, match="is not a notebook"):
        read_parameters(tmp_path / "broken.ipynb")
    with pytest.raises(FileNotFoundError):
        read_parameters(tmp_path / "absent.ipynb")


@pytest.mark.parametrize(
    ("comment", "accepted", "refused"),
    [
        ("1..5.", [1, 5], [0, 6]),
        ("1..5px", [1, 5], [0, 6]),
        ("-3 .. -1 steps", [-3, -1], [-4, 0]),
        ("> 0", [1], [0]),
        (">= 0, none is fine", [0], [-1]),
        ("< 4", [3], [4]),
        ("<=4", [4], [5]),
        ("224 px; see 1..5", [-9, 900], []),
    ],
)
def test_the_range_is_what_the_comment_begins_with(
    tmp_path: Path, comment: str, accepted: list[int], refused: list[int]
) -> None:
    parameters = read_cell(tmp_path, f"a: int = {accepted[0]}  # {comment}")
    assert [check_parameters(parameters, {"a": value})["a"] for value in accepted] == accepted
    for value in refused:
        with pytest.raises(ParameterError, match="wanted"):
            check_parameters(parameters, {"a": value})


LITERALS = {
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": st.text(st.characters(exclude_categories=["Cs"])),
    "bool": st.booleans(),
    "int | None": st.none() | st.integers(),
    "list[int]": st.lists(st.integers(), max_size=4),
    "list[float]": st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    "list[str]": st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
}


@settings(max_examples=150)
@given(st.sampled_from(sorted(LITERALS)).flatmap(lambda name: st.tuples(st.just(name), LITERALS[name])))
def test_any_literal_is_its_own_default_and_comes_back_from_its_text(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, object]
) -> None:
    annotation, value = pair
    source = f"a: {annotation} = {value!r}  # as it was"
    (parameter,) = read_cell(tmp_path_factory.mktemp("literal"), source)
    assert (parameter.default, parameter.comment) == (value, "as it was")
    text = value if annotation == "str" else repr(value)
    assert check_parameters([parameter], {"a": text}) == {"a": value}
