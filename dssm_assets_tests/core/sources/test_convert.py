"""What single columns become."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.sources.convert import check_text, to_ids, to_text, to_values


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int16(), pa.uint8(), pa.uint32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()]
)
def test_integer_ids_of_any_width_become_int64(kind: pa.DataType) -> None:
    ids = to_ids(pa.array([7, 1], kind), "column user_id")
    assert ids.equals(pa.array([7, 1], pa.int64()))


def test_text_ids_stay_text() -> None:
    expected = pa.array(["u7", "007", None])
    for column in (pa.array(["u7", "007", ""]), pa.array(["u7", "007", None], pa.large_string()), expected.dictionary_encode()):
        assert to_ids(column, "column user_id").equals(expected)


def test_whole_floats_and_decimals_become_integers() -> None:
    assert to_ids(pa.array([3.0, float("nan"), None]), "c").to_pylist() == [3, None, None]
    assert to_ids(pa.array([Decimal("12")], pa.decimal128(20, 0)), "c").equals(pa.array([12], pa.int64()))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            pa.array([1.0, 1.5]),
            "column user_id: expected whole numbers, got 1 values of type double.* such as 1.5.*integers or text",
        ),
        (pa.array([2.0**53]), "not exact whole numbers"),
        (pa.array([float("inf")]), "not exact whole numbers"),
        (pa.array([2**63], pa.uint64()), "fit signed 64 bits.*9223372036854775808"),
        (pa.array([b"u"]), "integers or text, got binary"),
        (pa.array([True]), "integers or text, got bool"),
    ],
)
def test_to_ids_refuses_other_types(column: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        to_ids(column, "column user_id")


def test_values_are_float64_and_have_one_kind_of_missing() -> None:
    assert to_values(pa.array([2, None], pa.int32()), "c").equals(pa.array([2.0, None]))
    assert to_values(pa.array([" 1.5", "", None, "nan"]), "c").to_pylist() == [1.5, None, None, None]
    assert to_values(pa.array([Decimal("1.25")]), "c").to_pylist() == [1.25]


def test_decimals_are_read_to_the_last_digit() -> None:
    """Arrow's own conversion of decimals is off in the last digit of some of these."""
    prices = [Decimal(cents).scaleb(-2) for cents in range(10_000)]
    assert to_values(pa.array(prices, pa.decimal128(10, 2)), "c").to_pylist() == [cents / 100 for cents in range(10_000)]


def test_to_values_refuses_infinite_and_non_numeric_values() -> None:
    with pytest.raises(SchemaError, match=r"column price: expected numbers.*'cheap'"):
        to_values(pa.array(["cheap"]), "column price")
    with pytest.raises(SchemaError, match="finite numbers, got 2 infinite"):
        to_values(pa.array([float("inf"), float("-inf"), 1.0]), "column price")


def test_context_becomes_text() -> None:
    assert to_text(pa.array([330, None]), "c").to_pylist() == ["330", None]
    assert to_text(pa.array([3.0, float("nan")]), "c").to_pylist() == ["3", None]
    assert to_text(pa.array([True]), "c").to_pylist() == ["true"]
    with pytest.raises(SchemaError, match=r"text or a plain value, got list"):
        to_text(pa.array([[1]]), "c")


def not_utf_8(kind: pa.DataType) -> pa.Array:
    """Returns the texts "a" and one byte that no UTF-8 text has."""
    return pa.Array.from_buffers(kind, 2, pa.array([b"a", b"\xff"], pa.binary()).buffers())


@pytest.mark.parametrize("convert", [to_ids, to_text, to_values])
def test_text_that_is_not_utf_8_is_refused(convert: Any) -> None:
    with pytest.raises(SchemaError, match="here: expected text in UTF-8"):
        convert(not_utf_8(pa.string()), "here")


def test_text_inside_lists_and_dictionaries_is_checked_too() -> None:
    inside = pa.ListArray.from_arrays([0, 2], not_utf_8(pa.string()))
    for column in (inside, pa.DictionaryArray.from_arrays([0, 1], not_utf_8(pa.string()))):
        with pytest.raises(SchemaError, match="here: expected text in UTF-8"):
            check_text(column, "here")
    fine = pa.array([["ä"], None])
    assert check_text(fine, "here") is fine


def test_numbers_with_a_decimal_comma() -> None:
    texts = pa.array(["12,50", " 3", "-1.234.567,5", "", None])
    assert to_values(texts, "column price", decimal_mark=",").to_pylist() == [12.5, 3.0, -1_234_567.5, None, None]
    for wrong in ("12.5", "1,2,3", "1.23", "x"):
        with pytest.raises(
            SchemaError, match=rf"numbers with a comma before their fractions, got others, such as \['{wrong}'\]"
        ):
            to_values(pa.array(["12,50", wrong]), "column price", decimal_mark=",")
    with pytest.raises(SchemaError, match="expected numbers"):
        to_values(texts, "column price")
