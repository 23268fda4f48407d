"""The types that a parameter may have: read from an annotation, and values brought into them."""

import ast
import math
import re
from dataclasses import dataclass

_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
ALLOWED = "int, float, str, bool, list[int], list[float], list[str], Literal[...], each also with `| None`"


@dataclass(frozen=True)
class LiteralType:
    """What an annotation allows: a `base` (int, float, str, bool; None with `choices`), a list of it, and None or not."""

    base: str | None
    is_list: bool = False
    optional: bool = False
    choices: tuple[object, ...] | None = None


def read_annotation(text: str) -> LiteralType:
    """The type that the annotation `text` (without quotes around it) allows; nothing is evaluated.

    Raises:
        ValueError: a type that a parameter may not have; lists those it may have.
    """
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"the type `{text}` cannot be read; allowed are {ALLOWED}.") from error
    optional = False
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [
            side for side in (node.left, node.right) if not (isinstance(side, ast.Constant) and side.value is None)
        ]
        optional, node = len(sides) == 1, sides[0]
        if not optional:
            raise ValueError(f"the type `{text}` is not allowed; allowed are {ALLOWED}.")
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Optional", "typing.Optional"):
        optional, node = True, node.slice
    if isinstance(node, ast.Name) and node.id in _TYPES:
        return LiteralType(node.id, optional=optional)
    if isinstance(node, ast.Subscript):
        outer, inner = ast.unparse(node.value), node.slice
        if outer == "list" and isinstance(inner, ast.Name) and inner.id in ("int", "float", "str"):
            return LiteralType(inner.id, is_list=True, optional=optional)
        if outer in ("Literal", "typing.Literal"):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            try:
                choices = tuple(ast.literal_eval(item) for item in items)
            except (ValueError, TypeError):
                choices = ()
            if choices and all(type(choice) in (int, str, bool, type(None)) for choice in choices):
                return LiteralType(None, optional=optional or None in choices, choices=choices)
    raise ValueError(f"the type `{text}` is not allowed; allowed are {ALLOWED}.")


def convert(kind: LiteralType, value: object, *, text_allowed: bool) -> object:
    """The value in the wanted type: a whole number as a `float`, and, where `text_allowed`, text read as that type.

    Raises:
        ValueError: it is not of that type; `nan` and `inf` are no numbers here. The message is what was wanted.
    """
    if value is None or (text_allowed and kind.optional and isinstance(value, str) and value.lower() == "none"):
        if kind.optional:
            return None
        raise ValueError("a value")
    if kind.choices is not None:
        for choice in kind.choices:
            if (type(choice) is type(value) and choice == value) or (text_allowed and str(choice) == value):
                return choice
        raise ValueError(f"one of {', '.join(map(repr, kind.choices))}")
    assert kind.base is not None
    if not kind.is_list:
        return _convert_item(kind.base, value, text_allowed)
    items = _split_list(value, kind.base) if text_allowed and isinstance(value, str) else value
    if not isinstance(items, list):
        raise ValueError(f"list[{kind.base}]")
    return [_convert_item(kind.base, item, text_allowed) for item in items]


def _convert_item(base: str, value: object, text_allowed: bool) -> object:
    if text_allowed and isinstance(value, str):
        if base != "str":
            value = _read_text(base, value.strip())
        elif re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
            raise ValueError("one text, not a list")
    if base == "float" and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(base) from error
    if type(value) is not _TYPES[base] or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(base)
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{base} in UTF-8")  # bytes of a command line that are not UTF-8 arrive as lone surrogates
    return value


def _read_text(base: str, text: str) -> object:
    if base == "bool":
        return {"true": True, "false": False}.get(text.lower())
    try:
        return int(text) if base == "int" else float(text)
    except ValueError as error:
        raise ValueError(base) from error


def _split_list(text: str, base: str) -> object:
    """A list from `[1, 2]` or `1,2`; the text itself when it is neither."""
    if text.strip().startswith("["):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            return [item.strip() for item in text.strip()[1:-1].split(",")] if base == "str" else text
    return [item.strip() for item in text.split(",")] if text.strip() else []
