"""Times after an id's first event are counted, unreadable blocks left out; columns that follow from the item are found."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.config.pipeline import BehaviorTable
from dssm_assets.extras.starter.look_ahead import FirstEvents, ItemColumns

TABLE = BehaviorTable(uri="log")
DAY = 86_400
NOON = DAY // 2


def _first_events() -> FirstEvents:
    found = FirstEvents("user_id", "UTC")
    times = [NOON + DAY * (20_000 + day) for day in (5, 3, 3, 9)]
    found.observe(pa.table({"user_id": ["a", "a", "b", "b"], "event_time": times}), TABLE)
    found.observe(pa.table({"user_id": ["c"], "event_time": [times[0]]}), TABLE)
    return found


def test_a_column_follows_from_the_item_if_rows_of_an_item_share_it():
    """300 rows of 3 items: the group is the item's, mostly is so in nine of ten rows, the other one runs through three values."""
    n = range(300)
    found = ItemColumns("item_id", ["group", "mostly", "other", "constant"])
    for begin in (0, 150):
        rows = [i for i in n if begin <= i < begin + 150]
        found.observe(
            pa.table(
                {
                    "item_id": [i % 3 for i in rows],
                    "group": ["xyz"[i % 3] for i in rows],
                    "mostly": ["S" if i % 30 < 3 else "xyz"[i % 3] for i in rows],
                    "other": ["abc"[i // 3 % 3] for i in rows],
                    "constant": ["a" for i in rows],
                }
            )
        )
    assert found.find() == {"group", "mostly"}
    assert ItemColumns("item_id", ["group"]).find() == frozenset()


def test_fraction_of_ids_by_hand() -> None:
    # First events: a and b on day 3, c on day 5. Times: a earlier, b on the same day but later, c a day later; d has no event.
    times = [DAY * (20_000 + day) + 80_000 for day in (1, 3, 6, 9)]
    blocks = [pa.table({"id": ["a", "b"], "last": times[:2]}), pa.table({"id": ["c", "d"], "last": times[2:]})]
    assert _first_events().later_frac(blocks, "id", "last") == 1 / 3


def test_unreadable_blocks_and_no_events_are_no_look_ahead() -> None:
    assert _first_events().later_frac([pa.table({"id": ["a"], "last": ["soon"]})], "id", "last") == 0
    empty = FirstEvents("user_id", "UTC")
    empty.observe(pa.table({"user_id": [1.5], "event_time": [1]}), TABLE)
    assert empty.later_frac([pa.table({"id": ["a"], "last": [1]})], "id", "last") == 0
