"""Days as arguments name them: what each text is among some days, and what an error says of the others."""

from __future__ import annotations

import re

import pytest

from dssm_assets.core.days import choose_day, name_ranges, read_day
from dssm_assets.core.errors import PartitionMissingError

DAYS = ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-04"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("first", "2024-02-27"),
        ("latest", "2024-03-04"),
        ("latest-0", "2024-03-04"),
        ("latest-3", "2024-03-01"),  # calendar days, not stored ones: the third stored one back is 2024-02-28
        ("latest-4", "2024-02-29"),
        ("2024-02-28", "2024-02-28"),
        ("20240228", "2024-02-28"),
        ("2023-01-01", "2023-01-01"),  # a date that is not there is the caller's to refuse
    ],
)
def test_a_text_names_one_day(text: str, chosen: str) -> None:
    assert choose_day(read_day(text), DAYS, "table sample", "a stored day") == chosen


@pytest.mark.parametrize(("text", "named"), [("latest-1", "2024-03-03"), ("latest-64", "2023-12-31")])
def test_a_day_that_is_not_there_says_which_it_is_and_which_are(text: str, named: str) -> None:
    expected = f"table sample, day {text}: expected a stored day, got {named}. To fix: name one of 2024-02-27 to 2024-03-01, 2024-03-04"
    with pytest.raises(PartitionMissingError, match=f"^{re.escape(expected)}$"):
        choose_day(text, DAYS, "table sample", "a stored day")


def test_without_a_day_there_is_no_latest() -> None:
    with pytest.raises(PartitionMissingError, match=r"table sample, day latest: expected a stored day, got none\. To fix: "):
        choose_day("latest", [], "table sample", "a stored day")


@pytest.mark.parametrize("text", ["yesterday", "", "latest-", "latest+1", "latest--1", "first-1", "LATEST", "2024-02-30"])
def test_other_texts_are_no_days(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_day(text)


def test_of_many_ranges_the_last_are_named() -> None:
    odd = [f"2024-01-{day:02}" for day in range(1, 14, 2)]
    assert name_ranges(odd[:2]) == "2024-01-01, 2024-01-03"
    assert name_ranges(odd) == "2024-01-01, ..., 2024-01-05, 2024-01-07, 2024-01-09, 2024-01-11, 2024-01-13"
