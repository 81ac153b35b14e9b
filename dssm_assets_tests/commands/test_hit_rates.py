"""`dssm-assets hit-rates`: what it shows of a day, and why there is nothing to show."""

import pytest
from rich.console import Console

from dssm_assets.cli import main
from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets.terminal import DayRates, print_hit_rates
from dssm_assets_tests import worlds
from dssm_assets_tests.core.evaluation.worlds import total_row
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def run(capsys, loaded, *arguments):
    """Returns status, stdout without its first line, and stderr of the command."""
    status = main(["hit-rates", "--config", str(loaded.path), "--home", str(loaded.home), *arguments])
    captured = capsys.readouterr()
    return status, captured.out.partition("\n")[2], captured.err


def printed(day, scopes=(Scope.ALL,), **keys):
    console = Console(width=160)
    with console.capture() as capture:
        print_hit_rates(console, day, scopes, **keys)
    return capture.get()


def test_it_shows_every_scope_known_new_and_all_pairs_and_the_gate(world, capsys):
    status, out, stderr = run(capsys, world.loaded)
    assert (status, stderr) == (0, "")
    for title in ("All items", "Discovery", "Repeat"):
        assert f"{EVALUATION_DAY}  {title}" in out
    assert "known user has a known item" not in out.split("Known (warm)")[1]
    lines = [line.split() for line in out.split("Known (warm), new (cold) and all")[1].splitlines()]
    # All 12 users and their 36 items are known; the model finds them all.
    assert ["all", "warm", "12", "36", "1.000", "1.000"] in [line[:6] for line in lines]
    assert ["all", "all", "12", "36", "1.000", "1.000"] in [line[:6] for line in lines]
    assert "Gate: not enough evidence: 36 items to find by 12 known users; a verdict needs 100 by 20" in out


def rows(**populations):
    """Returns `cold=(3, 5)` as the rows of the model of all items, 3 users with 5 pairs."""
    return [
        {**total_row(population=name, k=5, hit_rate=0.25), "users": users, "truth_count": pairs}
        for name, (users, pairs) in populations.items()
    ]


def test_a_day_of_new_users_alone_says_so(capsys):
    out = printed(DayRates(EVALUATION_DAY, rows(cold=(3, 5), all=(3, 5)), [5]))
    assert (
        f"{EVALUATION_DAY}  All items: no known user has a known item to find; 5 items to find are of new users or are new themselves"
        in out
    )
    assert ["all", "cold", "3", "5", "0.250"] in [line.split()[:5] for line in out.splitlines()]
    assert "no user has such an item to find on this day" in printed(
        DayRates(EVALUATION_DAY, rows(cold=(3, 5)), [5]), [Scope.NEW]
    )


def test_a_span_is_named_by_its_first_and_last_day():
    day = DayRates("2024-01-05", rows(warm=(3, 5)), [5], "passed: fine", "2024-01-07")
    assert "2024-01-05 to 2024-01-07  All items (3 users)" in printed(day)
    assert "2024-01-05 to 2024-01-07  Gate: passed: fine" in printed(day, is_whole=False)
    assert "Known (warm)" not in printed(day, is_whole=False)


def test_an_empty_home_says_what_to_run(tmp_path, capsys):
    status, out, stderr = run(capsys, worlds.write_config(tmp_path))
    assert (status, out) == (1, "")
    assert stderr.startswith(
        "PartitionMissingError: table total_hit_rate: expected a day that is evaluated, got none. To fix: dssm-assets materialize "
        "train_and_evaluate --with-upstream --from DAY"
    )


def test_a_day_that_is_not_evaluated_says_which_are(world, capsys):
    status, _, stderr = run(capsys, world.loaded, "--day", DAYS[10])
    assert status == 1
    assert f"table total_hit_rate, day {DAYS[10]}: expected an evaluated day, got no partition. To fix: " in stderr
    assert f"--from {DAYS[10]}; evaluated are {EVALUATION_DAY} to {EVALUATION_DAY}" in stderr


def test_a_day_that_cannot_be_evaluated_says_why(world, tmp_path, capsys):
    loaded = world.copy(tmp_path / "world", {"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(tmp_path / "world" / "source" / "behavior.parquet", worlds.log_rows([0]))
    worlds.materialize(loaded, worlds.DAILY, [DAYS[9]])
    _, _, stderr = run(capsys, loaded, "--day", DAYS[9])
    assert f"got no partition: there is no positive event on the day {DAYS[9]}, so there is nothing to find" in stderr


def test_train_and_evaluate_prints_the_hit_rates_at_its_end(world, tmp_path, capsys):
    loaded = world.copy(tmp_path / "world")
    arguments = ["--config", str(loaded.path), "--home", str(loaded.home), "--from", EVALUATION_DAY]
    assert main(["materialize", "total_hit_rate", *arguments]) == 0
    out = capsys.readouterr().out
    assert f"{EVALUATION_DAY}  All items (12 users)" in out
    assert "Gate: not enough evidence" in out
