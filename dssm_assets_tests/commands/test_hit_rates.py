"""`dssm-assets hit-rates`: what it shows of a day, and why there is nothing to show."""

import io

import pyarrow as pa
import pytest
from rich.console import Console

from dssm_assets.cli import main
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA
from dssm_assets.steps.checks import CHECKS, AssetCheck
from dssm_assets.steps.workspace import Check
from dssm_assets.terminal import DayRates, ProgressTable, describe_rates, print_hit_rates, summary
from dssm_assets_tests import worlds
from dssm_assets_tests.core.evaluation.worlds import total_row
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


def run(capsys, loaded, *arguments):
    """Returns status, stdout without its first line, and stderr of the command."""
    status = main(["hit-rates", "--config", str(loaded.path), "--home", str(loaded.home), *arguments])
    captured = capsys.readouterr()
    return status, captured.out.partition("\n")[2], captured.err


def printed(day):
    console = Console(width=160)
    with console.capture() as capture:
        print_hit_rates(console, day)
    return capture.get()


def lines_of(renderable, width=80):
    """Returns the lines of something rendered in a terminal of this width, without blank ones."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_it_shows_every_scope_known_new_and_all_pairs_and_the_gate(world, capsys):
    status, out, stderr = run(capsys, world.loaded, "--all")
    assert (status, stderr) == (0, "")
    assert f"Hit rates on {EVALUATION_DAY}" in out
    assert run(capsys, world.loaded, "first", "--all") == (0, out, "")
    for title in ("All items", "Discovery: items not in the window", "Repeat: items of the window"):
        assert title in out
    lines = [line.split() for line in out.split("Known (warm), other (not warm) and all")[1].splitlines()]
    # All 12 users and their 36 items are known; the model finds them all.
    assert ["all,", "warm", "12", "36", "1.000", "1.000"] in [line[:6] for line in lines]
    assert ["all,", "all", "12", "36", "1.000", "1.000"] in [line[:6] for line in lines]
    assert "Gate: not enough evidence: 36 items to find by 12 known users; a verdict needs 100 by 20" in out


def test_all_prints_the_borders_of_the_report_and_of_the_fit():
    day = DayRates(EVALUATION_DAY, total(total_row()), borders=("training.epochs: the last one, 5, still gained .1",))
    assert f"{EVALUATION_DAY}  training.epochs: the last one, 5, still gained .1" in printed(day)


def test_a_published_day_has_its_verdict_among_the_last_lines():
    """The days before it were evaluated by another command."""
    table = ProgressTable({"serving_bundle": 1}, lambda ds: DayRates(ds, total(total_row()), "not enough evidence"), Console())
    table.on_partition("serving_bundle", EVALUATION_DAY)
    assert table.rates[EVALUATION_DAY].gate == "not enough evidence"


def total(*rows):
    return pa.Table.from_pylist(list(rows), schema=TOTAL_SCHEMA)


def test_an_empty_home_says_what_to_run(tmp_path, capsys):
    status, out, stderr = run(capsys, worlds.write_config(tmp_path))
    assert (status, out) == (1, "")
    assert stderr.startswith("PartitionMissingError: table total_hit_rate in ")
    assert (
        "expected a stored day, got none. To fix: correct the name, or materialize total_hit_rate of DAY in Dagster" in stderr
    )


def test_a_day_that_is_not_evaluated_says_which_are(world, capsys):
    status, _, stderr = run(capsys, world.loaded, DAYS[10])
    assert status == 1
    assert f"table total_hit_rate, day {DAYS[10]}: expected an evaluated day, got no partition. To fix: " in stderr
    assert f"--from {DAYS[10]} --with-upstream; evaluated are {EVALUATION_DAY} to {EVALUATION_DAY}" in stderr
    _, _, stderr = run(capsys, world.loaded, "latest-1")
    assert (
        f"table total_hit_rate, day latest-1: expected a stored day, got {DAYS[10]}. To fix: name one of {EVALUATION_DAY}"
        in stderr
    )


@pytest.mark.parametrize(
    ("ds", "reason"),
    [
        (DAYS[5], f"the first day with a window of 6 days in the calendar is {DAYS[6]}"),
        ("2024-01-20", f"its truth would be the interactions of 2024-01-20, and the calendar ends on {EVALUATION_DAY}"),
    ],
)
def test_a_day_that_can_never_be_evaluated_is_not_one_to_materialize(world, capsys, ds, reason):
    status, _, stderr = run(capsys, world.loaded, ds)
    assert status == 1
    assert f"got no partition: {reason}. To fix: choose another day; evaluated are" in stderr


def test_a_day_that_cannot_be_evaluated_says_why(world, tmp_path, capsys):
    loaded = world.copy(tmp_path / "world", {"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(tmp_path / "world" / "source" / "behavior.parquet", worlds.log_rows([0]))
    worlds.run_steps(loaded, worlds.DAILY, [DAYS[9]])
    _, _, stderr = run(capsys, loaded, DAYS[9])
    assert f"got no partition: there is no positive event on the day {DAYS[9]}, so there is nothing to find" in stderr


@pytest.mark.parametrize("is_blocking", [False, True])
def test_materialize_ends_with_the_table_of_hit_rates_and_the_checks(world, tmp_path, capsys, monkeypatch, is_blocking):
    loaded = world.copy(tmp_path / "world")
    workspace = worlds.open_workspace(loaded)
    stored = workspace.need(TOTAL_HIT_RATE.name, EVALUATION_DAY)
    workspace.write_table(TOTAL_HIT_RATE, DAYS[10], workspace.tables.read(stored), [], **stored.facts)
    failing = AssetCheck(
        TOTAL_HIT_RATE.name, lambda workspace, result: Check("never", False, "it is never so"), "Never.", is_blocking
    )
    monkeypatch.setitem(CHECKS, "never", failing)
    arguments = ["--config", str(loaded.path), "--home", str(loaded.home), "--from", EVALUATION_DAY]
    assert main(["materialize", "total_hit_rate", *arguments]) == int(is_blocking)
    out = capsys.readouterr().out
    assert out.endswith(f"\nchecks passed: 2; failed: never of total_hit_rate: {EVALUATION_DAY}: it is never so\n")
    if is_blocking:  # the day that was made, without the trend: nothing more is read after a failure
        assert f"hit_rate@k on {EVALUATION_DAY}, 12 known users" in out
        return
    _, printed, _ = run(capsys, loaded)
    assert printed.startswith(f"hit_rate@k on {EVALUATION_DAY}, 12 known users") and "Gate: not enough evidence" in printed
    assert DAYS[10].removeprefix("2024-") in printed and printed in out


def rates_on(ds, **rates):
    """Returns a day whose scorers have `model=(a, b)`: a at k = 1, 2, 5 and 9 plus .01 per cut-off, b of what is new."""
    found = []
    for scorer, (rate, new) in rates.items():
        found += [total_row(scorer, k=k, hit_rate=rate + 0.01 * place) for place, k in enumerate((1, 2, 5, 9))]
        found.append(total_row(scorer, "unseen", k=9, hit_rate=new))
    return DayRates(ds, total(*found))


def test_summary_has_the_headline_first_its_interval_alone_and_earlier_days_as_the_trend():
    rates = {"popularity": (0.05, 0.1), "merged": (0.3, 0.25), "channel_own_history": (0.2, 0.0)}
    days = [rates_on(f"2024-01-0{n}", model=(0.1 * n, 0.2), **rates) for n in range(1, 6)]
    lines = lines_of(summary(days))
    assert lines[0].split() == ["hit_rate@k", "on", "2024-01-05,", "40", "known", "users"]
    assert lines[1:4] == [
        "Users get the merged list: the best proposals of all channels.",
        "The two-tower model is there for items that are new to a user (unseen).",
        "Items that users take again come from the channel own history.",
    ]
    assert lines[4].split() == ["@1", "@2", "@9", "95%", "interval", "unseen", "01-02", "01-03", "01-04"]
    # Merged at k = 1, 2, 9: .30, .31, .33; of half width .05. New .25; earlier days .33 each. The model on day n: .1 n + .03.
    assert lines[6].split() == ["merged", "list", *[".300", ".310", ".330", ".280-.380", ".250", ".330", ".330", ".330"]]
    assert lines[7].split() == ["two-tower", "model", *[".500", ".510", ".530", ".200", ".230", ".330", ".430"]]
    assert lines[8].split() == ["popularity", *[".050", ".060", ".080", ".100", ".080", ".080", ".080"]]
    assert lines[9:] == [
        "interval: of @9; dates: @9 of the days before",
        "unseen: @9 of items that a user never interacted with, own history left out",
        "known (warm): users and items with positive events in the window",
    ]
    del rates["channel_own_history"]
    assert not any("own history." in line for line in lines_of(summary([rates_on("2024-01-05", model=(0.1, 0.2), **rates)])))


def test_summary_without_a_merged_list_leads_with_the_model():
    lines = lines_of(summary([rates_on("2024-01-05", popularity=(0.05, 0.1), model=(0.1, 0.2))]))
    assert lines[3].split() == ["two-tower", "model", ".100", ".110", ".130", ".080-.180", ".200"]
    assert not any("merged" in line for line in lines)
    assert describe_rates(rates_on("2024-01-05", popularity=(0.05, 0.1), ease=(0.02, 0.3), model=(0.1, 0.2))) == (
        "2024-01-05  hit_rate@9: two-tower model 0.130; popularity 0.080  unseen: two-tower model 0.200; EASE 0.300"
    )


def test_progress_table_shows_days_pace_and_time_left_once_the_pace_is_known():
    """The first day has what is done once: of the demo's 365 days of behavior it took 1.8 s, the others 5.8 s together."""
    seconds = [0.0]
    console = Console(file=io.StringIO(), width=80)
    table = ProgressTable({"behavior": 60, "dssm_model": 2}, console=console, now=lambda: seconds[0])
    seconds[0] = 100.0
    table.on_partition("behavior", "0")
    assert lines_of(table.render())[1].split() == ["behavior", "1/60", "-:--:--"]
    for ds in range(1, 4):
        seconds[0] += 0.5
        table.on_partition("behavior", str(ds))
    table.on_partition("dssm_model", "0")
    lines = [line.split() for line in lines_of(table.render())]
    assert lines[0] == ["1:42", "5", "of", "62", "partitions"]
    # 3 days in 1.5 s after the first: 56 more in 28 s.
    assert lines[1] == ["behavior", "4/60", "2.0", "days/s", "0:00:28"]
    assert lines[2] == ["dssm_model", "1/2", "-:--:--"]


def test_a_log_file_gets_each_line_and_the_rates_of_each_evaluated_day(capsys):
    table = ProgressTable({}, lambda ds: rates_on(ds, model=(0.1, 0.2)), console=Console(file=io.StringIO()))
    with table:
        table.on_log("behavior: 10 rows")
        table.on_partition("total_hit_rate", "2024-01-05")
    assert capsys.readouterr().out.splitlines() == [
        "behavior: 10 rows",
        "2024-01-05  hit_rate@9: two-tower model 0.130  unseen: two-tower model 0.200",
    ]
    assert list(table.rates) == ["2024-01-05"]


def test_a_terminal_has_the_rates_of_evaluated_days_below_the_progress():
    table = ProgressTable(
        {}, lambda ds: rates_on(ds, model=(0.1, 0.2)), console=Console(file=io.StringIO(), force_terminal=True)
    )
    table.on_partition("total_hit_rate", "2024-01-05")
    assert any("hit_rate@k on 2024-01-05" in line for line in lines_of(table.render()))
