"""Several short days at once: the partitions are those of the days alone, and groups are bounded."""

import dataclasses
import gc
import itertools
import weakref

import pytest

from dssm_assets.core.sources.canonical_tables import ITEM_TABLE, USER_TABLE
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.steps import day_groups, source
from dssm_assets.steps.day_groups import cut_days, group_days, write_days
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.sources import reader as source_reader
from dssm_assets_tests import worlds
from dssm_assets_tests.storage.stores import NOTES, notes
from dssm_assets_tests.worlds import built_world

world = pytest.fixture(scope="module")(built_world)
DAYS = worlds.DAYS[:5]
DAILY = [row for row in all_rows() if not row.is_windowed]


def manifests(workspace, days):
    """Returns "asset/ds" -> digest, columns, inputs and facts of every daily partition."""
    found = [workspace.need(row.name, ds) for row in DAILY for ds in days]
    return {manifest.key: (manifest.digest, manifest.columns, manifest.inputs, manifest.facts) for manifest in found}


def make_again(workspace, days):
    """Materializes every daily table over some days; returns "asset/ds" -> facts and checks of its result."""
    results = [result for row in DAILY for result in row.step(workspace, days)]
    return {result.manifest.key: (dict(result.facts), [check.is_passed for check in result.checks]) for result in results}


def test_a_range_of_days_writes_what_its_days_write_alone(world, tmp_path, monkeypatch):
    alone, together = (open_workspace(world.copy(tmp_path / name)) for name in ("alone", "together"))
    said = {}
    for ds in DAYS:
        said |= make_again(alone, [ds])
    monkeypatch.setattr(day_groups, "GROUP_DAYS", 3)
    assert make_again(together, DAYS) == said
    assert manifests(together, DAYS) == manifests(alone, DAYS) == manifests(world.workspace, DAYS)


@pytest.mark.parametrize("others", [[2], [0, 1, 2, 3, 4]], ids=["shared by days", "daily"])
def test_a_range_of_days_with_other_profiles_writes_what_its_days_write_alone(world, tmp_path, others):
    alone, together = (open_workspace(world.copy(tmp_path / name)) for name in ("alone", "together"))
    wide = [row for row in DAILY if row.name in ("user_all_feature", "item_all_feature")]
    for workspace in (alone, together):
        for spec, day in itertools.product((USER_TABLE, ITEM_TABLE), others):
            rows = workspace.tables.read(workspace.need(spec.name, DAYS[day]))
            workspace.tables.write(spec, DAYS[day], rows.slice(1 + day % 2))
    made = [result.manifest for row in wide for result in row.step(together, DAYS)]
    assert made == [result.manifest for row in wide for ds in DAYS for result in row.step(alone, [ds])]
    changed = [manifest.key for manifest in made if manifest != world.workspace.need(manifest.asset, manifest.ds)]
    assert sorted(changed) == sorted(f"{row.name}/{DAYS[day]}" for row in wide for day in others)


def test_groups_end_at_their_limits_and_where_a_fixed_input_changes(world, tmp_path, monkeypatch):
    workspace = open_workspace(world.copy(tmp_path / "copy"))
    assets = {"log": "behavior_table", "items": "item_table"}

    def sizes(rows=None):
        if rows is not None:
            monkeypatch.setattr(day_groups, "GROUP_ROWS", rows)
        return [len(group) for group in group_days(workspace, DAYS, assets, fixed=("items",))]

    assert sizes() == [5]
    first, second, third, *_ = (workspace.need("behavior_table", ds).rows for ds in DAYS)
    assert sizes(first + second)[0] == 2
    assert sizes(first + second + third - 1)[0] == 2
    assert sizes(1) == [1, 1, 1, 1, 1]
    monkeypatch.undo()
    monkeypatch.setattr(day_groups, "GROUP_DAYS", 4)
    assert sizes() == [4, 1]
    items = workspace.tables.read(workspace.need("item_table", DAYS[2]))
    workspace.tables.write(ITEM_TABLE, DAYS[2], items.slice(1))
    assert sizes() == [2, 1, 2]


def test_days_before_a_missing_one_are_a_group_of_their_own():
    def read():
        yield from (1, 2)
        raise OSError("no third day")

    groups = cut_days(read(), lambda first, day: True, lambda group, day: 1)
    assert next(groups) == [1, 2]
    with pytest.raises(OSError, match="no third day"):
        next(groups)


@pytest.mark.parametrize(("group_rows", "held"), [(1, [0, 0, 0, 0, 0]), (1_000, [1, 2, 3, 4, 5])])
def test_a_long_day_of_the_log_is_not_held_while_the_next_is_read(world, tmp_path, monkeypatch, group_rows, held):
    workspace = open_workspace(world.copy(tmp_path / "copy"))
    monkeypatch.setattr(day_groups, "GROUP_ROWS", group_rows)
    read, seen = [], []

    def read_days(*given, **named):
        for ds, raw in source_reader.read_days(*given, **named):
            passed = [raw.slice(0)]
            read.append(weakref.ref(passed[0]))
            yield ds, passed.pop()
            gc.collect()
            seen.append(sum(table() is not None for table in read))

    monkeypatch.setattr(source, "read_days", read_days)
    made = [result.manifest for result in source.behavior_table(workspace, DAYS)]
    assert made == [world.workspace.need("behavior_table", ds) for ds in DAYS]
    assert seen == held


def test_a_failing_day_of_a_group_leaves_the_days_before_it(world, tmp_path):
    workspace = open_workspace(world.copy(tmp_path / "copy", {"events": {"positive": ["buy", "click"]}}))
    before = manifests(world.workspace, DAYS)
    (step,) = (row.step for row in DAILY if row.name == "user_history")
    written = step(workspace, DAYS)
    first = next(written).manifest
    written.close()
    assert workspace.need("user_history", DAYS[0]) == first
    assert first.digest != before[first.key][0]
    rest = [workspace.need("user_history", ds) for ds in DAYS[1:]]
    assert [manifest.digest for manifest in rest] == [before[manifest.key][0] for manifest in rest]


def test_tables_with_a_column_ds_of_their_own_are_written_day_by_day(world, tmp_path):
    workspace = open_workspace(world.copy(tmp_path / "copy"))
    for ds in DAYS[:2]:
        workspace.tables.write(NOTES, ds, notes(("a", 1, "x")).append_column("ds", [["mine"]]))
    copied = dataclasses.replace(NOTES, name="copied")
    made = list(write_days(workspace, copied, DAYS[:2], lambda rows: rows, {"rows": NOTES.name}))
    assert [workspace.tables.read(manifest).column("ds").to_pylist() for manifest in made] == [["mine"], ["mine"]]
