"""Which columns are user, item, moment and event: names first, values decide, and what cannot be told is said."""

import pyarrow as pa
import pytest

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.sources.column_profile import ProfileBuilder
from dssm_assets.core.sources.column_roles import find_roles


def columns(**values):
    found = []
    for name, listed in values.items():
        builder = ProfileBuilder(name)
        builder.see(pa.array(listed))
        found.append(builder.profile())
    return found


USERS = columns(uid=[1, 2, 3], age=[30, 40, 50])
ITEMS = columns(sku=[7, 8, 9], price=[1.0, 2.0, 3.0])
TIMES = [1_700_000_000, 1_700_000_100, 1_700_000_200]


def test_names_and_values_agree():
    log = columns(uid=[1, 2, 2], sku=[7, 7, 9], ts=TIMES, action=["buy", "buy", "view"])
    roles = find_roles(USERS, ITEMS, log, {})
    assert (roles.user_key, roles.item_key) == ("uid", "sku")
    assert (roles.user_id, roles.item_id, roles.event_time, roles.event) == ("uid", "sku", "ts", "action")


def test_values_decide_where_names_say_nothing():
    roles = find_roles(columns(a=["u", "v"]), columns(b=["x", "y"]), columns(c=["x", "y"], d=["u", "u"], e=TIMES[:2]), {})
    assert (roles.user_id, roles.item_id, roles.event) == ("d", "c", None)


def test_a_name_beats_a_column_that_happens_to_overlap_more():
    # `rank` is within the ids 1..3 in every row; user_id has one that the table lacks.
    log = columns(rank=[1, 2, 3], user_id=[1, 2, 99], sku=[7, 8, 9], ts=TIMES)
    assert find_roles(USERS, ITEMS, log, {}).user_id == "user_id"


@pytest.mark.parametrize(
    "times",
    [
        TIMES,
        [time * 1000 for time in TIMES],
        ["2024-01-01", "2024-01-02 10:00", "2024-01-03T10:00:00Z"],
        pa.array(TIMES, pa.timestamp("s")),
    ],
    ids=["seconds", "milliseconds", "text", "timestamps"],
)
def test_every_way_to_write_a_moment_is_one(times):
    assert find_roles(USERS, ITEMS, columns(uid=[1, 2, 2], sku=[7, 7, 9], n=[1, 2, 3], w=times), {}).event_time == "w"


def test_everything_that_cannot_be_told_is_said_at_once():
    with pytest.raises(ConfigError) as error:
        find_roles(columns(uid=[1, 1]), ITEMS, columns(uid=[1], sku=["x"], n=[3]), {"event": "nothing"})
    assert [fault.where for fault in error.value.faults] == [
        "--event",
        "log, the column of item ids",
        "log, the column of moments",
        "user table",
    ]


def test_events_may_be_numbers_but_not_many():
    log = {"uid": [1] * 60, "sku": [7] * 60, "ts": [TIMES[0]] * 60}
    assert find_roles(USERS, ITEMS, columns(**log, behavior_type=[1, 4] * 30), {}).event == "behavior_type"
    assert find_roles(USERS, ITEMS, columns(**log, action=list(range(60))), {}).event is None
