"""Golden rows: which rows are chosen, their contexts, and the comparison of an exported tower with a trained one."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.service.bundle.golden import (
    compare_towers,
    golden_contexts,
    measure_difference,
)
from dssm_assets.service.bundle.tower_export import export_tower
from dssm_assets_tests.service.bundle import tower_worlds as worlds


def test_every_second_golden_row_has_a_context() -> None:
    contexts = golden_contexts(worlds.spec(), 100, seed=1)
    assert set(contexts) == {"hour", "pages", "pages__weights"}
    hours, pages = (contexts[name].to_pylist() for name in ("hour", "pages"))
    assert not any(hours[::2]) and not any(pages[::2])
    assert max(hours[1::2]) == 24
    assert {value for row in pages[1::2] for value in row} == set(range(7))
    assert [len(row) for row in contexts["pages__weights"].to_pylist()] == [len(row) for row in pages]
    assert golden_contexts(worlds.spec(), 100, seed=2)["hour"].to_pylist() != hours


def test_difference_by_hand() -> None:
    trained = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)
    found = measure_difference(trained, trained + np.array([[0, 0.25], [-0.5, 0]], np.float32))
    assert (found.row_count, found.largest, found.longest) == (2, 0.5, 5.0)
    # The longest vector has length 5: a difference of 0.5 is a tenth of it.
    assert found.is_within(0.1) and not found.is_within(0.099)
    short = measure_difference(trained[1:], trained[1:] + 0.5)
    assert short.is_within(0.5) and not short.is_within(0.49)


def test_difference_is_infinite_for_nan_or_another_shape() -> None:
    trained = np.ones((2, 3), np.float32)
    assert measure_difference(trained, np.full((2, 3), np.nan, np.float32)).largest == float("inf")
    assert not measure_difference(trained, trained[:1]).is_within(1.0)


def test_exported_towers_are_within_tolerance_of_their_own_weights_only() -> None:
    spec = worlds.spec()
    two_tower, users, items = worlds.towers(spec), worlds.user_rows(spec), worlds.item_rows(spec)
    user_model, item_model = export_tower(two_tower, "u", is_user=True).model, export_tower(two_tower, "i", is_user=False).model
    found = compare_towers(two_tower, users, lambda feed: worlds.run(user_model, feed), is_user=True)
    assert (found.row_count, found.longest) == (worlds.ROWS, pytest.approx(1, abs=1e-6))
    assert found.is_within(1e-5)
    assert compare_towers(two_tower, items, lambda feed: worlds.run(item_model, feed), is_user=False).is_within(1e-5)
    other = worlds.towers(spec, seed=9)
    assert not compare_towers(other, users, lambda feed: worlds.run(user_model, feed), is_user=True).is_within(1e-3)
