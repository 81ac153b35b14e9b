"""What a column holds, whatever the blocks it comes in."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.starter import column_roles
from dssm_assets.extras.starter.column_roles import ValueKind, find_roles, is_time, list_separator, profile_column


def profile(*blocks):
    return profile_column("x", pa.chunked_array(blocks))


def _kind_of(blocks):
    return pa.array([value for block in blocks for value in block]).type


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([1, 2]), ValueKind.INTEGER),
        (pa.array([1.5, 2.0]), ValueKind.NUMBER),
        (pa.array(["a", "b"]), ValueKind.TEXT),
        (pa.array([True, False]), ValueKind.BOOLEAN),
        (pa.array([dt.date(2024, 1, 1)]), ValueKind.TIMESTAMP),
        (pa.array([[1], [2]]), ValueKind.LIST),
        (pa.array([["a"], None], pa.large_list(pa.string())), ValueKind.LIST),
        (pa.array([[1.5]]), ValueKind.OTHER),
        (pa.array([{"a": 1}]), ValueKind.OTHER),
    ],
)
def test_kind_of_each_arrow_type(values, kind):
    assert profile(values).kind is kind


def test_missing_values_are_null_empty_text_and_nan():
    found = profile(pa.array(["a", None, ""]), pa.array(["a", "b"]))
    assert (found.rows, found.missing, found.distinct) == (5, 2, 2)
    numbers = profile(pa.array([1.0, float("nan"), None, -2.5]))
    assert (numbers.missing, numbers.low, numbers.high) == (2, -2.5, 1.0)
    lists = profile(pa.array([["a", "b"], None, [], ["b"]]), pa.array([["c"]]))
    assert (lists.rows, lists.missing, lists.values.to_pylist()) == (5, 1, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([["3.4.2026"], ["13.4.2026"]], "%d.%m.%Y"),
        ([["3.4.2026"], ["12.4.2026"]], None),
        ([["13.4.2026"], ["4.13.2026"]], None),
        ([[None, ""], [" 13.4.2026 "]], "%d.%m.%Y"),
        ([[20260131], [20251201]], "%Y%m%d"),
        ([[20260131], [20251301]], None),
        ([[20260131], [31]], None),
        ([[], []], None),
    ],
)
def test_formats_of_times_follow_from_all_blocks(blocks, expected):
    assert profile(*(pa.array(block, _kind_of(blocks)) for block in blocks)).time_format == expected


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([["1", "2"], ["12,50"]], True),
        ([["1.234,5"]], True),
        ([["1,250"]], False),  # may be thousands
        ([["1", "2"]], False),
        ([["12,50"], ["1,2,3"]], False),
        ([[1.5]], False),
    ],
)
def test_decimal_commas_follow_from_all_blocks(blocks, expected):
    assert profile(*(pa.array(block, _kind_of(blocks)) for block in blocks)).has_decimal_comma is expected


def test_a_key_has_distinct_values_and_none_missing():
    assert profile(pa.array([1, 2]), pa.array([3])).is_key
    assert not profile(pa.array([1, 2]), pa.array([2])).is_key
    assert not profile(pa.array(["a", None])).is_key
    assert not profile(pa.array([1.0, 2.0])).is_key
    assert not profile(pa.array([], pa.int64())).is_key


def test_distinct_values_are_counted_up_to_the_cap(monkeypatch):
    monkeypatch.setattr(column_roles, "DISTINCT_CAP", 3)
    found = profile(pa.array([1, 2]), pa.array([3, 4, 4]))
    assert (found.values, found.summary) == (None, "integer, more than 3 distinct")
    found = profile(pa.array(["a", "b", "c", "d", "NA", None, ""]), pa.array(["nan", "Nancy"]))
    assert (found.values, found.no_ids, found.missing) == (None, {"NA", "nan"}, 2), (
        "texts in place of ids are seen among any number"
    )


def test_summary_is_one_line():
    assert profile(pa.array(["a\nb", None, "c", "c"])).summary == "text, 2 distinct, 25% missing, e.g. a b, c"
    assert profile(pa.array([{"a": 1}, None])).summary == "nested, 50% missing"


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=30), st.integers(0, 30))
def test_profiles_do_not_depend_on_blocks(values, cut):
    whole = profile(pa.array(values, pa.int64()))
    parts = profile(pa.array(values[:cut], pa.int64()), pa.array(values[cut:], pa.int64()))
    facts = [(found.rows, found.missing, found.distinct, found.low, found.high) for found in (whole, parts)]
    present = [value for value in values if value is not None]
    ends = (min(present), max(present)) if present else (None, None)
    assert facts == [(len(values), len(values) - len(present), len(set(present)), *ends)] * 2


def columns(**values):
    return [profile_column(name, pa.array(listed)) for name, listed in values.items()]


USERS = columns(uid=[1, 2, 3], age=[30, 40, 50])
ITEMS = columns(sku=[7, 8, 9], price=[1.0, 2.0, 3.0])
TIMES = [1_700_000_000, 1_700_000_100, 1_700_000_200]


def test_roles_are_found_by_names_and_values():
    log = columns(uid=[1, 2, 2], sku=[7, 7, 9], ts=TIMES, action=["buy", "buy", "view"])
    roles = find_roles(USERS, ITEMS, log, {})
    assert (roles.user_key, roles.item_key) == ("uid", "sku")
    assert (roles.user_id, roles.item_id, roles.event_time, roles.event) == ("uid", "sku", "ts", "action")


def test_values_decide_if_names_are_unknown():
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
def test_every_time_format_is_recognised(times):
    assert find_roles(USERS, ITEMS, columns(uid=[1, 2, 2], sku=[7, 7, 9], n=[1, 2, 3], w=times), {}).event_time == "w"


def test_all_roles_that_cannot_be_guessed_are_named():
    with pytest.raises(ConfigError) as error:
        find_roles(columns(uid=[1, 1]), ITEMS, columns(uid=[1], sku=["x"], n=[3]), {"event": "nothing"})
    assert [fault.where for fault in error.value.faults] == [
        "--event",
        "log, the column of item ids",
        "log, the column of timestamps",
        "user table",
    ]


def test_a_log_without_rows_is_said_to_be_empty():
    with pytest.raises(ConfigError, match="log: expected rows, got the columns uid, sku without rows"):
        find_roles(None, None, columns(uid=[], sku=[]), {})


def test_an_event_column_has_few_distinct_values():
    log = {"uid": [1] * 60, "sku": [7] * 60, "ts": [TIMES[0]] * 60}
    assert find_roles(USERS, ITEMS, columns(**log, behavior_type=[1, 4] * 30), {}).event == "behavior_type"
    assert find_roles(USERS, ITEMS, columns(**log, action=list(range(60))), {}).event is None


def test_texts_whose_parts_repeat_are_lists():
    genres = ["Comedy|Drama", "Comedy|War", "Drama|War", "Drama", "Comedy"]
    assert list_separator(profile(pa.array(genres))) == "|"
    assert list_separator(profile(pa.array([", ".join(text.split("|")) for text in genres]))) == ", "
    assert list_separator(profile(pa.array(["Net, The", "Firm, The (1993)", "Alien", "Rocky, II", "Jaws, part two"]))) is None
    assert list_separator(profile(pa.array(["a", "b"]))) is None
    assert list_separator(profile(pa.array([1, 2]))) is None


def named(name, *values):
    return profile_column(name, pa.array(values))


def test_times_are_dates_or_numbers_in_the_range_of_unix_times():
    assert is_time(named("joined_at", 1_500_000_000, 1_600_000_000))
    assert is_time(named("joined_at", 1_500_000_000_000))
    assert is_time(named("joined_at", 1_500_000_000.0, None))
    assert is_time(named("joined", "2024-01-31", "2023-05-01"))
    assert is_time(named("joined", dt.date(1930, 1, 1)))
    assert not is_time(named("height", 1_500_000_000))  # one number, and no name of a time
    assert is_time(named("x", *range(1_500_000_000, 1_500_000_030)))
    assert not is_time(named("joined_at", 5, 6))
    assert not is_time(named("joined_at", 1_500_000_000.5))


def test_ids_of_sides_without_a_table_are_found_by_name():
    log = columns(userId=[1, 2, 3], movieId=[5, 6, 6], movie_genre=["a", "b", "c"], timestamp=[1_500_000_000] * 3)
    roles = find_roles(None, None, log, {})
    assert (roles.user_key, roles.item_key, roles.user_id, roles.item_id) == (None, None, "userId", "movieId")
    assert find_roles(None, None, log, {"item_id": "movie_genre"}).item_id == "movie_genre"
    with pytest.raises(ConfigError, match="name it with --user-id, or give the users as a table with --user"):
        find_roles(None, None, columns(who=[1], movieId=[5], timestamp=[1_500_000_000]), {})


@pytest.mark.parametrize(
    ("user", "item", "others"),
    [
        ("listener", "track", {"artist": ["a", "b", "a"]}),
        ("reviewerID", "asin", {"overall": [5, 4, 5]}),
        ("visitorid", "itemid", {"transactionid": [7, 7, 7]}),
        ("player", "game", {"hours": [1, 2, 2]}),
        ("reader_id", "post_id", {"postcode": ["1", "2", "3"]}),
        ("guest", "ad_id", {"loadable": ["x", "y", "z"]}),
        ("customer", "product", {"postcode": ["1", "2", "3"], "salesperson_id": [4, 5, 6], "marketplace_id": [7, 8, 9]}),
        ("user", "sku", {"offer_code": ["a", "b", "c"]}),
        ("user", "track", {"artist_id": [1, 2, 3]}),
        ("user_id", "track_id", {"artist_id": [1, 2, 3]}),
    ],
)
def test_names_of_ids_in_public_logs_are_known(user: str, item: str, others: dict[str, list[object]]):
    log = columns(**{user: ["u", "v", "v"], item: ["p", "q", "r"]}, **others, time=[1_500_000_000] * 3)
    roles = find_roles(None, None, log, {})
    assert (roles.user_id, roles.item_id) == (user, item)
