"""Normalizers of numeric features: log10, zscore, minmax and expression, with the reference's parameters.

Belongs here: their grammar ("method=zscore,mean=0,standard_deviation=10") and their arithmetic. Does not belong
here: formulas (`formula.py`) and defaults, which bypass the normalizer (`number_values.to_float32`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import numpy as np
from pydantic import AfterValidator

from dssm_assets.core.features.formula import parse_formula
from dssm_assets.core.features.number_values import Numbers

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
