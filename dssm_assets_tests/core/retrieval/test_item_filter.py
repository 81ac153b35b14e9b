"""Conditions on item columns: what passes, by hand, and what is refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval.item_filter import mask_items

ITEMS = pa.table(
    {
        "brand": pa.array(["a", "b", None, "c", "a"]).dictionary_encode(),
        "price": pa.array([1.0, 2.5, 3.0, None, 5.0]),
        "size": pa.array([1, 2, 3, 4, None], pa.int32()),
        "fresh": [True, False, None, True, False],
        "tags": [["x", "y"], [], None, ["y"], ["z", None]],
        "since": pa.array([dt.date(2024, 1, day) for day in range(1, 6)]),
        "seen": pa.array([dt.datetime(2024, 1, 1, hour) for hour in range(5)], pa.timestamp("ms", "UTC")),
    }
)


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        ({"brand": "a"}, [0, 4]),
        ({"brand": ["a", "c", "unknown"]}, [0, 3, 4]),
        ({"brand": {"in": ["b"]}}, [1]),
        ({"brand": {"not": "a"}}, [1, 2, 3]),
        ({"brand": {"not": ["a", None]}}, [1, 3]),
        ({"brand": None}, [2]),
        ({"brand": [None, "b"]}, [1, 2]),
        ({"brand": []}, []),
        ({"price": 3}, [2]),
        ({"price": {"min": 2.5}}, [1, 2, 4]),
        ({"price": {"max": 2.5}}, [0, 1]),
        ({"price": {"min": 2, "max": 3, "not": 3}}, [1]),
        ({"size": {"min": 1.5, "max": 3}}, [1, 2]),
        ({"size": {"max": 10**30}}, [0, 1, 2, 3]),
        ({"fresh": True}, [0, 3]),
        ({"fresh": {"not": True}}, [1, 2, 4]),
        ({"tags": "y"}, [0, 3]),
        ({"tags": ["x", "z"]}, [0, 4]),
        ({"tags": {"not": "y"}}, [1, 2, 4]),
        ({"tags": None}, [1, 2]),
        ({"since": {"min": "2024-01-04"}}, [3, 4]),
        ({"since": "2024-01-02"}, [1]),
        ({"seen": {"max": "2024-01-01T01:00:00"}}, [0, 1]),
        ({"seen": {"max": "2024-01-01T02:00:00+01:00"}}, [0, 1]),
        ({"brand": "a", "price": {"min": 2}}, [4]),
        ([{"brand": "a"}, {"size": 3}], [0, 2, 4]),
    ],
)
def test_passing_items_by_hand(wanted, passing):
    assert mask_items(ITEMS, wanted).nonzero()[0].tolist() == passing


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"colour": 1}, r"filters\.colour: expected a column for filters: brand, price, .*no such column"),
        ({"brand": 5}, r"filters\.brand: expected string, the column's type, got 5"),
        ({"size": 1.5}, r"filters\.size: expected int32.*got 1\.5"),
        ({"size": "1"}, r"filters\.size: expected int32.*got '1'"),
        ({"size": True}, r"expected int32.*got True"),
        ({"size": 10**12}, r"expected int32"),
        ({"size": [1, "a", None, 2.5, "b"]}, r"^filters\.size: expected int32, the column's type, got 'a' and 2 more"),
        ({"fresh": 1}, r"expected bool"),
        ({"price": {"min": "1"}}, r"filters\.price\.min: expected double"),
        ({"brand": {"min": "a"}}, r"filters\.brand: expected min of a column of numbers or times, got a column of string"),
        ({"brand": {"like": "a"}}, r"expected one or more of in, not, min, max, got like"),
        ({"brand": {"in": "a"}}, r"filters\.brand\.in: expected a list"),
        ({"brand": {}}, r"expected one or more of"),
        ({"since": "yesterday"}, r"expected text such as 2024-01-31"),
        ({"brand": "\ud800"}, r"expected string"),
        ({}, r"filters: expected an object of column and condition"),
        ([], r"at least one object"),
        ([{"size": [1] * 6000}, {"size": {"not": [2] * 4001}}], r"filters: expected at most 10000 values in lists, got 10001"),
        ([{"brand": "a"}, 5], r"filters\[1\]: expected an object"),
        ("brand", r"filters: expected an object"),
    ],
)
def test_bad_conditions_name_column_and_type(wanted, message):
    with pytest.raises(InputError, match=message):
        mask_items(ITEMS, wanted)


def test_all_faults_at_once():
    with pytest.raises(InputError) as caught:
        mask_items(ITEMS, {"brand": 5, "colour": 1, "price": {"min": "a", "max": None}})
    assert [fault.where for fault in caught.value.faults] == [
        "filters.brand",
        "filters.colour",
        "filters.price.max",
        "filters.price.min",
    ]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=20),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_same_as_a_loop_over_items(values, wanted, low, high):
    table = pa.table({"n": pa.array(values, pa.int64())})
    assert mask_items(table, {"n": wanted}).tolist() == [value in wanted for value in values]
    within = [value is not None and low <= value <= high for value in values]
    assert mask_items(table, {"n": {"min": low, "max": high}}).tolist() == within
    assert mask_items(table, {"n": {"not": wanted}}).tolist() == [value not in wanted for value in values]


def test_decimals_and_half_floats_are_numbers():
    table = pa.table(
        {"price": pa.array([Decimal("1.50"), Decimal("2.00"), None]), "half": pa.array(np.array([1, 2, 3], np.float16))}
    )
    assert mask_items(table, {"price": {"min": 1.6}}).tolist() == [False, True, False]
    assert mask_items(table, {"price": 1.5, "half": 1}).tolist() == [True, False, False]


def test_columns_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="column box of filters: expected numbers, text"):
        mask_items(pa.table({"box": [{"a": 1}]}), {"box": 1})


@pytest.mark.parametrize("wanted", [[{"size": 1}] * 65, [{f"c{number}": 1 for number in range(65)}], [{}] * 65])
def test_conditions_are_bounded(wanted):
    with pytest.raises(InputError, match="at most 64 conditions"):
        mask_items(ITEMS, wanted)
