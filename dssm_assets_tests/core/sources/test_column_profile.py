"""What a column holds, whatever the blocks it comes in."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.sources import column_profile
from dssm_assets.core.sources.column_profile import ProfileBuilder, ValueKind


def profile(*blocks):
    builder = ProfileBuilder("x")
    for block in blocks:
        builder.see(block)
    return builder.profile()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([1, 2]), ValueKind.INTEGER),
        (pa.array([1.5, 2.0]), ValueKind.NUMBER),
        (pa.array(["a", "b"]), ValueKind.TEXT),
        (pa.array(["a", "b"]).dictionary_encode(), ValueKind.TEXT),
        (pa.array([True, False]), ValueKind.BOOLEAN),
        (pa.array([dt.date(2024, 1, 1)]), ValueKind.MOMENT),
        (pa.array([[1], [2]]), ValueKind.OTHER),
    ],
)
def test_kinds(values, kind):
    assert profile(values).kind is kind


def test_missing_values_are_null_empty_text_and_nan():
    found = profile(pa.array(["a", None, ""]), pa.array(["a", "b"]))
    assert (found.rows, found.missing, found.distinct) == (5, 2, 2)
    numbers = profile(pa.array([1.0, float("nan"), None, -2.5]))
    assert (numbers.missing, numbers.low, numbers.high) == (2, -2.5, 1.0)


def test_a_key_has_a_value_of_its_own_in_every_row():
    assert profile(pa.array([1, 2]), pa.array([3])).is_key
    assert not profile(pa.array([1, 2]), pa.array([2])).is_key
    assert not profile(pa.array(["a", None])).is_key
    assert not profile(pa.array([1.0, 2.0])).is_key
    assert not profile(pa.array([], pa.int64())).is_key


def test_beyond_the_cap_there_are_many(monkeypatch):
    monkeypatch.setattr(column_profile, "DISTINCT_CAP", 3)
    found = profile(pa.array([1, 2]), pa.array([3, 4, 4]))
    assert found.values is None
    assert found.told.startswith("integer, more than 3 distinct")


def test_told_is_one_line():
    assert profile(pa.array(["a\nb", None, "c", "c"])).told == "text, 2 distinct, 25% missing, e.g. a b, c"


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=30), st.integers(0, 30))
def test_blocks_make_no_difference(values, cut):
    whole = profile(pa.array(values, pa.int64()))
    parts = profile(pa.array(values[:cut], pa.int64()), pa.array(values[cut:], pa.int64()))
    assert (whole.rows, whole.missing, whole.distinct, whole.low, whole.high) == (
        parts.rows,
        parts.missing,
        parts.distinct,
        parts.low,
        parts.high,
    )
    present = [value for value in values if value is not None]
    assert whole.distinct == len(set(present))
    assert whole.low == (min(present) if present else None)
