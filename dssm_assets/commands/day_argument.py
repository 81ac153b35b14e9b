"""The argparse type for arguments that name a day."""

from __future__ import annotations

import argparse

from dssm_assets.core.days import DAY_FORMS, read_day


def day_argument(text: str) -> str:
    """Returns the text of a day in the form of `read_day`. For any other text argparse prints an error."""
    try:
        return read_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{DAY_FORMS} is expected, got {text!r}") from error
