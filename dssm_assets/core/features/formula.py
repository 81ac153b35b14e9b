"""Formulas: arithmetic over columns, such as "a * 2 + log10(b) > 1 ? a : b".

Belongs here: a parsed formula and its evaluation. Does not belong here: the grammar (`formula_parser.py`), what
operators and functions compute (`formula_functions.py`, `formula_vectors.py`), how columns become numbers
(`number_values.py`, `number_vectors.py`).

Numbers are float64 and NaN is missing. Whatever takes a missing operand is missing, comparisons, && and || too; only
c ? a : b needs no more than c and the branch it takes. What has no finite answer is missing. Row i of a result depends
on row i of the columns only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from dssm_assets.core.features.formula_parser import Apply, ApplyToVectors, PushNumber, PushVariable, Step, parse_steps
from dssm_assets.core.features.formula_tokens import check_variable_name
from dssm_assets.core.features.formula_vectors import Vectors
from dssm_assets.core.features.number_values import Numbers

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
