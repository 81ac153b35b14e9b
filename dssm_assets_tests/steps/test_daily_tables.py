"""Daily tables over a range of days: the partitions are those of the days alone, and one day of the log is in memory."""

import gc
import weakref

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.steps import source
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.sources import reader
from dssm_assets_tests import worlds

DAYS = worlds.DAYS[:4]
DAILY = [row for row in all_rows() if not row.is_windowed]


def make(workspace, days):
    """Materializes every daily table; returns "asset/ds" -> digest, inputs, facts and checks."""
    results = [result for row in DAILY for result in row.step(workspace, days)]
    made = [(result.manifest, dict(result.facts), [check.is_passed for check in result.checks]) for result in results]
    return {found.key: (found.digest, found.inputs, found.facts, *rest) for found, *rest in made}


def test_a_range_of_days_writes_what_its_days_write_alone(world, tmp_path):
    alone, together = (open_workspace(world.copy(tmp_path / name)) for name in ("alone", "together"))
    expected = {}
    for ds in DAYS:
        expected |= make(alone, [ds])
    assert make(together, DAYS) == expected
    assert {key: world.workspace.need(*key.split("/")).digest for key in expected} == {
        key: digest for key, (digest, *_) in expected.items()
    }


def test_a_day_of_the_log_is_not_held_while_the_next_is_read(world, tmp_path, monkeypatch):
    workspace = open_workspace(world.copy(tmp_path / "copy"))
    read, seen = [], []

    def read_days(*given, **named):
        for ds, raw in reader.read_days(*given, **named):
            passed = [raw.slice(0)]
            read.append(weakref.ref(passed[0]))
            yield ds, passed.pop()
            gc.collect()
            seen.append(sum(table() is not None for table in read))

    monkeypatch.setattr(source, "read_days", read_days)
    made = [result.manifest for result in source.behavior_table(workspace, DAYS)]
    assert made == [world.workspace.need("behavior_table", ds) for ds in DAYS]
    assert seen == [0] * len(DAYS)
