"""The truth table as pairs: hostile lists are cleaned, wrong tables refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import DuplicateKeyError, InputError
from dssm_assets.core.evaluation.truth import Population, Scope, read_truth

BOOLS = pa.list_(pa.bool_())


def table(rows: list[tuple[str, list[str] | None, list[bool] | None, list[bool] | None, bool]]) -> pa.Table:
    users, items, warm, repeat, is_warm = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users),
            "gt_items": pa.array(items, pa.list_(pa.string())),
            "gt_is_warm": pa.array(warm, BOOLS),
            "gt_is_repeat": pa.array(repeat, BOOLS),
            "is_warm_user": pa.array(is_warm),
        }
    )


def test_duplicates_empty_and_missing_lists_and_unknown_items() -> None:
    truth = read_truth(
        table(
            [
                ("v", ["b", "z", "b", "a"], [True, True, True, False], [False, True, False, False], True),
                ("u", [], [], [], True),
                ("t", None, None, None, False),
                ("w", ["a"], [True], [True], False),
            ]
        ),
        pa.array(["b", "a"]),
    )
    assert truth.user_ids.to_pylist() == ["t", "u", "v", "w"]
    assert truth.pair_user.tolist() == [2, 2, 2, 3]
    assert truth.pair_item.tolist() == [1, 0, -1, 1]  # a, b, z of v; a of w
    assert truth.is_warm.tolist() == [False, True, True, False]
    assert truth.pairs_in(Scope.REPEAT, Population.ALL).tolist() == [False, False, True, True]
    assert truth.pairs_in(Scope.DISCOVERY, Population.COLD).tolist() == [True, False, False, False]
    part = truth.users_from(3, 4)
    assert (part.user_ids.to_pylist(), part.pair_user.tolist(), part.pair_item.tolist()) == (["w"], [0], [1])


def test_tables_that_break_the_contract_are_refused() -> None:
    row = ("u", ["a"], [True], [False], True)
    with pytest.raises(DuplicateKeyError, match="1 ids more than once: u"):
        read_truth(table([row, row]), pa.array(["a"]))
    with pytest.raises(DuplicateKeyError, match="corpus"):
        read_truth(table([row]), pa.array(["a", "a"]))
    with pytest.raises(InputError, match="column gt_is_warm: expected one entry per entry of gt_items"):
        read_truth(table([("u", ["a"], [True, False], [False], True)]), pa.array(["a"]))
    with pytest.raises(InputError, match="ids of type int64"):
        read_truth(table([row]), pa.array([1]))
