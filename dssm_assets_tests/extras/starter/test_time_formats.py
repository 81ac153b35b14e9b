"""A format of times is recognised only where the values leave no other."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.sources.time_format import read_times
from dssm_assets.extras.starter.time_formats import KNOWN, find_time_formats


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["03.04.2026", "13.04.2026"], ("%d.%m.%Y",)),
        (["03.04.2026", "04.13.2026"], ("%m.%d.%Y",)),
        (["03.04.2026", "12.12.2026"], ("%d.%m.%Y", "%m.%d.%Y")),
        (["4/13/2026 1:05 PM"], ("%m/%d/%Y %I:%M %p",)),
        (["2026/04/03 10:00:00"], ("%Y/%m/%d %H:%M:%S",)),
        (["20260131"], ("%Y%m%d",)),
        (["Tue Apr 03 18:00:09 +0000 2012"], ("%a %b %d %H:%M:%S %z %Y",)),
        (["03/Apr/2012", "4/May/2012"], ("%d/%b/%Y",)),
        (["Apr 3, 2012", "June 30, 2012"], ("%b %d, %Y",)),
        (["3 April 2012"], ("%d %b %Y",)),
        (["01 5, 2014", "11 30, 2014"], ("%m %d, %Y",)),
        (["12/1/10 8:26", "12/31/10 8:26"], ("%m/%d/%y %H:%M",)),
        (["13.04.2026", "04.13.2026"], ()),
        (["2026-01-31 10:00"], ()),
        (["1.2.13"], ()),
        (["soon"], ()),
        ([], KNOWN),
    ],
)
def test_a_format_is_found_by_all_values(texts: list[str], expected: tuple[str, ...]) -> None:
    assert find_time_formats(pa.array(texts, pa.string())) == expected


@given(
    st.sampled_from([one for one in KNOWN if "%f" not in one and "%z" not in one]),
    st.lists(st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2080, 1, 1)), min_size=1, max_size=10),
)
def test_known_formats_agree_with_strptime(time_format: str, times: list[dt.datetime]) -> None:
    text = pa.array([time.strftime(time_format) for time in times])
    assert find_time_formats(text, [time_format]) == (time_format,)
    expected = [dt.datetime.strptime(one, time_format) for one in text.to_pylist()]
    assert read_times(text, time_format).to_pylist() == expected
