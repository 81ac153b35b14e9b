"""The type of the arguments that name a day."""

from __future__ import annotations

import argparse

from dssm_assets.core.days import DAY_FORMS, read_day


def day_argument(text: str) -> str:
    """Returns the text of a day as `read_day` does; argparse prints what is wrong with another text."""
    try:
        return read_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{DAY_FORMS} is expected, got {text!r}") from error
