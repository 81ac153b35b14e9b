"""What an error prints to be run is run here, and cures it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from dssm_assets.cli import main
from dssm_assets.core.features.fg_tables import USER_FEATURES_FG
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

COMMAND = re.compile(r"dssm-assets (materialize [a-z_]+ --from [0-9-]+(?: --to [0-9-]+)? --with-upstream)")
AT = ["--from", EVALUATION_DAY]


@pytest.fixture
def loaded(world, tmp_path):
    return world.copy(tmp_path / "world")


def run(loaded, capsys, *arguments):
    """Runs a command; returns its status and what it printed."""
    status = main([*arguments, "--config", str(loaded.path), "--home", str(loaded.home)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def remove(*tables):
    """Returns what removes days of tables."""

    def change(loaded):
        for table, day in tables:
            shutil.rmtree(Path(loaded.root) / table / f"ds={day}")

    return change


def rewrite_features(loaded):
    """Stores other features of a day than those that its samples were made from."""
    workspace = worlds.open_workspace(loaded)
    stored = workspace.need("user_features_fg", DAYS[8])
    table = workspace.tables.read(stored)
    workspace.tables.write(USER_FEATURES_FG, DAYS[8], table.slice(0, 5), inputs=stored.inputs)


FAULTS = {
    "a window with missing days": (
        remove(("positive_sample", DAYS[8]), ("user_features_fg", DAYS[9])),
        ["materialize", "train_and_evaluate", *AT],
    ),
    "a table without the day": (remove(("sample", DAYS[9])), ["materialize", "sample_fg", "--from", DAYS[9]]),
    "a rolling state without earlier days": (
        remove(("behavior", DAYS[5]), ("user_activity", DAYS[5])),
        ["materialize", "user_activity", "--from", DAYS[6]],
    ),
    "several days of a table": (
        remove(("numeric_value_counts", DAYS[7]), ("numeric_value_counts", DAYS[8])),
        ["materialize", "feature_binning", *AT],
    ),
    "samples of former features": (rewrite_features, ["materialize", "numeric_value_counts", "--from", DAYS[9]]),
    "a model that is missing": (remove(("dssm_model", EVALUATION_DAY)), ["materialize", "item_vectors", *AT]),
    "a day that is not evaluated": (remove(), ["hit-rates", DAYS[10]]),
}
"""What is done to a built world, and the command that then fails."""
SLOW = ("a window with missing days", "a table without the day", "a model that is missing", "a day that is not evaluated")


@pytest.mark.parametrize("fault", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAULTS])
def test_the_printed_command_cures_the_error(fault, loaded, capsys):
    change, command = FAULTS[fault]
    change(loaded)
    status, printed = run(loaded, capsys, *command)
    assert status == 1
    for _ in range(3):  # what was built from it follows, each with its own command
        (remedy,) = set(COMMAND.findall(printed))
        assert run(loaded, capsys, *shlex.split(remedy))[0] == 0
        status, printed = run(loaded, capsys, *command)
        if status == 0:
            return
    pytest.fail(printed)
