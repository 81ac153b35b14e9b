"""expr_feature: the result of a formula over several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from dssm_assets.core.config.section import repeated_names
from dssm_assets.core.features.column_values import number_values, number_vectors
from dssm_assets.core.features.expressions import ExpressionText, Source, parse_expression
from dssm_assets.core.features.formula.formula import Column, parse_formula
from dssm_assets.core.features.formula.functions import Vectors
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator


class ExprFeature(NumericOperator):
    """One number per row: the result of a formula such as "u_age == i_age ? 1 : 0".

    An argument of a vector function, such as dot(a, b), is a list of numbers or a text of numbers joined by the
    separator; every other input is one number. `core/features/formula/parser.py` has the grammar.

    Attributes:
        expression: the formula.
        variables: the inputs. A variable's name is the part after the colon: u_age for "user:u_age". The formula must use
            all these names and no others.
        separator: separates the numbers of a vector that comes as text (default: the character 0x1d).
        value_dim: 0 (default) or 1, with the same meaning: a formula gives one number per row.
    """

    feature_type: Literal["expr_feature"] = "expr_feature"
    expression: str = Field(min_length=1)
    variables: list[ExpressionText] = Field(min_length=1)
    input_keys = ("variables",)
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    value_dim: Literal[0, 1] = 0

    @model_validator(mode="after")
    def _formula_fits(self) -> ExprFeature:
        constants = [str(input_) for input_ in self.expressions if input_.source is Source.CONST]
        if constants:
            raise ValueError(
                f"a const cannot be a variable; write the number into the expression instead of {', '.join(constants)}"
            )
        if repeated := repeated_names(self._names):
            raise ValueError(
                f"several variables are named {repeated}; rename one of them with a raw_feature of stub_type "
                "true and use that as feature:name"
            )
        parse_formula(self.expression, self._names)
        return self

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        formula = parse_formula(self.expression, self._names)
        columns: dict[str, Column] = {}
        for position, (name, array) in enumerate(zip(self._names, inputs, strict=True)):
            if name in formula.vectors:
                columns[name] = Vectors(*number_vectors(array, self.separator, self.where(position)))
            else:
                columns[name] = number_values(array, self.where(position))
        return self.finish(formula.evaluate(columns, len(inputs[0])))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(parse_expression(text).name for text in self.variables)
