"""Windows and passes by hand, and what must hold for any histories."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.event_sequences import EventSequences, SharedWindows, shared_passes


def _sequences() -> EventSequences:
    """Returns two sequences of three and two events; rows read events 2, 0, none and 4."""
    values = np.array([7, 0, 8, 9, 0])
    return EventSequences((values, np.array([1, 0, 0, 3, 0])), np.arange(5) * 10, np.array([0, 3, 5]), np.array([2, 0, -1, 4]))


def test_rows_get_sequences_of_their_own_up_to_their_last_event() -> None:
    found = _sequences().select_rows(np.arange(1, 4))
    assert found.values[0].tolist() == [7, 9, 0]
    assert found.seconds.tolist() == [0, 30, 40]
    assert found.offsets.tolist() == [0, 1, 1, 3]
    assert found.last.tolist() == [0, -1, 2]


def test_events_without_any_value_are_left_out() -> None:
    # Events 1 and 4 are empty: row 3 reads event 3 instead of 4. Event 2 has one value and stays.
    found = _sequences().without_empty_events()
    assert found.values[0].tolist() == [7, 8, 9]
    assert found.seconds.tolist() == [0, 20, 30]
    assert found.offsets.tolist() == [0, 2, 3]
    assert found.last.tolist() == [1, 0, -1, 2]


def test_windows_by_hand() -> None:
    # Events 10 .. 16 of one user, length 3, shift 1: windows 10 11, 12 13 14, 15 16. The second user has 3 events: one window.
    starts, ends = np.array([10, 10, 10, 10, 20]), np.array([11, 12, 14, 17, 23])
    windows = SharedWindows(np.array([17, 17, 17, 17, 23]), np.array([1, 1, 1, 1, 2]))
    assert windows.first_events(starts, ends, 3).tolist() == [10, 10, 12, 15, 20]


def test_histories_of_one_window_share_a_pass() -> None:
    events, offsets, last = shared_passes(np.array([4, 4, 9, 4, 2]), np.array([6, 8, 9, 5, 3]))
    assert events.tolist() == [2, 4, 5, 6, 7]
    assert offsets.tolist() == [0, 1, 5]
    assert last.tolist() == [2, 4, -1, 1, 0]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 100))
def test_every_history_sees_events_up_to_its_end_and_at_most_a_window(count: int, length: int, shift: int) -> None:
    ends = np.arange(1, count + 1) + 5
    starts, user_ends = np.full(count, 5), np.full(count, 5 + count)
    firsts = SharedWindows(user_ends, np.full(count, shift)).first_events(starts, ends, length)
    assert (firsts >= 5).all()
    assert (firsts < ends).all()
    assert (ends - firsts <= length).all()
    if count <= length:
        assert (firsts == 5).all()
    # Windows do not overlap: the passes together hold every event once.
    events, offsets, last = shared_passes(firsts, ends)
    assert events.tolist() == list(range(5, 5 + count))
    assert events[last].tolist() == (ends - 1).tolist()
    assert np.diff(offsets).max() <= length
