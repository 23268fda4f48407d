import pytest

from workbench.headless.sweeps import expand_sweeps, read_sweep
from workbench.runs.parameters import Parameter, ParameterError

PLAIN = Parameter("recipe", "str", "scratch", comment="how it is trained")
LISTED = Parameter("settings", "str", "", comment="any other field, with commas")
SHOWN = Parameter("runtimes", "str", "onnxruntime, openvino", comment="each must pass")
DECLARED = [PLAIN, LISTED, SHOWN]


def test_sweeps_expand_to_every_combination_the_last_name_fastest() -> None:
    assert expand_sweeps({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert expand_sweeps({}) == [{}]
    with pytest.raises(ParameterError, match="The sweep over b has no values"):
        expand_sweeps({"a": [1], "b": []})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("scratch,retailklip", ["scratch", "retailklip"]),
        (" a , b,", ["a", "b"]),
        ("", []),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ('"a,b",c', ["a,b", "c"]),
        ('x="a,b",c', ['x="a,b"', "c"]),  # quotes within a value are the value's
        ('"a, b"', ["a, b"]),
    ],
)
def test_commas_part_values_but_for_those_in_brackets_and_quotes(text: str, values: list[str]) -> None:
    assert read_sweep("recipe", text, DECLARED) == values


def test_values_that_may_hold_commas_are_quoted_or_refused_with_how_to_write_them() -> None:
    with pytest.raises(ParameterError) as refused:
        read_sweep("settings", "depth=10,seed=1", DECLARED)
    told = str(refused.value)
    assert told.startswith("--sweep settings=depth=10,seed=1 could be one value or 2, since settings may hold commas.")
    assert """2 runs are --sweep 'settings="depth=10","seed=1"', one is -p settings=depth=10,seed=1.""" in told
    assert read_sweep("settings", '"depth=10,seed=1","depth=20"', DECLARED) == ["depth=10,seed=1", "depth=20"]
    assert read_sweep("settings", "depth=10", DECLARED) == ["depth=10"]
    with pytest.raises(ParameterError, match="could be one value or 2"):
        read_sweep("settings", '"depth=10",depth=20', DECLARED)
    with pytest.raises(ParameterError, match="could be one value or 2"):
        read_sweep("runtimes", "onnxruntime,openvino", DECLARED)


@pytest.mark.parametrize("text", ['"a,b', "[1,2", 'a,b"', "a" * 5000 + '"'])
def test_what_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="a quote or a bracket is not closed"):
        read_sweep("recipe", text, DECLARED)
