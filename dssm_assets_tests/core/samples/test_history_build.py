"""Histories placed event by event equal the sorted list of all events, whatever the order of days and the size of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.samples import history_build
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.history_build import build_history, place_history
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets_tests.core.samples.worlds import bucketize, history_day

ITEMS = [7, 8, 9, 10]
CORPUS = IdIndex(pa.array([9, 7, 8]))
EVENT = st.tuples(st.integers(0, 4), st.sampled_from(ITEMS))
DAYS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.lists(EVENT, max_size=4)), max_size=4), min_size=1, max_size=4)


def table(rows: Sequence[tuple[int, Sequence[tuple[int, int]]]]) -> pa.Table:
    """A day in which each event's brand is its item + 100."""
    return history_day([(user, [(time, item, item + 100) for time, item in events]) for user, events in rows])


def rows_of(history: HistoryCsr) -> list[tuple[Any, ...]]:
    users = np.repeat(history.users.ids.to_numpy(), history.ends - history.starts)
    columns = (users, history.event_time_ms, history.item_index, history.features["seq__brand"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(deadline=None, max_examples=200)
@given(days=DAYS, block_rows=st.integers(1, 5))
def test_histories_are_all_events_sorted(days: list[Any], block_rows: int) -> None:
    with mock.patch.object(history_build, "BLOCK_ROWS", block_rows):
        history = build_history([table(day) for day in days], CORPUS, bucketize, features=["seq__brand"])
    place = {item: index for index, item in enumerate([9, 7, 8])}
    events = sorted((user, time, item) for day in days for user, taken in day for time, item in taken)
    assert rows_of(history) == [(user, time, place.get(item, -1), item + 101) for user, time, item in events]
    assert history.users.ids.to_pylist() == sorted({user for day in days for user, _ in day})
    assert history.starts.tolist() == [0, *history.ends.tolist()][: len(history.starts)]


def test_days_are_asked_for_thrice_and_the_arrays_of_all_rows_are_the_caller_s() -> None:
    """Each pass asks for the columns that it needs, one day after the other."""
    asked: list[Any] = []
    made: list[int] = []

    def days(columns: Sequence[str]) -> Iterator[pa.Table]:
        for number in range(3):
            asked.append((number, len(columns)))
            yield table([(number % 2, [(number, 7)])]).select(list(columns))

    def allocate(length: int, kind: Any) -> Any:
        made.append(length)
        return np.empty(length, kind)

    history = place_history(days, CORPUS, bucketize, features=["seq__brand"], allocate=allocate)
    assert [columns for _, columns in asked] == [4] * 3 + [2] * 3 + [4] * 3
    assert made == [3, 3, 3]
    assert rows_of(history) == [(0, 0, 1, 108), (0, 2, 1, 108), (1, 1, 1, 108)]


@pytest.mark.parametrize(("block_rows", "blocks"), [(1, [(0, 3), (3, 4), (4, 9)]), (4, [(0, 4), (4, 9)]), (9, [(0, 9)])])
def test_blocks_are_of_whole_users(block_rows: int, blocks: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_build, "BLOCK_ROWS", block_rows)
    assert list(history_build._blocks(np.array([3, 3, 4, 9]))) == blocks
