"""Formulas: arithmetic over columns, such as "a * 2 + log10(b) > 1 ? a : b".

Belongs here: a parsed formula and its evaluation. Does not belong here: the grammar (`formula_parser.py`), what
operators and functions compute (`formula_functions.py`, `formula_vectors.py`), how columns become numbers
(`number_values.py`, `number_vectors.py`).

Numbers are float64 and NaN is missing. Whatever takes a missing operand is missing, comparisons, && and || too; only
c ? a : b needs no more than c and the branch it takes. What has no finite answer is missing. Row i of a result depends
on row i of the columns only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from pydantic import AfterValidator

from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.formula.functions import Vectors
from dssm_assets.core.features.formula.parser import (
    Apply,
    ApplyToVectors,
    PushNumber,
    PushVariable,
    Step,
    check_variable_name,
    parse_steps,
)

Column = Numbers | Vectors

_BLOCK_ROWS: Final = 1 << 15
"""Rows computed at once: intermediate columns stay in the processor's cache. Changes no result."""


@dataclass(frozen=True)
class Formula:
    """A parsed formula.

    Attributes:
        text: as written.
        steps: what computes it, operands first.
        numbers: names of the variables that are one number per row.
        vectors: names of the variables that are a vector per row.
    """

    text: str
    steps: tuple[Step, ...]
    numbers: frozenset[str]
    vectors: frozenset[str]

    @property
    def variables(self) -> frozenset[str]:
        """The names of all variables, each of which the formula uses."""
        return self.numbers | self.vectors

    def evaluate(self, columns: Mapping[str, Column], row_count: int) -> Numbers:
        """Returns the formula's number for each row, a new column of float64; NaN is missing.

        Args:
            columns: by variable: float64 numbers, finite or NaN, for one of `numbers`, `Vectors` for one of `vectors`.
            row_count: rows of every column, and of the result where there is no variable.
        """
        result = np.empty(row_count)
        with np.errstate(all="ignore"):
            for start in range(0, row_count, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, row_count)
                result[start:stop] = self._block(columns, start, stop)
        return result

    def _block(self, columns: Mapping[str, Column], start: int, stop: int) -> Numbers:
        """Returns the result for the rows start to stop - 1."""
        stack: list[Numbers] = []
        numbers: dict[str, Numbers] = {}
        vectors: dict[str, Vectors] = {}
        for name in self.variables:
            column = columns[name]
            if isinstance(column, Vectors):
                vectors[name] = column.rows(start, stop)
            else:
                numbers[name] = column[start:stop]
        for step in self.steps:
            match step:
                case PushNumber(number):
                    stack.append(np.full(stop - start, number))
                case PushVariable(name):
                    stack.append(numbers[name])
                case ApplyToVectors(function, names):
                    stack.append(function.compute(*(vectors[name] for name in names)))
                case Apply(function):
                    operands = stack[-function.arity :]
                    del stack[-function.arity :]
                    stack.append(function.compute(*operands))
        return stack.pop()


@lru_cache(maxsize=1024)
def parse_formula(text: str, variables: tuple[str, ...]) -> Formula:
    """Returns the formula that a text describes; what was parsed before comes from memory.

    Args:
        text: see `formula_parser.py`.
        variables: the names that the text may use, and must.

    Raises:
        ValueError: naming the position, what was expected and what stands there, or the variables that are not used.
    """
    for name in variables:
        check_variable_name(name)
    steps = parse_steps(text, variables)
    numbers = frozenset(step.name for step in steps if isinstance(step, PushVariable))
    vectors = frozenset(name for step in steps if isinstance(step, ApplyToVectors) for name in step.names)
    unused = [name for name in variables if name not in numbers | vectors]
    if unused:
        raise ValueError(f"formula {text!r} does not use the variables {', '.join(unused)}; remove them or use them")
    return Formula(text, steps, numbers, vectors)


Normalizer = Callable[[Numbers], Numbers]

_DEFAULTS: Final[Mapping[str, Mapping[str, float | None]]] = {
    "log10": {"threshold": 1e-10, "default": -10.0},
    "zscore": {"mean": None, "standard_deviation": None},
    "minmax": {"min": None, "max": None},
}
"""Parameters of each method but expression; None: it must be given."""

_METHODS: Final = (*_DEFAULTS, "expression")
# A formula may hold commas and =, so it is the rest of the text.
_EXPRESSION: Final = re.compile(r"\s*method\s*=\s*expression\s*,\s*expr\s*=(.*)", re.DOTALL)


def parse_normalizer(text: str) -> Normalizer:
    """Returns the function that `method=...,name=number,...` describes. It keeps NaN, which is missing.

    log10: log10(x) where x > threshold, else `default`. zscore: (x - mean) / standard_deviation.
    minmax: (x - min) / (max - min). expression: the formula after `expr=`, which reaches to the end of the text, of the
    variable x ("method=expression,expr=min(x,3)"); see `formula_parser.py`.

    Raises:
        ValueError: naming an unknown method or parameter, a missing one, one that divides by zero, or what is wrong
            with the formula.
    """
    if match := _EXPRESSION.fullmatch(text):
        return _of_formula(match[1])
    pairs = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    if len(given) != len(pairs):
        raise ValueError("a normalizer names a parameter twice")
    method = given.pop("method", "")
    if method == "expression":
        raise ValueError("the normalizer expression is written method=expression,expr=..., a formula of x; nothing follows it")
    if method not in _DEFAULTS:
        raise ValueError(f"unknown normalizer method {method!r}; a method is one of {', '.join(_METHODS)}")
    return _build(method, _parameters(method, given))


def _of_formula(text: str) -> Normalizer:
    formula = parse_formula(text, ("x",))
    if formula.vectors:
        raise ValueError(f"x is one number in a normalizer; {text!r} takes it for a vector")
    # 1 ? 2 : x has an answer where x is missing; a normalizer has none.
    return lambda x: np.where(np.isnan(x), np.nan, formula.evaluate({"x": x}, len(x)))


def _parameters(method: str, given: Mapping[str, str]) -> dict[str, float]:
    declared = _DEFAULTS[method]
    unknown = sorted(set(given) - set(declared))
    missing = sorted(name for name, default in declared.items() if default is None and name not in given)
    if unknown or missing:
        raise ValueError(f"normalizer {method} takes {', '.join(declared)}; unknown: {unknown}, missing: {missing}")
    numbers = {name: default for name, default in declared.items() if default is not None}
    for name, value in given.items():
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise ValueError(f"parameter {name} of normalizer {method} is no number: {value!r}") from error
    if not all(math.isfinite(number) for number in numbers.values()):
        raise ValueError(f"the parameters of normalizer {method} must be finite")
    return numbers


def _build(method: str, numbers: Mapping[str, float]) -> Normalizer:
    if method == "log10":
        threshold, low = numbers["threshold"], numbers["default"]
        if threshold < 0:
            raise ValueError("the threshold of normalizer log10 must not be negative")
        return lambda x: np.where(
            np.isnan(x) | (x > threshold), np.log10(np.maximum(x, threshold or np.finfo(float).tiny)), low
        )
    if method == "zscore":
        shift, scale = numbers["mean"], numbers["standard_deviation"]
    else:
        shift, scale = numbers["min"], numbers["max"] - numbers["min"]
    if scale <= 0:
        raise ValueError(f"normalizer {method} divides by {scale}; that must be above zero")
    return lambda x: (x - shift) / scale


def _checked(text: str) -> str:
    parse_normalizer(text)
    return text


NormalizerText = Annotated[str, AfterValidator(_checked)]
"""Text that `parse_normalizer` accepts, kept as written."""
