"""The default of a numeric feature: a number that float32 can hold, or "" for none."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from dssm_assets.core.features.number_values import parse_number


def check_numeric_default(value: str | int | float) -> str | int | float:
    """Returns the default as written.

    Raises:
        ValueError: if it is neither "" nor a number that float32 can hold.
    """
    if value == "":
        return value
    number = parse_number(str(value))
    if number is None or abs(number) > float(np.finfo(np.float32).max):
        raise ValueError('the default of a numeric feature is a finite number, or "" for none')
    return value


NumericDefault = Annotated[str | int | float, AfterValidator(check_numeric_default)]
