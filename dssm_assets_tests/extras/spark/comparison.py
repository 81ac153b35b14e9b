"""Whether two engines made equal tables: the same rows in any order, floats within TOLERANCE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.steps.workspace import Workspace

TOLERANCE: Final = 1e-6
"""Relative and absolute, of floats."""


def assert_same_tables(ours: Workspace, theirs: Workspace, plan: Mapping[str, Sequence[str]]) -> None:
    """Checks that every partition has the same schema, rows, facts and names of inputs."""
    for name, days in plan.items():
        for ds in days:
            here, there = ours.need(name, ds), theirs.need(name, ds)
            assert here.columns == there.columns, here.key
            assert here.inputs.keys() == there.inputs.keys(), here.key
            assert here.facts == there.facts, here.key
            assert_same_rows(ours.tables.read(here), theirs.tables.read(there), here.key)


def assert_same_rows(ours: pa.Table, theirs: pa.Table, where: str) -> None:
    """Checks that two tables have the same rows in any order, floats within TOLERANCE."""
    assert ours.schema == theirs.schema, where
    assert ours.num_rows == theirs.num_rows, where
    first, second = _sorted(ours), _sorted(theirs)
    for name in ours.column_names:
        _assert_same_values(first.column(name).combine_chunks(), second.column(name).combine_chunks(), f"{where}, {name}")


def _sorted(table: pa.Table) -> pa.Table:
    """Returns the rows ordered by every plain column, floats last because they may differ a little."""
    plain = [field for field in table.schema if not pat.is_nested(field.type)]
    keys = sorted(plain, key=lambda field: pat.is_floating(field.type))
    return table.sort_by([(field.name, "ascending") for field in keys])


def _assert_same_values(ours: Any, theirs: Any, where: str) -> None:
    assert pc.is_null(ours).equals(pc.is_null(theirs)), f"{where}: nulls differ"
    ours, theirs = ours.drop_null(), theirs.drop_null()
    if pat.is_list(ours.type):
        assert pc.list_value_length(ours).equals(pc.list_value_length(theirs)), f"{where}: lengths differ"
        _assert_same_values(ours.flatten(), theirs.flatten(), where)
    elif pat.is_floating(ours.type):
        floats = (values.to_numpy(zero_copy_only=False) for values in (ours, theirs))
        np.testing.assert_allclose(*floats, rtol=TOLERANCE, atol=TOLERANCE, err_msg=where)
    else:
        assert ours.equals(theirs), f"{where}: values differ"
