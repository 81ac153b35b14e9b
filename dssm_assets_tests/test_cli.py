"""The command line: exit statuses, errors of one line per fault, and what successful commands print."""

import datetime as dt
import errno
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import dagster as dg
import pytest
from rich.console import Console

from dssm_assets import demo, installed_extras
from dssm_assets.cli import build_parser, main
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.asset_factory import _log_end
from dssm_assets.defs.scene import Scene
from dssm_assets.materialize import plan_runs
from dssm_assets.terminal import print_next_commands
from dssm_assets_tests import programs, worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function that runs a command on a home; it returns (exit status, stdout, stderr)."""

    def call(loaded, *arguments):
        for name, value in environment(loaded).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        status = main(arguments)
        return status, *printed()

    def printed():
        found = capsys.readouterr()
        return found.out, found.err

    call.printed = printed
    return call


def environment(loaded):
    return {"DSSM_CONFIG": str(loaded.path), "DSSM_HOME": str(loaded.home), "COLUMNS": "200"}


def only_line(stderr):
    (line,) = stderr.strip().splitlines()
    return line


@programs.needs_extras(*installed_extras.EXTRAS)
def test_help_lists_all_commands_by_what_one_wants(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    *_, listed = build_parser().format_help().partition("\nstart")
    groups = [[line.split()[0] for line in block.splitlines()[1:] if line[2] != " "] for block in listed.split("\n\n")]
    assert groups == [
        ["demo", "init", "validate", "configuration"],
        ["materialize", "experiment", "tune", "fit"],
        ["hit-rates", "experiments", "explore", "evaluate"],
        ["publish", "rollback", "recall", "serve"],
        ["import-config", "export-config", "catalog", "sampler-tables"],
        ["cleanup", "forget"],
    ]


TOMORROW = (dt.date.today() + dt.timedelta(days=1)).isoformat()
OUTSIDE = "range of days: expected days from 2024-01-01 to {}, got {}. To fix: choose days of the calendar"


@pytest.mark.parametrize(
    ("end", "arguments", "message"),
    [
        (
            DAYS[-1],
            ["sampel", "--from", DAYS[3]],
            "name: expected one of: daily_tables, train_and_evaluate, publish, behavior, ",
        ),
        (
            DAYS[-1],
            ["sample", "--from", DAYS[4], "--to", DAYS[3]],
            "range of days: expected a first day that is not after the last, got 2024-01-05 to 2024-01-04. To fix: swap them",
        ),
        (DAYS[-1], ["sample", "--from", "2023-12-31", "--to", DAYS[1]], OUTSIDE.format(DAYS[-1], f"2023-12-31 to {DAYS[1]}")),
        (DAYS[-1], ["sample", "--from", DAYS[-1], "--to", "2024-01-13"], OUTSIDE.format(DAYS[-1], f"{DAYS[-1]} to 2024-01-13")),
        (None, ["sample", "--from", TOMORROW], OUTSIDE.format("yesterday", f"{TOMORROW} to {TOMORROW}")),
        (
            DAYS[-1],
            ["sample_fg", "--from", "latest-2", "--to", "latest-3"],
            "range of days: expected a first day that is not after the last, got 2024-01-10 to 2024-01-09",
        ),
    ],
)
def test_what_cannot_be_materialized_is_an_error_of_one_line(tmp_path, run, end, arguments, message):
    loaded = worlds.write_config(tmp_path, {"calendar": {"end": end}})
    status, _, stderr = run(loaded, "materialize", *arguments)
    assert (status, only_line(stderr).startswith(f"ConfigError: {message}")) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["materialize", "sample", "--from", "yesterday"],
            "argument --from: YYYY-MM-DD, first, latest or latest-N is expected, got 'yesterday'",
        ),
        (["materialize", "sample"], "the following arguments are required: --from"),
        (["recall", "--features", '{"a": '], "not JSON: Expecting value"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_wrong_usage_exits_with_status_two(world, run, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(world.loaded, *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "first", "expected"),
    [
        (
            "dssm_model",
            "latest-6",
            "dssm_model, day latest-6: expected a day that can be made, got 2024-01-06. To fix: name one of 2024-01-07 to 2024-01-12",
        ),
        (
            "sample",
            "latest-12",
            "sample, day latest-12: expected a day that can be made, got 2023-12-31. To fix: name one of 2024-01-01 to 2024-01-12",
        ),
    ],
)
def test_a_named_day_that_cannot_be_made_says_which_can(tmp_path, run, name, first, expected):
    """The window has 6 days: the 7th is the first that can be evaluated."""
    loaded = worlds.write_config(tmp_path)
    status, _, stderr = run(loaded, "materialize", name, "--from", first)
    assert (status, only_line(stderr)) == (1, f"PartitionMissingError: {expected}")


def test_latest_evaluation_day_is_the_last_whose_truth_is_within_the_calendar(tmp_path):
    scene = Scene(worlds.write_config(tmp_path, {"evaluation": {"span_days": 3}}))
    assert plan_runs(scene, "total_hit_rate", "first", "latest").runs[0].days == (DAYS[6],)
    assert plan_runs(scene, "total_hit_rate", "latest", "latest").runs[-1].days == (DAYS[9],)
    assert plan_runs(scene, "sample", "first", "latest").runs[-1].days == tuple(DAYS)


def test_a_calendar_without_an_evaluation_day_says_so(tmp_path):
    """Its window has 6 days, so that the 7th would be the first to evaluate."""
    scene = Scene(worlds.write_config(tmp_path, {"calendar": {"end": DAYS[4]}}))
    for day in ("latest", DAYS[3]):
        with pytest.raises(ConfigError, match="6 days of the calendar before an evaluation day, and 1 from it on"):
            plan_runs(scene, "total_hit_rate", day, day)


def test_materialize_writes_exactly_the_given_days(tmp_path, run):
    loaded = worlds.write_world(tmp_path)
    status, out, _ = run(loaded, "materialize", "item_table", "--from", DAYS[2], "--to", "latest-7")
    assert status == 0
    assert f"item_table {DAYS[2]} to {DAYS[4]}: 60 rows" in out
    workspace = worlds.open_workspace(loaded)
    assert workspace.tables.partitions.days("item_table") == DAYS[2:5]
    assert workspace.tables.partitions.days("user_table") == []


def test_first_line_names_configuration_and_home(world, run, monkeypatch, tmp_path):
    path, home = world.loaded.path, world.loaded.home
    _, out, _ = run(world.loaded, "hit-rates")
    assert out.splitlines()[0] == f"configuration {path} (DSSM_CONFIG), home {home} (DSSM_HOME)"
    monkeypatch.chdir(world.folder)
    (tmp_path / "other").mkdir()
    arguments = ["--config", "config.yaml", "--home", str(home)]
    for name in ("DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "other"))
    for command in (["hit-rates"], ["rollback", "--list"]):
        main([*command, *arguments])
        # rollback --list prints data alone on stdout.
        assert "".join(run.printed()).splitlines()[0] == f"configuration {path} (--config), home {home} (--home)"


def test_first_line_goes_to_stderr_where_stdout_is_data(run, tmp_path):
    status, out, stderr = run(worlds.write_config(tmp_path), "recall", "--user-id", "a0", "--json")
    assert (status, out) == (1, "")
    assert stderr.startswith(f"configuration {tmp_path}/config.yaml (DSSM_CONFIG), home ")


@pytest.fixture
def in_folder(monkeypatch, tmp_path):
    """Makes the test's folder the current one, where the environment names no other."""
    monkeypatch.chdir(tmp_path)
    for name in ("DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_folder_without_a_configuration_is_an_error_not_the_demo(run, in_folder):
    assert main(["hit-rates"]) == 1
    out, stderr = run.printed()
    assert out == ""
    assert only_line(stderr).startswith(
        "ConfigError: configuration: expected a file named by --config or DSSM_CONFIG, or config.yaml"
    )


def test_folder_of_a_configuration_needs_no_argument(run, in_folder, tmp_path):
    loaded = worlds.write_world(tmp_path)
    assert main(["materialize", "item_table", "--from", DAYS[2]]) == 0
    assert (tmp_path / "tables" / "item_table" / f"ds={DAYS[2]}").is_dir()
    assert (tmp_path / "dagster.yaml").read_text().count("telemetry: {enabled: false}") == 1
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("item_table")) == {DAYS[2]}
    assert not loaded.home.exists()


@pytest.mark.parametrize(("arguments", "named_by"), [([], "default"), (["--home", ".dssm"], "--home")])
def test_first_line_of_the_demo_says_what_named_its_home(run, monkeypatch, tmp_path, arguments, named_by):
    def refuse(*_, **__):
        raise ConfigError(Fault("home", "a free one", "another", "choose one"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "/other")
    monkeypatch.setattr(demo, "prepare_home", refuse)
    assert main(["demo", *arguments]) == 1
    home = tmp_path / ".dssm"
    assert run.printed()[0] == f"configuration {home}/config.yaml (the demo's), home {home} ({named_by})\n"


def test_next_commands_of_the_demo_can_be_pasted_in_any_folder(tmp_path):
    home, text = tmp_path / "my home", io.StringIO()
    print_next_commands(Console(file=text, width=80), home, [DAYS[-2], DAYS[-1]])
    commands = [line.strip() for line in text.getvalue().splitlines() if line.startswith("  ")]
    parsed = [shlex.split(line, comments=True) for line in commands]
    assert [words[:2] for words in parsed] == [
        ["dssm-assets", "hit-rates"],
        [f"DAGSTER_HOME={home}", "dg"],
        ["dssm-assets", "recall"],
        ["dssm-assets", "serve"],
    ]
    assert parsed[1][1:] == ["dg", "dev", "-m", "dssm_assets.definitions"]
    for words in parsed:
        if words[0] == "dssm-assets":
            assert build_parser().parse_args(words[1:]).home == home


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(KeyboardInterrupt(), 130, "interrupted\n"), (OSError(errno.ENOSPC, "no space left"), 1, "DiskFullError: ")],
)
def test_imports_that_end_early_have_no_traceback(monkeypatch, capsys, error, status, message):
    def load_all(kind):
        raise error

    monkeypatch.setattr(installed_extras, "load_all", load_all)
    assert main(["configuration"]) == status
    assert capsys.readouterr().err.startswith(message)


def start(loaded, *arguments, **pipes):
    code = "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"
    kept = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env={**kept, **environment(loaded)}, text=True, stderr=subprocess.PIPE, **pipes)


def test_failure_inside_a_run_is_one_line_without_a_traceback(run, tmp_path):
    loaded = worlds.write_world(tmp_path)
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", worlds.log_rows([0]))
    status, _, stderr = run(loaded, "materialize", "behavior_table", "--from", DAYS[3])
    assert status == 1
    assert only_line(stderr).startswith(f"EmptyDayError: table behavior_table, day {DAYS[3]}: expected at least one row")


def test_failing_check_is_one_line_with_the_command_that_fixes_it(tmp_path):
    """In a process of its own, whose logs nobody else has set up."""
    arguments = ["materialize", "train_and_evaluate", "--from", EVALUATION_DAY]
    with start(worlds.write_config(tmp_path), *arguments, stdout=subprocess.DEVNULL) as process:
        line = only_line(process.stderr.read())
        assert process.wait(60) == 1
    assert "window_complete" in line
    assert f"dssm-assets materialize train_and_evaluate --from {EVALUATION_DAY} --with-upstream" in line


def test_reader_that_leaves_early_ends_a_command_without_a_traceback(tmp_path):
    with start(worlds.write_config(tmp_path), "configuration", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 1)


def test_reader_that_leaves_early_does_not_end_a_run(tmp_path):
    loaded = worlds.write_world(tmp_path)
    with start(loaded, "materialize", "item_table", "--from", DAYS[0], "--to", DAYS[4], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith("configuration ")
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 0)
    assert worlds.open_workspace(loaded).tables.partitions.days("item_table") == DAYS[:5]


def test_interrupt_ends_a_run_and_its_command_without_a_traceback(tmp_path):
    loaded = worlds.write_world(tmp_path)
    arguments = ["materialize", "total_hit_rate", "--from", EVALUATION_DAY, "--with-upstream"]
    with start(loaded, *arguments, stdout=subprocess.PIPE, start_new_session=True) as process:
        while not process.stdout.readline().startswith("behavior 2024-01-01 to "):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        stderr = process.stderr.read()
        rest = r"\d+ of \d+ partitions are stored; the same command makes the others\ninterrupted\n"
        assert re.fullmatch(rest, stderr) and process.wait(60) == 130
    with dg.DagsterInstance.from_config(str(loaded.home)) as instance:
        assert [run.is_finished and not run.is_success for run in instance.get_runs()] == [True]


def test_log_line_of_an_empty_table_gives_no_speed():
    lines = []
    for rows in (0, 30):
        manifest = SimpleNamespace(rows=rows, size_bytes=0, columns={"user_id": "int64"})
        _log_end(lines.append, [SimpleNamespace(manifest=manifest)], 2.0)
    assert lines == ["0 rows in 2.0 s, 1 day", "30 rows in 2.0 s (15 rows/s), 1 day"]
