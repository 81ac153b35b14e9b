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


def add_day_argument(parser: argparse.ArgumentParser, days: str, default: str | None = None) -> None:
    """Adds `--day`, which chooses one of some evaluation days, such as "the days with a model". It is required without a default."""
    text = f"the evaluation day, {DAY_FORMS} of {days}" + (f" (default: {default})" if default else "")
    parser.add_argument("--day", required=default is None, default=default, type=day_argument, metavar="DAY", help=text)
