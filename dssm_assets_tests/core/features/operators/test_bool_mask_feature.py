"""bool_mask_feature: what is true, aligned places, rows whose lengths differ."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.operators.bool_mask_feature import BoolMaskFeature

TRUTH = {"true": True, "TRUE": True, " True ": True, "1": True, "2": True, "-0.5": True, "false": False, "0": False,
         "-0": False, "0.0": False, "yes": False, "nan": False, "": False, None: False}  # fmt: skip


def values(column: pa.Array, mask: pa.Array, **keys: object) -> list[object]:
    feature = BoolMaskFeature.model_validate({"feature_name": "f", "expression": ["user:v", "user:m"], **keys})
    return list(feature.compute([column, mask]).to_pylist())


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "b", "", None]), st.sampled_from(list(TRUTH))), max_size=5), max_size=8),
    st.sampled_from([0, 1, 2]),
)
def test_kept_values_equal_a_plain_loop(rows: list[list[tuple[str | None, str | None]]], value_dim: int) -> None:
    column = pa.array([[value for value, _ in row] for row in rows], pa.list_(pa.string()))
    mask = pa.array([[flag for _, flag in row] for row in rows], pa.list_(pa.string()))
    kept = [[value for value, flag in row if value and TRUTH[flag]] for row in rows]
    found = values(column, mask, value_dim=value_dim)
    assert found == ([row[0] if row else None for row in kept] if value_dim == 1 else [r[: value_dim or None] for r in kept])
    # Joined to texts the same rows give the same values.
    joined = [
        pa.array([",".join(part or "" for part in row) for row in side.to_pylist()], pa.string()) for side in (column, mask)
    ]
    assert values(*joined, value_dim=value_dim, separator=",") == found


def test_examples_of_the_reference() -> None:
    text = pa.array(["123,456,90,80"])
    assert values(text, pa.array(["true,false,true,false"]), separator=",") == [["123", "90"]]
    assert values(text, pa.array([[1, 0, 1, 0]]), separator=",") == [["123", "90"]]
    assert values(pa.array([[1, 2, 3, 4]]), pa.array([[1, 0, 1, 0]])) == [["1", "3"]]


def test_masks_of_every_type() -> None:
    column = pa.array([["a", "b", "c"]])
    assert values(column, pa.array([[True, False, None]])) == [["a"]]
    assert values(column, pa.array([[2, 0, -1]])) == [["a", "c"]]
    assert values(column, pa.array([[0.5, -0.0, float("nan")]])) == [["a"]]
    assert values(column, pa.array(["TRUE\x1dFalse\x1d1"])) == [["a", "c"]]
    assert values(pa.array([7, 8]), pa.array([True, False])) == [["7"], []]
