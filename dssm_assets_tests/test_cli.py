"""The command line: exit codes, one line per mistake, and what it prints when all is well."""

import datetime as dt
import os
import subprocess
import sys

import pytest

from dssm_assets.cli import main
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command on a home; returns (exit status, what it printed, what it complained)."""

    def call(loaded, *arguments):
        for name, value in environment(loaded).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        status = main(arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def environment(loaded):
    return {"DSSM_CONFIG": str(loaded.path), "DSSM_HOME": str(loaded.home), "COLUMNS": "200"}


def line_of(complaint):
    """Returns the one line of a complaint."""
    (line,) = complaint.strip().splitlines()
    return line


def test_an_unknown_name_is_answered_with_the_names_there_are(world, run):
    status, _, complaint = run(world.loaded, "materialize", "sampel", "--from", DAYS[3])
    assert status == 1
    line = line_of(complaint)
    assert line.startswith("ConfigError: name: expected one of: daily_tables, train_and_evaluate, publish, behavior, ")
    assert line.endswith("got 'sampel'. To fix: correct its spelling")


def test_a_reversed_range(world, run):
    status, _, complaint = run(world.loaded, "materialize", "sample", "--from", DAYS[4], "--to", DAYS[3])
    assert status == 1
    assert line_of(complaint) == (
        "ConfigError: range of days: expected a first day that is not after the last, got 2024-01-05 to 2024-01-04. "
        "To fix: swap them"
    )


@pytest.mark.parametrize(("first", "last"), [("2023-12-31", "2024-01-02"), ("2024-01-12", "2024-01-13")])
def test_days_outside_the_calendar(world, run, first, last):
    status, _, complaint = run(world.loaded, "materialize", "sample", "--from", first, "--to", last)
    assert status == 1
    assert line_of(complaint) == (
        f"ConfigError: range of days: expected days from 2024-01-01 to 2024-01-12, got {first} to {last}. "
        "To fix: choose days inside, or change calendar"
    )


def test_a_day_to_come_in_an_open_calendar(tmp_path, run):
    loaded = worlds.write_config(tmp_path, {"calendar": {"end": None}})
    tomorrow = (dt.date.today() + dt.timedelta(days=1)).isoformat()
    status, _, complaint = run(loaded, "materialize", "sample", "--from", tomorrow)
    assert status == 1
    assert line_of(complaint).startswith("ConfigError: range of days: expected days from 2024-01-01 to yesterday")


def test_all_mistakes_are_told_at_once(world, run):
    status, _, complaint = run(world.loaded, "materialize", "sampel", "--from", DAYS[4], "--to", DAYS[3])
    assert status == 1
    assert complaint.startswith("ConfigError: 2 faults:\n")
    assert len(complaint.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["materialize", "sample", "--from", "yesterday"], "argument --from: invalid fromisoformat value: 'yesterday'"),
        (["materialize", "sample"], "the following arguments are required: --from"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_wrong_usage_ends_with_status_two(world, run, capsys, arguments, complaint):
    with pytest.raises(SystemExit) as ended:
        run(world.loaded, *arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_broken_configuration_is_one_line(tmp_path, run):
    loaded = worlds.write_config(tmp_path)
    loaded.path.write_text(loaded.path.read_text() + "\nmodle: {}\n")
    status, _, complaint = run(loaded, "materialize", "sample", "--from", DAYS[3])
    assert status == 1
    assert "unknown key 'modle'" in line_of(complaint)


def test_hit_rates_of_an_empty_home(tmp_path, run):
    status, out, complaint = run(worlds.write_config(tmp_path), "hit-rates")
    assert (status, out) == (1, "")
    assert line_of(complaint).startswith("PartitionMissingError: table total_hit_rate: expected every day to be materialized")


def test_hit_rates_of_a_day_that_was_not_evaluated_name_the_day(world, run):
    status, _, complaint = run(world.loaded, "hit-rates", "--day", DAYS[10])
    assert status == 1
    assert f"no partition for {DAYS[10]}" in line_of(complaint)


def test_hit_rates_of_the_last_evaluated_day(world, run):
    status, out, complaint = run(world.loaded, "hit-rates")
    assert (status, complaint) == (0, "")
    assert f"{EVALUATION_DAY}  all items (12 users)" in out
    lines = [line.split() for line in out.splitlines()]
    # Label, then the rate at k = 5 and at k = 10; below it the intervals.
    model = next(number for number, line in enumerate(lines) if line[:2] == ["two-tower", "model"])
    assert (lines[model][-1], lines[model + 1][-1]) == ("1.000", "1.000-1.000")
    popularity = next(line for line in lines if line[:1] == ["popularity,"])
    assert popularity[-1] == "0.667"


def test_materialize_makes_the_days_and_nothing_else(tmp_path, run):
    loaded = worlds.write_world(tmp_path)
    status, out, _ = run(loaded, "materialize", "item_table", "--from", DAYS[2], "--to", DAYS[4])
    assert status == 0
    assert "item_table: 60 rows" in out
    workspace = worlds.open_workspace(loaded)
    assert workspace.tables.partitions.days("item_table") == DAYS[2:5]
    assert workspace.tables.partitions.days("user_table") == []


def in_a_process(loaded, *arguments):
    code = "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, **environment(loaded)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_failure_inside_a_run_is_one_line_without_a_trace(tmp_path):
    loaded = worlds.write_world(tmp_path)
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", worlds.log_rows([0]))
    ended = in_a_process(loaded, "materialize", "behavior_table", "--from", DAYS[3])
    assert ended.returncode == 1
    assert line_of(ended.stderr).startswith(f"EmptyDayError: table behavior_table, day {DAYS[3]}: expected at least one row")


def test_a_failing_check_is_one_line_with_the_command_that_mends_it(tmp_path):
    loaded = worlds.write_config(tmp_path)
    ended = in_a_process(loaded, "materialize", "train_and_evaluate", "--from", EVALUATION_DAY)
    assert ended.returncode == 1
    line = line_of(ended.stderr)
    assert "window_complete" in line
    assert "To fill them: dssm-assets materialize daily_tables --from 2024-01-01 --to 2024-01-11" in line
