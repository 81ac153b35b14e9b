"""Formulas over columns, such as "a * 2 + log10(b) > 1 ? a : b", and normalizers.

Numbers are float64 and NaN is missing. A result is missing if an operand is missing; this holds for comparisons, && and ||
too. Only c ? a : b ignores the branch that c does not choose. A result that is not finite is missing. Row i of a result
depends only on row i of the columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

import numpy as np
from pydantic import AfterValidator

from dssm_assets.core.features.column_values import Numbers, parse_number
from dssm_assets.core.features.formula.functions import Function, Vectors
from dssm_assets.core.features.formula.parser import Step, check_variable_name, parse_steps

Column = Numbers | Vectors


@dataclass(frozen=True)
class Formula:
    """A parsed formula.

    Attributes:
        steps: the steps that compute it, in order (`parser.Step`).
        vectors: names of the variables with a vector per row.
    """

    steps: tuple[Step, ...]
    vectors: frozenset[str]

    def evaluate(self, columns: Mapping[str, Column], row_count: int) -> Numbers:
        """Returns the result for each row as a new float64 column [R]; NaN is missing.

        Args:
            columns: variable -> float64 numbers, finite or NaN; `Vectors` for a variable in `vectors`.
            row_count: R; a formula without variables has no column to tell it.
        """
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self.steps:
                match step:
                    case float():
                        stack.append(np.full(row_count, step))
                    case str():
                        stack.append(columns[step])
                    case Function(arity=arity):
                        operands = stack[-arity:]
                        del stack[-arity:]
                        stack.append(step.compute(*operands))
                    case function, names:
                        stack.append(function.compute(*(columns[name] for name in names)))
        result: Numbers = stack.pop().copy()
        return result


@lru_cache(maxsize=1024)
def parse_formula(text: str, variables: tuple[str, ...]) -> Formula:
    """Parses a text into a formula. Parsed formulas are cached.

    Args:
        text: see `parser.py`.
        variables: names of the variables; the text must use all.

    Raises:
        ValueError: the text is not a formula (the message has the position, the expected and the actual token), or does not
            use all variables.
    """
    for name in variables:
        check_variable_name(name)
    steps = parse_steps(text, variables)
    vectors = frozenset(name for step in steps if isinstance(step, tuple) for name in step[1])
    unused = [name for name in variables if name not in steps and name not in vectors]
    if unused:
        raise ValueError(f"formula {text!r} does not use the variables {', '.join(unused)}; remove them or use them")
    return Formula(steps, vectors)


Normalizer = Callable[[Numbers], Numbers]

_PARAMETERS: Final[Mapping[str, Mapping[str, float | None]]] = {
    "log10": {"threshold": 1e-10, "default": -10.0},
    "zscore": {"mean": None, "standard_deviation": None},
    "minmax": {"min": None, "max": None},
}
"""Parameters of each method except expression, with their defaults. None: the parameter is required."""

# A formula may contain commas and =, so it is the rest of the text.
_EXPRESSION: Final = re.compile(r"\s*method\s*=\s*expression\s*,\s*expr\s*=(.*)", re.DOTALL)


def parse_normalizer(text: str) -> Normalizer:
    """Parses a text `method=...,name=number,...` into a function of numbers. The function keeps NaN.

    - log10: log10(x) where x > threshold (default 1e-10), else `default` (default -10).
    - zscore: (x - mean) / standard_deviation.
    - minmax: (x - min) / (max - min).
    - expression: a formula of the variable x, from `expr=` to the end of the text: "method=expression,expr=min(x,3)".

    Raises:
        ValueError: the method or a parameter is unknown, a parameter is missing or divides by zero, or the formula is
            malformed.
    """
    if match := _EXPRESSION.fullmatch(text):
        formula = parse_formula(match[1], ("x",))
        if formula.vectors:
            raise ValueError(f"x is one number in a normalizer, but {match[1]!r} uses it as a vector")
        # The formula 1 ? 2 : x has a result even where x is missing; a normalizer must keep x missing.
        return lambda x: np.where(np.isnan(x), np.nan, formula.evaluate({"x": x}, len(x)))
    pairs = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    if len(given) != len(pairs):
        raise ValueError("a normalizer repeats a parameter")
    method = given.pop("method", "")
    if method == "expression":
        raise ValueError("the normalizer expression is written method=expression,expr=... with a formula of x at the end")
    if method not in _PARAMETERS:
        methods = ", ".join((*_PARAMETERS, "expression"))
        raise ValueError(f"unknown normalizer method {method!r}; a method is one of {methods}")
    numbers = _read_parameters(method, given)
    if method == "log10":
        threshold, low = numbers["threshold"], numbers["default"]
        if threshold < 0:
            raise ValueError("the threshold of normalizer log10 must not be negative")
        least = threshold or np.finfo(float).tiny
        return lambda x: np.where(np.isnan(x) | (x > threshold), np.log10(np.maximum(x, least)), low)
    if method == "zscore":
        shift, scale = numbers["mean"], numbers["standard_deviation"]
    else:
        shift, scale = numbers["min"], numbers["max"] - numbers["min"]
    if scale <= 0:
        raise ValueError(f"normalizer {method} divides by {scale}, which must be above zero")
    return lambda x: (x - shift) / scale


def _read_parameters(method: str, given: Mapping[str, str]) -> dict[str, float]:
    declared = _PARAMETERS[method]
    unknown = sorted(set(given) - set(declared))
    missing = sorted(name for name, default in declared.items() if default is None and name not in given)
    if unknown or missing:
        raise ValueError(
            f"normalizer {method} has the parameters {', '.join(declared)}; unknown: {unknown}, missing: {missing}"
        )
    numbers = {name: default for name, default in declared.items() if default is not None}
    for name, value in given.items():
        number = parse_number(value)
        if number is None:
            raise ValueError(f"parameter {name} of normalizer {method} is no finite number: {value!r}")
        numbers[name] = number
    return numbers


def normalize(text: str | None, numbers: Numbers) -> Numbers:
    """Applies the normalizer of a text to numbers. NaN stays NaN. Without a text (None) the numbers stay."""
    return numbers if text is None else parse_normalizer(text)(numbers)


def _check_normalizer(text: str) -> str:
    parse_normalizer(text)
    return text


NormalizerText = Annotated[str, AfterValidator(_check_normalizer)]
"""A text that `parse_normalizer` accepts, stored as written."""
