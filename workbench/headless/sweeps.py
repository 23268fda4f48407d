"""Sweeps: the values of a parameter as the command line has them, and every combination of several."""

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence

from workbench.runs.parameters import Parameter, ParameterError

_VALUE = r'(?:\[[^\]]*\]|"[^"]*"|[^,\["])++'  # possessive: what is not closed is found out in one pass


def read_sweep(name: str, text: str, parameters: Sequence[Parameter]) -> list[str]:
    """The values of `--sweep name=text`: what stands between commas; commas in [brackets] and "quotes" belong to a value.

    Quotes around a whole value are taken off. Several values of a parameter that may itself hold commas, as its comment says
    or its default shows, are written in quotes: nobody can tell `settings=a=1,b=2` as two values from one.

    Args:
        name: of the parameter.
        text: as it stands behind `name=`.
        parameters: those of the notebook; one that it does not have is refused later, with all other mistakes.

    Raises:
        ParameterError: a quote or a bracket that is not closed, or several values that could be one.
    """
    if not re.fullmatch(rf"(?:{_VALUE}|,)*", text):
        raise ParameterError(f"--sweep {name}={text}: a quote or a bracket is not closed.")
    values = [value.strip() for value in re.findall(_VALUE, text)]
    bare = [value.strip('"') if re.fullmatch(r'"[^"]*"', value) else value for value in values]
    holds_commas = any(
        one.name == name and isinstance(one.default, str) and ("commas" in one.comment or "," in one.default)
        for one in parameters
    )
    if holds_commas and len(values) > 1 and any(value == kept for value, kept in zip(values, bare, strict=True)):
        several = shlex.quote(f"{name}=" + ",".join('"' + value.replace('"', "'") + '"' for value in bare))
        raise ParameterError(
            f"--sweep {name}={text} could be one value or {len(values)}, since {name} may hold commas. Write each value in "
            f"quotes: {len(values)} runs are --sweep {several}, one is -p {shlex.quote(f'{name}={text}')}."
        )
    return bare


def expand_sweeps(sweeps: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """Every combination of the values, the last name's changing fastest; one empty combination without sweeps.

    Raises:
        ParameterError: a name without values.
    """
    empty = [name for name, values in sweeps.items() if not values]
    if empty:
        raise ParameterError(f"The sweep over {', '.join(empty)} has no values.")
    return [dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values())]
