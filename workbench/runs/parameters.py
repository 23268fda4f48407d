"""A notebook's parameters: read from its tagged cell without running it, and checked before anything runs.

The cell holds one annotated literal a line; the comment behind it says the unit and may begin with a range:

    image_size: int = 128  # 16..1024 px, side of the square that the trunk sees
    vote: Literal["nearest", "prototype"] = "nearest"  # how the references of a class are put together
    limit: int | None = None  # >= 1, queries per class; None takes all
"""

import ast
import difflib
import io
import json
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.runs.literal_types import LiteralType, convert, read_annotation

_NUMBER = r"[-+]?(?:\d+\.\d+|\d+|\.\d+)(?:[eE][-+]?\d+)?"
_BETWEEN = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})(?![\d_]|\.\d)")
_BOUND = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})(?![\d_]|\.\d)")
_LIKE_A_RANGE = re.compile(r"[-+\w.]*\d[\w.]*\s*\.\.|[<>]")


class ParameterError(ValueError):
    """Parameters that cannot be used; the message holds every mistake, one a line."""


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell.

    Attributes:
        name: the variable's name.
        annotation: its type as written, quotes removed.
        default: the literal's value.
        choices: the allowed values of a `Literal[...]`, else None.
        minimum: the least value (of each item of a list) by the comment's range, None without one.
        maximum: the greatest value, None without one.
        comment: the comment behind the line, without `#`.
        minimum_excluded: whether the range was written as `> minimum`.
        maximum_excluded: whether the range was written as `< maximum`.
    """

    name: str
    annotation: str
    default: object
    choices: tuple[object, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    comment: str = ""
    minimum_excluded: bool = False
    maximum_excluded: bool = False


def read_parameters(notebook: Path) -> list[Parameter]:
    """The parameters of `notebook` in the order of its cell tagged `parameters`; no cell is executed.

    Raises:
        FileNotFoundError: there is no such notebook.
        ParameterError: not a notebook, not exactly one tagged cell, a line that is not an annotated literal, a type that
            is not allowed, or a default that is outside its own type, choices or range.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(f"{notebook} is not a notebook of format 4; save it again from JupyterLab.") from error
    if len(sources) != 1:
        raise ParameterError(
            f"{notebook} has {len(sources)} cells tagged `parameters`, wanted exactly one; in JupyterLab the tags of a cell "
            "are under the cogwheel at the top right."
        )
    try:
        return _parse_cell(sources[0])
    except ParameterError as error:
        raise ParameterError(f"The parameters cell of {notebook}:\n{error}") from error


def check_parameters(
    parameters: list[Parameter], given: Mapping[str, object], *, text_allowed: bool = True
) -> dict[str, object]:
    """Every parameter's value by name: the given one, else the default. Text is read as the wanted type.

    `"3"` becomes 3 for an `int`, `"none"` becomes None where None is allowed, `"1,2"` or `"[1, 2]"` a list. For `str` text
    stays as it is. A whole number is taken for a `float`, never a `bool` for a number.

    Args:
        parameters: those of the notebook.
        given: values by name.
        text_allowed: False for values that already are Python's, where `"3"` is not an `int`.

    Raises:
        ParameterError: with all mistakes at once: unknown names (and the nearest known one), wrong types, values
            outside the choices or the range.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values = {parameter.name: parameter.default for parameter in parameters}
    mistakes = []
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            mistakes.append(f"There is no parameter {name!r}.{hint} There are: {', '.join(known) or 'none'}.")
            continue
        try:
            values[name] = _check_value(known[name], value, text_allowed=text_allowed)
        except ParameterError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    return values


def _parse_cell(source: str) -> list[Parameter]:
    try:
        statements = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(f"it is not Python that could be read ({error}).") from error
    parameters: dict[str, Parameter] = {}
    mistakes = []
    last_line = 0
    lines = source.split("\n")
    for statement in statements:
        line = lines[statement.lineno - 1].strip()
        try:
            if statement.lineno <= last_line:
                raise ParameterError("wanted one name a line.")
            last_line = statement.end_lineno or statement.lineno
            parameter = _parse_statement(statement, comments.get(last_line, ""))
            if parameter.name in parameters:
                raise ParameterError(f"{parameter.name!r} is there twice.")
            parameters[parameter.name] = parameter
        except ValueError as error:
            mistakes.append(f"line {statement.lineno}, `{line}`: {error}")
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    return list(parameters.values())


def _parse_statement(statement: ast.stmt, comment: str) -> Parameter:
    wanted = "wanted `name: type = literal`"
    if (
        not isinstance(statement, ast.AnnAssign)
        or not isinstance(statement.target, ast.Name)
        or statement.value is None
    ):
        raise ParameterError(f"{wanted}; the cell holds nothing else, what is derived goes into a later cell.")
    annotation = statement.annotation
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        text = annotation.value.strip()
    else:
        text = ast.unparse(annotation)
    kind = read_annotation(text)
    try:
        default = ast.literal_eval(statement.value)
    except (ValueError, TypeError, SyntaxError) as error:
        raise ParameterError(f"{wanted}, found the expression `{ast.unparse(statement.value)}`.") from error
    low, high, low_excluded, high_excluded = _parse_range(comment, kind)
    parameter = Parameter(
        statement.target.id, text, None, kind.choices, low, high, comment, low_excluded, high_excluded
    )
    return Parameter(**{**vars(parameter), "default": _check_value(parameter, default, text_allowed=False)})


def _parse_range(comment: str, kind: LiteralType) -> tuple[float | None, float | None, bool, bool]:
    low: float | None = None
    high: float | None = None
    excluded = [False, False]
    if between := _BETWEEN.match(comment):
        low, high = _to_number(between[1]), _to_number(between[2])
        if low > high:
            raise ParameterError(f"the range `{between[0]}` is empty.")
    elif bound := _BOUND.match(comment):
        if bound[1][0] == ">":
            low, excluded[0] = _to_number(bound[2]), bound[1] == ">"
        else:
            high, excluded[1] = _to_number(bound[2]), bound[1] == "<"
    elif _LIKE_A_RANGE.match(comment):
        raise ParameterError(
            f"the range in `{comment}` cannot be read; wanted `1..100`, `>= 1`, `> 0`, `<= 1` or `< 1`."
        )
    if (low is not None or high is not None) and kind.base not in ("int", "float"):
        raise ParameterError(f"its comment begins with a range, `{comment}`, but its type is not a number.")
    return low, high, excluded[0], excluded[1]


def _to_number(text: str) -> float:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def _check_value(parameter: Parameter, value: object, *, text_allowed: bool) -> object:
    kind = read_annotation(parameter.annotation)
    try:
        result = convert(kind, value, text_allowed=text_allowed)
    except ValueError as error:
        wanted = error if kind.choices else parameter.annotation
        raise ParameterError(f"{parameter.name}: wanted {wanted}, found {value!r} ({type(value).__name__}).") from error
    for item in result if isinstance(result, list) else [] if result is None else [result]:
        _check_range(parameter, item)
    return result


def _check_range(parameter: Parameter, value: object) -> None:
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return
    assert isinstance(value, int | float)
    too_low = low is not None and (value <= low if parameter.minimum_excluded else value < low)
    too_high = high is not None and (value >= high if parameter.maximum_excluded else value > high)
    if too_low or too_high:
        bounds = []
        if low is not None:
            bounds.append(f"{'above' if parameter.minimum_excluded else 'at least'} {low}")
        if high is not None:
            bounds.append(f"{'below' if parameter.maximum_excluded else 'at most'} {high}")
        raise ParameterError(f"{parameter.name}: wanted {' and '.join(bounds)}, found {value!r}.")
