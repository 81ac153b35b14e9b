"""combo_feature: order, empty sides, limits, the hashes of the reference."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.operators.combo_feature import ComboFeature

LISTS = st.lists(st.lists(st.sampled_from(["a", "b", "a_b", "c", "", None]), max_size=3), min_size=3, max_size=3)


def feature(sides: int = 2, **keys: object) -> ComboFeature:
    names = [f"user:{chr(97 + place)}" for place in range(sides)]
    return ComboFeature.model_validate({"feature_name": "f", "expression": names, **keys})


def values(*columns: pa.Array, **keys: object) -> list[object]:
    return list(feature(len(columns), **keys).compute(columns).to_pylist())


@given(st.lists(LISTS, max_size=8), st.sampled_from([0, 1, 2, 5]))
def test_combinations_equal_a_plain_loop(rows: list[list[list[str | None]]], value_dim: int) -> None:
    columns = [pa.array([row[side] for row in rows], pa.list_(pa.string())) for side in range(3)]
    found = values(*columns, value_dim=value_dim)
    whole = [["_".join(parts) for parts in itertools.product(*([t for t in side if t] for side in row))] for row in rows]
    if value_dim == 1:
        assert found == [row[0] if row else None for row in whole]
    else:
        assert found == [row[: value_dim or None] for row in whole]


def test_first_input_is_outermost_and_the_buckets_are_those_of_the_reference() -> None:
    found = feature().compute([pa.array(["ua\x1dub"]), pa.array(["ia\x1dib"])])
    assert found.to_pylist() == [["ua_ia", "ua_ib", "ub_ia", "ub_ib"]]
    assert list(hash_values(found.flatten()) % 100) == [37, 90, 5, 97]


def test_only_combinations_that_are_kept_are_computed() -> None:
    long = pa.array([[str(number) for number in range(2**16)]])
    assert values(long, long, long, value_dim=2) == [["0_0_0", "0_0_1"]]
    assert values(long, long, long, value_dim=1) == ["0_0_0"]
    with pytest.raises(SchemaError, match="at most 1048576 combinations of a row"):
        values(long, long)
    with pytest.raises(ValidationError, match="less than or equal to 65536"):
        values(long, long, value_dim=10**30)
