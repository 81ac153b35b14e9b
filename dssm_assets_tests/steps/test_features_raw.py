"""Rolling states through the real steps: states rolled day by day equal, byte for byte, states rebuilt from all days."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError, WindowIncompleteError
from dssm_assets.core.features_raw.raw_feature_tables import BEHAVIOR
from dssm_assets.steps import features_raw
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets_tests import worlds

STATES = ("user_activity", "item_activity", "pair_activity", "user_preferences")
DAYS = days_between("2024-01-01", "2024-01-06")
CHANGES = {"raw_features": {"statistic_days": [1, 3], "preference_days": 2}}
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("event_time_ms", pa.int64()),
        ("price", pa.float64()),
        ("category", pa.string()),
        ("hour", pa.int32()),
        ("weekday", pa.int32()),
    ]
)

events = st.tuples(
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["click", "buy"]),
    st.integers(0, 86_399_999),
    st.none() | st.integers(-50_000, 50_000).map(lambda cents: cents / 100),
    st.none() | st.sampled_from(["red", "blue"]),
)
logs = st.lists(st.lists(events, max_size=6), min_size=len(DAYS), max_size=len(DAYS))


def behavior_day(day: int, rows) -> pa.Table:
    """Returns the behavior table of a day (0 is the first), sorted by its key."""
    records = [
        {"user_id": user, "item_id": item, "event": event, "event_time_ms": worlds.start_ms(day) + ms, "price": price,
         "category": category, "hour": ms // 3_600_000, "weekday": day % 7}
        for user, item, event, ms, price, category in rows
    ]  # fmt: skip
    table = pa.Table.from_pylist(records, schema=SCHEMA)
    return table.sort_by([(name, "ascending") for name in ("event_time_ms", "user_id", "item_id", "event")])


def workspace_with(folder, log, changes=CHANGES):
    workspace = open_workspace(worlds.write_config(folder, changes))
    for day, rows in enumerate(log):
        put_day(workspace, day, rows)
    return workspace


def put_day(workspace, day, rows):
    workspace.tables.write(BEHAVIOR, DAYS[day], behavior_day(day, rows))


def make(workspace, state, days):
    """Materializes a state over some days; returns day -> whether it was rolled or rebuilt."""
    results = list(getattr(features_raw, state)(workspace, days))
    return {result.manifest.ds: result.facts["state"] for result in results}


def digest(workspace, state, ds):
    return workspace.need(state, ds).digest


# Without shrinking: an example takes a second, and a failing log of six days is readable.
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(log=logs)
def test_rolled_state_equals_rebuilt_state_byte_for_byte(tmp_path_factory, log):
    rolled = workspace_with(tmp_path_factory.mktemp("rolled"), log)
    rebuilt = workspace_with(tmp_path_factory.mktemp("rebuilt"), log)
    for state in STATES:
        assert make(rolled, state, DAYS) == dict.fromkeys(DAYS, "rolled")
        # Without the state of the previous day the last day is rebuilt from all days.
        assert make(rebuilt, state, DAYS[-1:]) == {DAYS[-1]: "rebuilt from 6 days"}
        assert digest(rebuilt, state, DAYS[-1]) == digest(rolled, state, DAYS[-1]), state


@pytest.mark.parametrize("state", STATES)
def test_a_state_of_several_row_groups_equals_the_rebuilt_state(tmp_path, monkeypatch, state):
    for module in ("tables", "engines.duckdb"):
        monkeypatch.setattr(f"dssm_assets.storage.{module}.ROW_GROUP_ROWS", 2)
    log = [
        [(user, item, "buy", 0, 1.5, item) for user in users for item in "xyz"] for users in ("bcf", "aef", "dg", "", "h", "cg")
    ]
    workspace = workspace_with(tmp_path, log)
    for ds in DAYS:
        make(workspace, state, [ds])
    rolled = digest(workspace, state, DAYS[-1])
    workspace.tables.partitions.remove(state, DAYS[-2])
    assert make(workspace, state, DAYS[-1:]) == {DAYS[-1]: "rebuilt from 6 days"}
    assert digest(workspace, state, DAYS[-1]) == rolled


BUSY = [[("u", "x", "buy", 1000, 1.0, "red"), ("v", "y", "click", 2000, None, None)] for _ in DAYS]
OTHER = [("u", "x", "buy", 1000, 5.0, "blue"), ("w", "y", "buy", 3000, 2.0, "red")]


def rolled_world(folder, state):
    """Returns a world with events every day, in which a state exists up to the second last day."""
    workspace = workspace_with(folder / "rolled", BUSY)
    make(workspace, state, DAYS[:-1])
    return workspace


@pytest.mark.parametrize("state", STATES)
def test_next_day_is_rebuilt_after_a_correction_inside_the_window(tmp_path, state):
    rolled = rolled_world(tmp_path, state)
    put_day(rolled, 3, OTHER)
    assert make(rolled, state, DAYS[-1:]) == {DAYS[-1]: "rebuilt from 6 days"}
    fresh = workspace_with(tmp_path / "fresh", [*BUSY[:3], OTHER, *BUSY[4:]])
    make(fresh, state, DAYS)
    assert digest(rolled, state, DAYS[-1]) == digest(fresh, state, DAYS[-1])


@pytest.mark.parametrize("state", STATES)
def test_a_rebuilt_state_does_not_read_days_before_the_calendar(tmp_path, state):
    later = worlds.merged(CHANGES, {"calendar": {"start": DAYS[2]}})
    shorter = workspace_with(tmp_path, BUSY, later)
    assert make(shorter, state, DAYS[-1:]) == {DAYS[-1]: "rebuilt from 4 days"}
    rebuilt = digest(shorter, state, DAYS[-1])
    assert make(shorter, state, DAYS[2:]) == dict.fromkeys(DAYS[2:], "rolled")
    assert digest(shorter, state, DAYS[-1]) == rebuilt


@pytest.mark.parametrize(
    ("state", "changed"),
    [
        ("user_activity", {"raw_features": {"statistic_days": [1, 4]}}),
        ("item_activity", {"raw_features": {"statistic_days": [1, 4]}}),
        ("pair_activity", {"raw_features": {"statistic_days": [1, 4]}}),
        ("user_preferences", {"raw_features": {"preference_days": 4}}),
        ("user_preferences", {"events": {"positive": ["buy", "click"]}}),
        ("user_activity", {"tables": {"behavior": {"value_columns": []}}}),
    ],
)
def test_next_day_is_rebuilt_after_a_change_of_settings(tmp_path, state, changed):
    rolled_world(tmp_path, state)
    settings_now = worlds.merged(CHANGES, changed)
    again = open_workspace(worlds.write_config(tmp_path / "rolled", settings_now))
    assert make(again, state, DAYS[-1:]) == {DAYS[-1]: "rebuilt from 6 days"}
    fresh = workspace_with(tmp_path / "fresh", BUSY, settings_now)
    assert set(make(fresh, state, DAYS).values()) == {"rolled"}
    assert digest(again, state, DAYS[-1]) == digest(fresh, state, DAYS[-1])


def test_next_day_rolls_after_a_correction_before_the_longest_window(tmp_path):
    rolled = rolled_world(tmp_path, "user_activity")
    put_day(rolled, 0, OTHER)
    assert make(rolled, "user_activity", DAYS[-1:]) == {DAYS[-1]: "rolled"}
    for ds in DAYS:
        make(rolled, "user_activity", [ds])
    rows = rolled.tables.read(rolled.need("user_activity", DAYS[-1])).to_pylist()
    assert {row["user_id"] for row in rows if row["event"] == "buy"} == {"u", "w"}


@pytest.mark.parametrize("state", STATES)
def test_missing_day_inside_the_window_is_named(tmp_path, state):
    workspace = workspace_with(tmp_path, BUSY)
    workspace.tables.partitions.remove("behavior", DAYS[-2])
    with pytest.raises(WindowIncompleteError, match=rf"table behavior: .* no partition for {DAYS[-2]}.*materialize behavior"):
        make(workspace, state, DAYS[-1:])
    assert workspace.find(state, DAYS[-1]) is None


def test_without_preference_columns_the_table_is_empty_with_its_contract(tmp_path):
    changes = worlds.merged(CHANGES, {"raw_features": {"preference_columns": []}})
    workspace = workspace_with(tmp_path, BUSY[:1], changes)
    (result,) = features_raw.user_preferences(workspace, DAYS[:1])
    table = workspace.tables.read(result.manifest)
    assert table.schema == pa.schema(
        [("user_id", pa.string()), ("attribute", pa.string()), ("value", pa.string()), ("count", pa.int64())]
    )
    assert table.num_rows == 0


@pytest.mark.parametrize(("state", "place", "column"), [("user_preferences", 1, "user_id"), ("pair_activity", 2, "item_id")])
def test_ids_of_another_type_than_in_the_state_are_refused(tmp_path, state, place, column):
    workspace = workspace_with(tmp_path, BUSY, {"raw_features": {"statistic_days": [30], "preference_days": 30}})
    make(workspace, state, DAYS[:5])
    workspace.tables.write(BEHAVIOR, DAYS[5], behavior_day(5, BUSY[5]).set_column(place, column, pa.array([1, 2])))
    with pytest.raises(SchemaError, match=rf"table {state}, column {column}.*string, as on the days before.*int64.*To fix"):
        make(workspace, state, DAYS[5:])


def test_a_log_with_a_column_ds_of_its_own_is_counted_by_its_days(tmp_path):
    plain, dated = (workspace_with(tmp_path / name, BUSY) for name in ("plain", "dated"))
    for day, ds in enumerate(DAYS):
        rows = behavior_day(day, BUSY[day])
        dated.tables.write(BEHAVIOR, ds, rows.append_column("ds", pa.array(["mine"] * len(rows))))
    for state in STATES:
        assert make(plain, state, DAYS) == make(dated, state, DAYS)
        assert digest(plain, state, DAYS[-1]) == digest(dated, state, DAYS[-1])
