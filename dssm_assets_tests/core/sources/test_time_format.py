"""Times in texts of any format become ISO 8601."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from dssm_assets.core.names import check_time_format
from dssm_assets.core.sources.time_format import read_times


@pytest.mark.parametrize(
    ("time_format", "text", "expected"),
    [
        ("%d.%m.%Y %H:%M", "3.1.2026 14:05", "2026-01-03 14:05:00"),
        ("%d.%m.%Y", "31.12.2025", "2025-12-31 00:00:00"),
        ("%m/%d/%Y %I:%M %p", "1/3/2026 12:05 am", "2026-01-03 00:05:00"),
        ("%m/%d/%Y %I:%M %p", "1/3/2026 12:05 PM", "2026-01-03 12:05:00"),
        ("%m/%d/%y", "1/3/68", "2068-01-03 00:00:00"),
        ("%m/%d/%y", "1/3/69", "1969-01-03 00:00:00"),
        ("%Y%m%d", "20261112", "2026-11-12 00:00:00"),
        ("am %d.%m.%Y um %H Uhr", "am 03.01.2026 um 7 Uhr", "2026-01-03 07:00:00"),
        ("%d/%m/%Y %H:%M:%S.%f%z", "03/01/2026 01:02:03.5+0200", "2026-01-02 23:02:03.500000+00:00"),
        ("%Y%m%d %H:%M", "20260101 9:30", "2026-01-01 09:30:00"),
        ("%d.%m.%Y %I%p", "1.1.2026 9pm", "2026-01-01 21:00:00"),
        ("%a %b %d %H:%M:%S %z %Y", "Tue Apr 03 18:00:09 +0000 2012", "2012-04-03 18:00:09+00:00"),
        ("%a %b %d %H:%M:%S %Y", "Tue Apr  3 18:00:09 2012", "2012-04-03 18:00:09"),
        ("%A, %d. %B %Y", "tuesday, 3. APRIL 2012", "2012-04-03 00:00:00"),
        ("%d/%b/%Y:%H:%M:%S %z", "03/Sep/2012:18:00:09 GMT", "2012-09-03 18:00:09+00:00"),
        ("%d %b %Y", "3 April 2012", "2012-04-03 00:00:00"),
        ("%d%b%Y", "03Apr2012", "2012-04-03 00:00:00"),
        ("%d.%m.%Y", "3.13.2026", None),
        ("%d.%m.%Y", "31.2.2026", None),
        ("%d.%m.%Y", "1.2.26", None),
        ("%Y%m%d", "2026111", None),
        ("%y%m%d", "26111", None),
        ("%Y%m%d%H%M", "20260101930", None),
        ("%d %b %Y", "3 Avr 2012", None),
        ("%d.%m.%Y", None, None),
    ],
)
def test_texts_of_a_format_are_read(time_format: str, text: str | None, expected: str | None) -> None:
    (found,) = read_times(pa.array([text], pa.string()), check_time_format(time_format)).to_pylist()
    assert found == (None if expected is None else dt.datetime.fromisoformat(expected))


@pytest.mark.parametrize(
    "wrong",
    ["", "%d.%m", "%d.%m.%Y %y", "%d.%d.%m.%Y", "%d.%b.%m.%Y", "%b %Y", "%d.%m.%Y %I", "%d.%m.%Y %H %I %p", "%d.%m.%Y %"],
)
def test_a_format_without_a_whole_date_or_with_unknown_directives_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"expected a day, a month and a year, each once, of the directives %Y"):
        check_time_format(wrong)
