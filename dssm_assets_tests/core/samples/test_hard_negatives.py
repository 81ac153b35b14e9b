"""Shown and not taken: by hand, and against the definition pair by pair."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.core.samples.hard_negatives import hard_negatives
from dssm_assets.core.samples.history import HistoryCsr, build_history
from dssm_assets_tests.core.samples.worlds import bucketize, history_day

CORPUS = IdIndex(pa.array([100, 200, 300, 400]))
Event = tuple[int, int, str]


def day(events: list[Event]) -> pa.Table:
    """Returns a day of sample_fg where buying is positive."""
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in events], pa.int64()),
            "item_id": pa.array([item for _, item, _ in events], pa.int64()),
            "event": pa.array([event for _, _, event in events], pa.string()),
            "label": pa.array([int(event == "buy") for _, _, event in events], pa.int8()),
        }
    )


def history(taken: list[tuple[int, int]]) -> HistoryCsr:
    return build_history([history_day([(user, [(10, item, None)]) for user, item in taken])], CORPUS, bucketize)


def rows(days: list[list[Event]], taken: list[tuple[int, int]], exposure: tuple[str, ...] = ("expr",)) -> list[tuple[int, ...]]:
    table = hard_negatives(
        [day(events) for events in days], exposure_events=exposure, item_index=CORPUS, history=history(taken)
    )
    return [tuple(row.values()) for row in table.to_pylist()]


def test_by_hand() -> None:
    days: list[list[Event]] = [
        [(2, 200, "expr"), (1, 300, "expr"), (1, 100, "expr"), (1, 100, "expr"), (7, 100, "expr"), (1, 999, "expr")],
        [(1, 300, "expr"), (1, 400, "expr"), (1, 200, "click"), (2, 400, "expr"), (2, 400, "buy")],
    ]
    # User 1 (row 0) took 100 before, user 2 (row 1) buys 400 on the day it is shown; user 7 has no history, 999 is no item.
    taken = [(1, 100), (2, 100)]
    assert rows(days, taken) == [(0, 2, 0), (0, 3, 1), (1, 1, 0)]
    assert rows(days, taken, ("expr", "click")) == [(0, 1, 1), (0, 2, 0), (0, 3, 1), (1, 1, 0)]
    table = hard_negatives([], exposure_events=["expr"], item_index=CORPUS, history=history(taken))
    assert table.num_rows == 0
    assert [str(field.type) for field in table.schema] == ["int32"] * 3
    assert table.schema.names == ["user_index", "item_index", "day"]


EVENTS = st.tuples(st.integers(0, 4), st.sampled_from([100, 200, 300, 400, 999]), st.sampled_from(["expr", "click", "buy"]))


@settings(deadline=None)
@given(
    days=st.lists(st.lists(EVENTS, max_size=12), max_size=4),
    taken=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([100, 200, 300, 999])), max_size=6),
)
def test_pair_by_pair(days: list[list[Event]], taken: list[tuple[int, int]]) -> None:
    users, items = sorted({user for user, _ in taken}), [100, 200, 300, 400]
    bought = {(user, item) for events in days for user, item, event in events if event == "buy"} | set(taken)
    expected = []
    for u, user in enumerate(users):
        for i, item in enumerate(items):
            shown = [n for n, events in enumerate(days) if (user, item, "expr") in events]
            if shown and (user, item) not in bought:
                expected.append((u, i, shown[0]))
    assert rows(days, taken) == expected


def test_a_log_without_exposure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"events\.exposure: expected an event"):
        rows([[(1, 100, "expr")]], [(1, 100)], ())


def test_broken_days_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"(?s)sample_fg, column event.*sample_fg, column label"):
        hard_negatives(
            [day([]).drop_columns(["event", "label"])], exposure_events=["e"], item_index=CORPUS, history=history([(1, 100)])
        )
    texts = day([(1, 100, "expr")]).set_column(1, "item_id", pa.array(["100"]))
    with pytest.raises(SchemaError, match="expected int64, the type of ids, got string"):
        hard_negatives([texts], exposure_events=["expr"], item_index=CORPUS, history=history([(1, 100)]))
